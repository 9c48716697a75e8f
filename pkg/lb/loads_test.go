// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// spreadOver makes a cluster with so many healthy, degraded and unhealthy hosts
// per priority.
func spreadOver(t *testing.T, cfg resource.LoadBalancing, counts ...[3]uint32) []Priority {
	t.Helper()
	a, port := new(resource.Assignment), uint16(0)
	for level, c := range counts {
		l := resource.Locality{Priority: uint32(level)}
		for i, n := range c {
			for range n {
				port++
				l.Endpoints = append(l.Endpoints, resource.Endpoint{
					Address: resource.Address{Host: "127.0.0.1", Port: port},
					Health:  []resource.HealthStatus{resource.Healthy, resource.Degraded, resource.Unhealthy}[i],
				})
			}
		}
		a.Localities = append(a.Localities, l)
	}
	return NewCluster(&resource.Cluster{LB: cfg, Static: a}).View().Priorities()
}

func TestPriorityHealthMayGoByWeight(t *testing.T) {
	a := weighted(1, 9)
	a.Localities[0].Endpoints[0].Health = resource.Unhealthy
	a.Localities = append(a.Localities, numbered(8).Localities...)
	a.Localities[1].Priority = 3 // levels may be left out
	for byWeight, want := range map[bool]uint8{false: 70, true: 100} {
		a.WeightedPriority = byWeight
		ps := NewCluster(&resource.Cluster{Static: a}).View().Priorities()
		if ps[0].HealthyLoad != want || ps[1].HealthyLoad != 100-want || ps[1].Level != 3 {
			t.Errorf("by weight %v: %+v, want %d %% in the first", byWeight, ps, want)
		}
	}
}

func TestPrioritiesShareLoadAsEnvoyDocumentsIt(t *testing.T) {
	type level struct{ healthy, degraded uint32 }
	off := resource.LoadBalancing{HasPanic: true}
	var on resource.LoadBalancing
	for _, tt := range []struct {
		name   string
		cfg    resource.LoadBalancing
		levels []level // of 100 hosts each
		want   string  // healthy+degraded per level, "!" in panic
	}{
		{"all healthy", on, []level{{100, 0}, {100, 0}}, "100+0 0+0"},
		{"overprovisioning covers 72 percent", on, []level{{72, 0}, {72, 0}}, "100+0 0+0"},
		{"71 percent spill over", on, []level{{71, 0}, {71, 0}}, "99+0 1+0"},
		{"half healthy", on, []level{{50, 0}, {60, 0}}, "70+0 30+0"},
		{"a quarter healthy", on, []level{{25, 0}, {100, 0}}, "35+0 65+0"},
		{"nothing healthy in the first", on, []level{{0, 0}, {100, 0}}, "0+0 100+0"},
		{"three levels", on, []level{{25, 0}, {25, 0}, {100, 0}}, "35+0 35+0 30+0"},
		{"together below all", off, []level{{25, 0}, {25, 0}}, "50+0 50+0"},
		{"rounding goes to the first", off, []level{{25, 0}, {25, 0}, {20, 0}}, "37+0 35+0 28+0"},
		{"one level in panic", on, []level{{5, 0}, {65, 0}}, "8+0! 92+0"},
		{"all in panic share by hosts", on, []level{{5, 0}, {5, 0}}, "50+0! 50+0!"},
		{"degraded take the rest", on, []level{{50, 50}}, "70+30"},
		{"healthy of lower levels go before degraded", on, []level{{50, 50}, {100, 0}}, "70+0 30+0"},
		{"only degraded", on, []level{{0, 100}}, "0+100"},
		{"nothing left and no panic", off, []level{{0, 0}, {0, 0}}, "100+0 0+0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var counts [][3]uint32
			for _, l := range tt.levels {
				counts = append(counts, [3]uint32{l.healthy, l.degraded, 100 - l.healthy - l.degraded})
			}
			ps := spreadOver(t, tt.cfg, counts...)
			got, sum := "", 0
			for i, p := range ps {
				if i > 0 {
					got += " "
				}
				got += fmt.Sprintf("%d+%d", p.HealthyLoad, p.DegradedLoad)
				if p.Panic {
					got += "!"
				}
				sum += int(p.HealthyLoad) + int(p.DegradedLoad)
			}
			if got != tt.want || sum != 100 {
				t.Errorf("got %s (sum %d), want %s", got, sum, tt.want)
			}
		})
	}
}

func TestEveryHealthGivesAwayExactlyAllLoad(t *testing.T) {
	for h0 := range uint32(11) {
		for d0 := range 11 - h0 {
			for h1 := range uint32(8) {
				for d1 := range 8 - h1 {
					ps := spreadOver(t, resource.LoadBalancing{HasPanic: h0%2 == 0, PanicThreshold: 30},
						[3]uint32{h0, d0, 10 - h0 - d0}, [3]uint32{h1, d1, 7 - h1 - d1})
					sum := 0
					for _, p := range ps {
						sum += int(p.HealthyLoad) + int(p.DegradedLoad)
					}
					if sum != 100 {
						t.Fatalf("healthy %d/%d degraded %d/%d: %+v gives away %d %%", h0, h1, d0, d1, ps, sum)
					}
				}
			}
		}
	}
}
