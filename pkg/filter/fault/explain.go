// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Settings are the faults that requests may have, and how many have one.
type Settings struct {
	DelayPercent float64 `json:"delayPercent,omitempty"`
	Delay        int64   `json:"delayMillis,omitempty"`
	AbortPercent float64 `json:"abortPercent,omitempty"`
	HTTPStatus   int     `json:"httpStatus,omitempty"`
	GRPCStatus   int     `json:"grpcStatus,omitempty"`
	SlowPercent  float64 `json:"responseRatePercent,omitempty"`
	Rate         uint64  `json:"kibPerSecond,omitempty"`
	Active       int64   `json:"active"`
	MaxActive    *int64  `json:"maxActive,omitempty"` // nil: any number
}

// Explain implements filter.Explainer.
func (f *faultFilter) Explain(r *filter.Explained) []filter.Explanation {
	c := f.config
	if own, ok := r.Setting.(*resource.Fault); ok {
		c = own
	}
	if c.Delay == nil && c.Abort == nil && c.Slow == nil {
		return nil
	}
	s := Settings{Active: max(f.set.Active.Load(), 0)}
	if why := spares(c, r); why != "" {
		return []filter.Explanation{{Stage: "fault", Reason: "none: " + why, Settings: s}}
	}
	var words []string
	byHeader := func(is bool) string {
		if is {
			return " of those that ask for it by a header"
		}
		return ""
	}
	if d := c.Delay; d != nil {
		long := d.Fixed
		if ms := f.w.Number(d.DurationKey, -1); ms >= 0 {
			long = time.Duration(min(ms, float64(maxDelay/time.Millisecond))) * time.Millisecond
		}
		s.DelayPercent, s.Delay = f.percent(d.Percent), long.Milliseconds()
		by := " by " + long.String()
		if d.ByHeader {
			by, s.Delay = "", 0
		}
		words = append(words, fmt.Sprintf("delays %.4g%%%s%s", s.DelayPercent, byHeader(d.ByHeader), by))
	}
	if a := c.Abort; a != nil {
		s.AbortPercent = f.percent(a.Percent)
		with := ""
		switch {
		case a.ByHeader:
		case a.IsGRPC:
			s.GRPCStatus = int(f.w.Number(a.GRPCKey, float64(a.GRPC)))
			with = fmt.Sprintf(" with status %d of gRPC", s.GRPCStatus)
		default:
			s.HTTPStatus = int(f.w.Number(a.HTTPKey, float64(a.HTTP)))
			with = fmt.Sprintf(" with %d", s.HTTPStatus)
		}
		words = append(words, fmt.Sprintf("answers %.4g%%%s%s", s.AbortPercent, byHeader(a.ByHeader), with))
	}
	if w := c.Slow; w != nil {
		s.SlowPercent, s.Rate = f.percent(w.Percent), w.Fixed
		at := fmt.Sprintf(" to %d KiB a second", w.Fixed)
		if w.ByHeader {
			at = ""
		}
		words = append(words, fmt.Sprintf("slows the responses of %.4g%%%s%s", s.SlowPercent, byHeader(w.ByHeader), at))
	}
	text := fmt.Sprintf("%s: %d have one now", strings.Join(words, ", "), s.Active)
	if most := int64(f.w.Number(c.MaxActiveKey, float64(c.MaxActive))); most >= 0 {
		s.MaxActive = &most
		text += fmt.Sprintf(", %d at most", most)
	}
	return []filter.Explanation{{Stage: "fault", Reason: text, Settings: s}}
}

func (f *faultFilter) percent(p resource.Percent) float64 { return float64(f.w.Percent(p)) / 1e4 }

// spares is why the settings are not for this request, as concerns decides it.
func spares(c *resource.Fault, r *filter.Explained) string {
	if c.Cluster != "" && c.Cluster != r.Cluster {
		return "it is for requests to " + c.Cluster
	}
	if len(c.Nodes) > 0 && !slices.Contains(c.Nodes, string(r.Head.Get(nodeHeader))) {
		return "it is for other nodes"
	}
	var scratch []byte
	for i := range c.Headers {
		v, ok := filter.RequestValue(r.Head, c.Headers[i].Name, &scratch)
		if !filter.MatchHeader(&c.Headers[i], v, ok) {
			return "it asks for another " + c.Headers[i].Name
		}
	}
	return ""
}

var _ filter.Explainer = (*faultFilter)(nil)
