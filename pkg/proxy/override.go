// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// overriding returns the endpoint that a filter has named for the first attempt; nil
// where the request is to be balanced. It fails where that one is asked for
// strictly and cannot be had.
func (x *exchange) overriding() (*lb.Host, filter.Verdict) {
	o := &x.Override
	if !o.Address.IsValid() || len(x.tried) > 0 || x.on.originals != nil {
		return nil, filter.Next
	}
	v := x.on.spec.lb.View()
	h := v.Find(o.Address)
	switch {
	case h != nil && v.MayOverride(h):
		return h, filter.Next
	case !o.Strict:
		return nil, filter.Next
	}
	x.on.stats.noneHealthy++
	f := &failureNoHealthy
	if h == nil && o.NotFound != 0 {
		f = notFound(o.NotFound)
	}
	return nil, x.attemptFailed(x.main, f)
}

func notFound(status int) *failure {
	f := failureNoHealthy
	f.Status = status
	return &f
}
