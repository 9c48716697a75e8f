// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestAFullScanFindsTheLeastAndDrawsAmongTies(t *testing.T) {
	cfg := resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: 1, FullScan: true}
	v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(1, 1, 1, 1, 1, 1, 1, 1)}).View()
	p, rng := NewPicker(&cfg, 1), rand.New(rand.NewPCG(1, 2))
	for i, n := range []int32{3, 1, 4, 1, 5, 9, 2, 1} {
		v.hosts[i].Active.Store(n)
	}
	const draws = 30000
	count := map[*Host]int{}
	for range draws {
		count[p.Pick(v, &Request{Random: rng.Uint64()})]++
	}
	for i, h := range v.hosts {
		want := 0.
		if h.Active.Load() == 1 {
			want = draws / 3.
		}
		if math.Abs(float64(count[h])-want) > 5*math.Sqrt(draws*2/9.) {
			t.Errorf("host %d with %d requests was picked %d times, want %.0f", i, h.Active.Load(), count[h], want)
		}
	}
}
