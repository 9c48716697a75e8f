// SPDX-License-Identifier: Apache-2.0

package localratelimit

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/ratelimit"
)

// Settings are a rate limit with its buckets.
type Settings struct {
	Enabled       float64              `json:"enabledPercent"`
	Enforced      float64              `json:"enforcedPercent"`
	Status        int                  `json:"status"`
	PerConnection bool                 `json:"perConnection,omitempty"` // then buckets are as a new one has them
	Bucket        *ratelimit.Use       `json:"bucket,omitempty"`
	Descriptors   []DescriptorSettings `json:"descriptors,omitempty"` // at most so many
	More          int                  `json:"moreDescriptors,omitempty"`
}

// DescriptorSettings are the bucket of what has these entries.
type DescriptorSettings struct {
	Entries map[string]string `json:"entries"` // of any value where it is empty
	Shadow  bool              `json:"shadow,omitempty"`
	Keys    int               `json:"keys,omitempty"` // of values left open: how many have a bucket now
	ratelimit.Use
}

// maxExplained bounds the descriptors that are told of.
const maxExplained = 8

// Explain implements filter.Explainer.
func (f *rateFilter) Explain(r *filter.Explained) []filter.Explanation {
	l := f.limits
	if own, ok := r.Setting.(*limits); ok {
		l = own
	}
	enabled, enforced := f.w.Percent(l.Enabled), f.w.Percent(l.Enforced)
	if enabled == 0 || l.Bucket == nil && len(l.Descriptors) == 0 {
		return nil
	}
	s := Settings{Enabled: float64(enabled) / 1e4, Enforced: float64(enforced) / 1e4, Status: l.Status, PerConnection: l.PerConnection}
	var words []string
	if l.Bucket != nil {
		use := ratelimit.Config(*l.Bucket).Full()
		if !l.PerConnection {
			use = ratelimit.Config(*l.Bucket).Use(l.shared.standard, r.Now)
		}
		s.Bucket = &use
		words = append(words, use.String())
	}
	for i := range l.Descriptors {
		if i == maxExplained {
			s.More = len(l.Descriptors) - i
			words = append(words, fmt.Sprintf("and %d more", s.More))
			break
		}
		d := l.descriptor(i, r.Now)
		s.Descriptors = append(s.Descriptors, d)
		words = append(words, d.text(l, i))
	}
	text := strings.Join(words, "; ")
	if l.PerConnection {
		text += "; for each connection"
	}
	if enabled < 1_000_000 {
		text += fmt.Sprintf("; %.4g%% of the requests are counted", s.Enabled)
	}
	switch {
	case enforced == 0:
		text += "; nothing is refused"
	case enforced < 1_000_000:
		text += fmt.Sprintf("; %.4g%% of those beyond it get %d", s.Enforced, s.Status)
	default:
		text += fmt.Sprintf("; those beyond it get %d", s.Status)
	}
	return []filter.Explanation{{Stage: "rate limit", Reason: text, Settings: s}}
}

// descriptor reads the bucket of a descriptor.
func (l *limits) descriptor(i int, now int64) DescriptorSettings {
	d := &l.Descriptors[i]
	out := DescriptorSettings{Entries: map[string]string{}, Shadow: d.Shadow, Use: ratelimit.Config(d.Bucket).Full()}
	for _, e := range d.Entries {
		out.Entries[e.Key] = e.Value
	}
	if l.PerConnection {
		return out
	}
	switch h := l.shared.of[l.rules[i]]; {
	case h.table != nil:
		out.Keys = h.table.Keys()
	case h.bucket != nil:
		out.Use = ratelimit.Config(d.Bucket).Use(h.bucket, now)
	}
	return out
}

func (d *DescriptorSettings) text(l *limits, i int) string {
	var names []string
	open := false
	for _, e := range l.Descriptors[i].Entries {
		if e.Value == "" {
			open = true
			names = append(names, "each "+e.Key)
			continue
		}
		names = append(names, e.Key+"="+e.Value)
	}
	text := strings.Join(names, ", ") + " " + d.Use.String()
	if open {
		text = fmt.Sprintf("%s %d in %dms, %d at once (%d known)", strings.Join(names, ", "), d.PerFill, d.Interval, d.Max, d.Keys)
	}
	if d.Shadow {
		text += ", counted only"
	}
	return text
}

var _ filter.Explainer = (*rateFilter)(nil)
