// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"strings"
)

// Kind is what a sample counts.
type Kind uint8

// The kinds.
const (
	KindCounter   Kind = iota // only grows, until the counters are reset
	KindGauge                 // a state
	KindHistogram             // a distribution since the process began
	KindText                  // a text: what Envoy calls a text readout
)

// Unit is what a histogram's values count.
type Unit uint8

// The units.
const (
	Plain  Unit = iota
	Micros      // microseconds, shown in milliseconds as Envoy does
)

// Sample is one number, histogram or text at one time.
type Sample struct {
	// Scope is what the number is about; nil for the process.
	Scope *Scope
	// Name is Envoy's, within the scope: "upstream_rq_total". Without a scope it is
	// the whole stat name: "server.live".
	Name      string
	Help      string // one line; may be empty
	Kind      Kind
	Unit      Unit
	Value     uint64
	Histogram *Histogram // of KindHistogram; nil for an empty one
	Text      string     // of KindText
}

// Scope is what several samples have in common.
type Scope struct {
	prefix string // of stat names
	family string // the prefix without what the tags hold
	tags   string // as Prometheus labels, without braces
}

// Tag is a variable part of stat names, which Prometheus shows as a label.
type Tag struct {
	Name  string // a valid label name
	Value string
}

// NewScope makes the scope whose stat names begin with prefix and a dot, for
// example NewScope("cluster.orders", "cluster", Tag{"envoy_cluster_name", "orders"}).
func NewScope(prefix, family string, tags ...Tag) *Scope {
	var b strings.Builder
	for i, t := range tags {
		if i > 0 {
			b.WriteByte(',')
		}
		appendLabel(&b, t.Name, t.Value)
	}
	return &Scope{prefix: prefix, family: family, tags: b.String()}
}

// FullName is the stat's name as Envoy shows it: "cluster.orders.upstream_rq_total".
func (s *Sample) FullName() string {
	if s.Scope == nil {
		return s.Name
	}
	return s.Scope.prefix + "." + s.Name
}

// Used reports whether the sample is anything but zero.
func (s *Sample) Used() bool {
	if s.Kind == KindHistogram {
		return s.Histogram != nil && s.Histogram.N > 0
	}
	if s.Kind == KindText {
		return s.Text != ""
	}
	return s.Value != 0
}

// Sort orders samples by full name and merges those of one name: their values
// are added, and of texts the first is taken. Two scopes share a name where a configuration says so
// (alt_stat_name, stat_prefix).
func Sort(samples []Sample) []Sample {
	type named struct {
		name string
		s    Sample
	}
	list := make([]named, len(samples))
	for i := range samples {
		list[i] = named{samples[i].FullName(), samples[i]}
	}
	slices.SortStableFunc(list, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	out := samples[:0]
	for i := range list {
		if i > 0 && list[i].name == list[i-1].name && list[i].s.Kind == out[len(out)-1].Kind {
			out[len(out)-1].add(&list[i].s)
			continue
		}
		out = append(out, list[i].s)
	}
	return out
}

func (s *Sample) add(o *Sample) {
	s.Value += o.Value
	if s.Kind != KindHistogram || o.Histogram == nil {
		return
	}
	sum := *o.Histogram
	if s.Histogram != nil {
		sum.Merge(s.Histogram)
	}
	s.Histogram = &sum
}
