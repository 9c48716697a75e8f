// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// Settings are the limit as it is now.
type Settings struct {
	Used      uint64 `json:"used"`
	Limit     uint64 `json:"concurrencyLimit"`
	Min       uint32 `json:"minConcurrencyLimit"`
	Max       uint32 `json:"maxConcurrencyLimit"`
	Measuring bool   `json:"measuring,omitempty"` // the least round-trip time, with few requests
	MinRTT    int64  `json:"minRTTMillis"`
	SampleRTT int64  `json:"sampleRTTMillis"`
	Status    int    `json:"status"`
}

// Explain implements filter.Explainer.
func (f *limiter) Explain(*filter.Explained) []filter.Explanation {
	c, st := &f.shared.config, f.shared.state()
	if !c.Enabled {
		return nil
	}
	s := Settings{
		Used: st.Outstanding, Limit: st.Limit, Min: c.MinLimit, Max: c.MaxLimit, Measuring: st.Measuring,
		MinRTT: st.MinRTT.Milliseconds(), SampleRTT: st.SampleRTT.Milliseconds(), Status: c.Status,
	}
	text := fmt.Sprintf("requests %d of %d, which adapts between %d and %d; those beyond it get %d", s.Used, s.Limit, s.Min, s.Max, s.Status)
	if s.Measuring {
		text += "; the least round-trip time is measured now"
	}
	return []filter.Explanation{{Stage: "limits", Reason: text, Settings: s}}
}

var _ filter.Explainer = (*limiter)(nil)
