// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func firstOf(t *testing.T, p Picker, c *Cluster) *Host {
	t.Helper()
	first := p.Pick(c.View(), &Request{})
	for i := range 10 {
		if h := p.Pick(c.View(), &Request{Random: uint64(i) << 60}); h != first {
			t.Fatalf("a request went to %s, the one before to %s", h, first)
		}
	}
	return first
}

func TestPickFirstStaysUntilItMustGoOn(t *testing.T) {
	cfg := &resource.Cluster{LB: resource.LoadBalancing{Policy: resource.PickFirst}, Static: weighted(1, 9, 1, 1)}
	c := NewCluster(cfg)
	p, h := NewPicker(&cfg.LB, 1), c.View().Hosts()
	want := func(what string, host *Host) {
		t.Helper()
		if got := firstOf(t, p, c); got != host {
			t.Fatalf("%s: requests go to %s, want %s", what, got, host)
		}
	}
	want("at first", h[0])
	h[0].SetEjected(true)
	c.HealthChanged()
	want("the first is ejected", h[1])
	h[0].SetEjected(false)
	c.HealthChanged()
	want("the first is back", h[1])

	h[1].Conns.Add(2)
	h[1].Stats.CxConnectFail.Add(1)
	want("one connection more could not be made", h[1])
	h[1].Conns.Add(-2)
	want("connections have ended", h[1])
	h[1].Stats.CxConnectFail.Add(1)
	want("none can be made", h[2])
	for range 2 {
		firstOf(t, p, c).Stats.CxConnectFail.Add(1)
	}
	want("none to the end of the list", h[0])

	list := weighted(1, 1, 1, 1, 1)
	slices.Reverse(list.Localities[0].Endpoints)
	c.Update(cfg, list)
	want("another list has it, too", h[0])
	c.Update(cfg, weighted())
	c.Update(cfg, list)
	want("another list", c.View().Hosts()[0])
	if got := NewPicker(&cfg.LB, 7).Pick(c.View(), &Request{Tried: c.View().Hosts()[:1], HostAttempts: 1}); got != c.View().Hosts()[1] {
		t.Errorf("a retry went to %s, want the next in the list", got)
	}
}

func TestShufflesAreTheSameForAllWorkersAndForWhatStays(t *testing.T) {
	cfg := &resource.Cluster{LB: resource.LoadBalancing{Policy: resource.PickFirst, ShuffleAddresses: true}}
	const n = 64
	weights := slices.Repeat([]uint32{1}, n)
	cfg.Static = weighted(weights...)
	c := NewCluster(cfg)
	walk := func() (hosts []*Host) {
		p := NewPicker(&cfg.LB, uint64(len(weights)))
		for range c.View().Len() {
			h := p.Pick(c.View(), &Request{})
			hosts = append(hosts, h)
			h.Stats.CxConnectFail.Add(1)
		}
		return hosts
	}
	first := walk()
	if slices.Equal(first, c.View().Hosts()) {
		t.Error("the order is that of the list")
	}
	if len(first) != n || slices.Contains(first[1:], first[0]) {
		t.Errorf("%d places, or one host twice", len(first))
	}
	c.Update(cfg, weighted(weights[:n-1]...))
	gone := func(h *Host) bool { return h.Gone() }
	if left := slices.DeleteFunc(first, gone); !slices.Equal(walk(), left) {
		t.Error("the order of those that stayed has changed")
	}
}
