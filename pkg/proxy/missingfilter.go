// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// missingFilter stands for a filter whose configuration has not come: what it would have
// refused is not known, so that nothing passes.
type missingFilter struct{}

// OnRequest implements filter.Filter.
func (missingFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	x.Local = filter.LocalReply{Status: 500, Details: "filter_config_not_found", Flags: record.NFCF}
	return filter.Reply
}
