// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// randomAssignment has up to four localities on up to three priorities, with
// weights and health of all kinds.
func randomAssignment(rng *rand.Rand) *resource.Assignment {
	a := &resource.Assignment{WeightedPriority: rng.IntN(3) == 0, Overprovisioning: uint32(rng.IntN(3)) * 100}
	for i := range rng.IntN(5) {
		l := resource.Locality{Priority: uint32(rng.IntN(3)) * 2, Weight: uint32(rng.IntN(4))}
		for j := range rng.IntN(6) {
			l.Endpoints = append(l.Endpoints, resource.Endpoint{
				Address: resource.Address{Host: fmt.Sprintf("10.0.%d.%d", i, rng.IntN(j+2)), Port: 80},
				Weight:  uint32(rng.IntN(5)),
				Health:  resource.HealthStatus(rng.IntN(int(resource.Degraded) + 1)),
			})
		}
		a.Localities = append(a.Localities, l)
	}
	return a
}

func randomBalancing(rng *rand.Rand) resource.LoadBalancing {
	return resource.LoadBalancing{
		Policy: Policies()[rng.IntN(len(policies))], ChoiceCount: rng.Uint32N(4), ActiveRequestBias: float64(rng.IntN(3)),
		FullScan: rng.IntN(4) == 0, SlowStart: resource.SlowStart{Window: time.Duration(rng.IntN(3)) * time.Second, Aggression: 1, MinWeightPercent: 10},
		HashBalanceFactor: uint32(rng.IntN(2) * 110), MinRingSize: rng.Uint32N(50), MaxRingSize: 10 + rng.Uint32N(100), TableSize: 251,
		HasPanic: rng.IntN(2) == 0, PanicThreshold: float64(rng.IntN(120)),
		FailOnPanic: rng.IntN(4) == 0, LocalityWeighted: rng.IntN(2) == 0,
	}
}

// Whatever the configuration: no crash, no host that health rules out except in
// panic, none of a cluster without hosts, and none lacking where one may be had.
func TestPicksOfAnyClusterObeyHealth(t *testing.T) {
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 0))
		c := NewCluster(&resource.Cluster{LB: randomBalancing(rng), Static: randomAssignment(rng)})
		p := NewPicker(&c.View().cfg.LB, seed)
		for range 3 {
			checkPicks(t, seed, rng, c.View(), p)
			for _, h := range c.View().Hosts() {
				h.SetEjected(rng.IntN(3) == 0)
			}
			c.HealthChanged()
			c.Tick(int64(rng.IntN(5)+1) * int64(time.Second))
			checkPicks(t, seed, rng, c.View(), p)
			cfg := *c.View().cfg
			if rng.IntN(2) == 0 { // the picker stays, as a loop's may for a moment
				cfg.LB = randomBalancing(rng)
			}
			c.Update(&cfg, randomAssignment(rng))
		}
	}
}

func checkPicks(t *testing.T, seed uint64, rng *rand.Rand, v *View, p Picker) {
	t.Helper()
	level := map[*Host]*Priority{}
	for i := range v.priorities {
		for _, h := range v.PriorityHosts(&v.priorities[i]) {
			level[h] = &v.priorities[i]
		}
	}
	for range 30 {
		r := &Request{Hash: rng.Uint64(), HasHash: rng.IntN(2) == 0, Random: rng.Uint64(), HostAttempts: rng.IntN(3)}
		for _, h := range v.hosts {
			if rng.IntN(4) == 0 {
				r.Tried = append(r.Tried, h)
			}
		}
		r.PreviousPriorities = rng.IntN(3)
		h := p.Pick(v, r)
		switch {
		case h == nil:
			if v.healthy > 0 && !v.cfg.LB.FailOnPanic {
				t.Fatalf("seed %d: no host, though %d are healthy: %+v", seed, v.healthy, v.priorities)
			}
		case level[h] == nil:
			t.Fatalf("seed %d: %s is not in the view", seed, h)
		case h.health() == stateUnhealthy && !level[h].Panic:
			t.Fatalf("seed %d: %s is unhealthy, and its priority is not in panic: %+v", seed, h, *level[h])
		}
	}
}
