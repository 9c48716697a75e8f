// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestTheGeneratorIsTheStandardsMersenneTwister(t *testing.T) {
	var m mersenne
	m.seed(5489) // C++ [rand.predef]: the 10 000th number of mt19937 is 4123659995
	for range 9999 {
		m.next()
	}
	if got := m.next(); got != 4123659995 {
		t.Errorf("the 10 000th number is %d, want 4123659995", got)
	}
}

var boundedConfigs = []resource.LoadBalancing{
	{Policy: resource.RingHash, HashBalanceFactor: 120},
	{Policy: resource.Maglev, HashBalanceFactor: 120},
}

func TestWithoutOverloadTheTableDecides(t *testing.T) {
	for _, cfg := range boundedConfigs {
		plain := cfg
		plain.HashBalanceFactor = 0
		hosts := weighted(1, 2, 3, 5, 8)
		b, p := NewPicker(&cfg, 1), NewPicker(&plain, 1)
		bv := NewCluster(&resource.Cluster{LB: cfg, Static: hosts}).View()
		pv := NewCluster(&resource.Cluster{LB: plain, Static: hosts}).View()
		for i := range 2000 {
			r := &Request{Hash: Hash(fmt.Sprint(i)), HasHash: true}
			if got, want := b.Pick(bv, r).Text(), p.Pick(pv, r).Text(); got != want {
				t.Fatalf("%s: key %d went to %s, want %s", cfg.Policy, i, got, want)
			}
		}
	}
}

// One key makes all requests, and none ends: no host gets more than its bound, and
// all workers overflow to the same hosts.
func TestLoadsAreBoundedByWeight(t *testing.T) {
	for _, cfg := range boundedConfigs {
		weights, total := []uint32{1, 2, 3, 5, 8}, 19.
		v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(weights...)}).View()
		p, reached := NewPicker(&cfg, 1), map[*Host]bool{}
		for n := range int64(3000) {
			r := &Request{Hash: Hash("hot"), HasHash: true, Active: n}
			h := p.Pick(v, r)
			if again := NewPicker(&cfg, 9).Pick(v, r); again != h {
				t.Fatalf("%s: another worker sends request %d to %s, this one to %s", cfg.Policy, n, again, h)
			}
			h.Active.Add(1)
			reached[h] = true
			i := slices.Index(v.hosts, h)
			bound := math.Ceil(math.Ceil(float64(n+1)*1.2) * float64(weights[i]) / total)
			if got := float64(h.Active.Load()); got > max(bound, 1)+1 {
				t.Fatalf("%s: host %d has %v of %d requests, its bound is %v", cfg.Policy, i, got, n+1, bound)
			}
		}
		if len(reached) < 3 {
			t.Errorf("%s: only %d hosts were reached", cfg.Policy, len(reached))
		}
	}
}

func TestWhereAllAreOverloadedTheLeastIsTaken(t *testing.T) {
	cfg := boundedConfigs[1]
	v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(1, 1, 1, 1)}).View()
	for i, n := range []int32{40, 30, 20, 50} {
		v.hosts[i].Active.Store(n)
	}
	p := NewPicker(&cfg, 1)
	for i := range 100 {
		// Others have ended meanwhile: as if there were few.
		if h := p.Pick(v, &Request{Hash: Hash(fmt.Sprint(i)), HasHash: true, Active: 3}); h != v.hosts[2] {
			t.Fatalf("%s with %d requests was taken, want the one with 20", h, h.Active.Load())
		}
	}
}

func TestOverflowAllocatesNothing(t *testing.T) {
	for _, cfg := range boundedConfigs {
		v := NewCluster(&resource.Cluster{LB: cfg, Static: manyHosts(100, false)}).View()
		for i, h := range v.hosts {
			h.Active.Store(int32(i % 2 * 1000))
		}
		p, r := NewPicker(&cfg, 1), &Request{HasHash: true}
		pick := func() {
			r.Hash += 0x9e3779b97f4a7c15
			p.Pick(v, r)
		}
		for range 1000 {
			pick()
		}
		if n := testing.AllocsPerRun(1000, pick); n != 0 {
			t.Errorf("%s: %v allocations per pick, want 0", cfg.Policy, n)
		}
	}
}
