// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"testing"
)

func TestSortMergesSamplesOfOneName(t *testing.T) {
	a := NewScope("cluster.a", "cluster", Tag{"envoy_cluster_name", "a"})
	b := NewScope("cluster.a", "cluster", Tag{"envoy_cluster_name", "a"}) // another cluster with the same alt_stat_name
	var h1, h2 Histogram
	h1.Record(1)
	h2.Record(100)
	list := Sort([]Sample{
		{Name: "server.live", Kind: KindGauge, Value: 1},
		{Scope: b, Name: "upstream_rq_total", Value: 2},
		{Scope: a, Name: "upstream_rq_time", Kind: KindHistogram, Histogram: &h1},
		{Scope: a, Name: "upstream_rq_total", Value: 3},
		{Scope: b, Name: "upstream_rq_time", Kind: KindHistogram, Histogram: &h2},
		{Scope: b, Name: "empty", Kind: KindHistogram},
	})
	var names []string
	for _, s := range list {
		names = append(names, s.FullName())
	}
	want := []string{"cluster.a.empty", "cluster.a.upstream_rq_time", "cluster.a.upstream_rq_total", "server.live"}
	if len(names) != len(want) {
		t.Fatalf("got %q, want %q", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Fatalf("got %q, want %q", names, want)
		}
	}
	if list[2].Value != 5 {
		t.Errorf("merged counter: got %d, want 5", list[2].Value)
	}
	if n, sum := list[1].Histogram.N, list[1].Histogram.Sum; n != 2 || sum != 101 {
		t.Errorf("merged histogram: %d values, sum %d; want 2, 101", n, sum)
	}
	if h1.N != 1 || h2.N != 1 {
		t.Error("merging wrote to a histogram that was handed over")
	}
	if list[0].Used() || !list[1].Used() || !list[3].Used() {
		t.Error("an empty histogram counts as used, or something that counted as unused")
	}
}

func TestBelowCountsWhatIsAtMostAValue(t *testing.T) {
	var h Histogram
	for v := uint64(1); v <= 10000; v++ {
		h.Record(v)
	}
	last := uint64(0)
	for _, v := range []float64{0, 0.5, 1, 2, 3, 10, 100, 500, 1000, 5000, 9999, 10000, 1e9} {
		got := h.Below(v)
		if got < last {
			t.Errorf("below %v: %d, fewer than below a smaller value", v, got)
		}
		last = got
		want := min(v, 10000)
		if float64(got) < want*0.97-1 || float64(got) > want*1.03+1 {
			t.Errorf("below %v: got %d, want about %v", v, got, want)
		}
	}
	if h.Below(1e12) != h.N {
		t.Errorf("below all: got %d, want %d", h.Below(1e12), h.N)
	}
}
