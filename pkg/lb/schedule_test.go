// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func weighted(weights ...uint32) *resource.Assignment {
	a := numbered()
	for i, w := range weights {
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, resource.Endpoint{
			Address: resource.Address{Host: "127.0.0.1", Port: uint16(i + 1)}, Weight: w,
		})
	}
	return a
}

func TestRoundRobinGoesRoundInOrder(t *testing.T) {
	v := NewCluster(&resource.Cluster{Static: numbered(1, 2, 3)}).View()
	p := NewPicker(&resource.LoadBalancing{}, 1)
	first := p.Pick(v, &Request{})
	for i := 1; i < 10; i++ {
		h := p.Pick(v, &Request{})
		if want := (int(first.Addr().Port()) - 1 + i) % 3; h != v.hosts[want] {
			t.Fatalf("pick %d is %s, want %s", i, h, v.hosts[want])
		}
	}
}

func TestWorkersDoNotStartAtTheSameHost(t *testing.T) {
	v := NewCluster(&resource.Cluster{Static: numbered(1, 2, 3, 4, 5, 6, 7, 8)}).View()
	seen := map[*Host]bool{}
	for seed := range uint64(16) {
		seen[NewPicker(&resource.LoadBalancing{}, seed).Pick(v, &Request{})] = true
	}
	if len(seen) < 4 {
		t.Errorf("16 workers start at only %d of 8 hosts", len(seen))
	}
}

func TestWeightedRoundRobinIsExactAndSmooth(t *testing.T) {
	weights := []uint32{1, 2, 5, 12}
	v := NewCluster(&resource.Cluster{Static: weighted(weights...)}).View()
	p := NewPicker(&resource.LoadBalancing{}, 1)
	count, last := make([]int, 4), []int{-1, -1, -1, -1}
	const rounds = 500
	for range 10 * 20 { // past the random start
		p.Pick(v, &Request{})
	}
	for i := range rounds * 20 {
		k := int(p.Pick(v, &Request{}).Addr().Port()) - 1
		count[k]++
		if gap, even := i-last[k], 20/float64(weights[k]); last[k] >= 0 && float64(gap) > even+4 {
			t.Fatalf("host %d waited %d picks, want about %.1f", k, gap, even)
		}
		last[k] = i
	}
	for k, w := range weights {
		if want := rounds * int(w); count[k] < want-1 || count[k] > want+1 {
			t.Errorf("host %d got %d of %d picks, want %d", k, count[k], rounds*20, want)
		}
	}
}

func TestDeadlinesSurviveTheWrapOfTheirClock(t *testing.T) {
	var e edf
	rng := uint64(1)
	step := func(i int) uint64 { return []uint64{1 << 40, 1 << 39, 1 << 38}[i] }
	e.reset(3, &rng, step)
	e.now += math.MaxUint64 - 1<<41
	for i := range e.turns { // the same distance from each other, just before the wrap
		e.turns[i].deadline += math.MaxUint64 - 1<<41
	}
	e.queues[0].deadline += math.MaxUint64 - 1<<41
	count := [3]int{}
	for range 7000 {
		i := e.pick()
		count[i]++
		e.advance(step(i))
	}
	for i, want := range []int{1000, 2000, 4000} {
		if count[i] < want-5 || count[i] > want+5 {
			t.Errorf("host %d got %d turns, want %d", i, count[i], want)
		}
	}
}

// Whatever the steps are and however they change, the next turn is the earliest one,
// no host waits longer than two steps, and what it waited is what its steps add up to.
func TestTurnsComeByEarliestDeadline(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		n, magnitude, start := 1+rng.IntN(60), 1+rng.IntN(61), seed
		step := func(int) uint64 { return 1 + rng.Uint64N(1<<rng.IntN(magnitude)) }
		var e edf
		for range 2 { // again on top of what was there
			e.reset(n, &start, step)
			due, most := make([]uint64, n), make([]uint64, n) // where steps add up to; how early at most
			for k := range 3000 {
				i := e.pick()
				first, own, at := e.used&1 != 0, e.top == 0, e.turns[i].deadline
				for j := range e.turns {
					if ahead := int64(at - e.turns[j].deadline); ahead > 0 && !first {
						t.Fatalf("seed %d, turn %d: host %d is %d after host %d", seed, k, i, ahead, j)
					}
				}
				if k == 0 && first && at != slices.MinFunc(e.turns, func(x, y turn) int { return cmp.Compare(x.deadline, y.deadline) }).deadline {
					t.Fatalf("seed %d: host %d is not the earliest", seed, i)
				}
				s := step(i)
				e.advance(s)
				if due[i] += s; own {
					due[i] = e.now + s
				}
				most[i] = (s+most[i])/2 + 2 + due[i]>>31 // and what rounding loses
				if early := due[i] - e.turns[i].deadline; early > most[i] {
					t.Fatalf("seed %d, turn %d: with step %d host %d is early by %d", seed, k, s, i, early)
				}
			}
		}
	}
}

func TestFirstTurnsAreLateByAnEighthAtMost(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var e edf
		start := seed
		e.reset(1+rng.IntN(1000), &start, func(int) uint64 { return 1 << rng.IntN(62) })
		latest, seen := uint64(0), 0
		for i := e.queues[0].first; ; i = e.turns[i].next {
			d := e.turns[i].deadline
			latest = max(latest, d)
			if latest-d > max(d/8, 8) {
				t.Fatalf("seed %d: the turn of %d comes after that of %d", seed, d, latest)
			}
			if seen++; i == e.queues[0].last {
				break
			}
		}
		if seen != len(e.turns) {
			t.Fatalf("seed %d: %d of %d hosts are queued", seed, seen, len(e.turns))
		}
	}
}

// The queues are what a pick looks at: as many as doublings lie between the shortest
// and the longest wait, in any cluster.
func TestAPickLooksAtNoMoreQueuesThanWeightsHaveMagnitudes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		weight func(i int) float64
		most   int
	}{
		{"up to seven", func(i int) float64 { return float64(1 + i%7) }, 5},
		{"one heavy", func(i int) float64 { return []float64{1e6, 1}[min(i, 1)] }, 4},
		{"like Zipf", func(i int) float64 { return 1e6 / float64(i+1) }, 16},
		{"all there are", func(i int) float64 { return float64(uint32(1) << (i % 32)) }, 33},
	} {
		for _, n := range []int{10, 1000, 10000} {
			var e edf
			rng := uint64(1)
			step := func(i int) uint64 { return stepOf(tt.weight(i)) }
			e.reset(n, &rng, step)
			for k := 0; k < 20*n || e.used&1 != 0 && k < 1e6; k++ {
				i := e.pick()
				if used := bits.OnesCount64(e.used &^ 1); used > tt.most {
					t.Fatalf("%s, %d hosts: %d queues are in use, want at most %d", tt.name, n, used, tt.most)
				}
				e.advance(step(i))
			}
		}
	}
}

func TestTheScheduleAllocatesOnlyWhenItIsMade(t *testing.T) {
	var e edf
	rng := uint64(1)
	e.reset(1000, &rng, func(i int) uint64 { return stepOf(float64(1 + i%7)) })
	active := uint64(0)
	if n := testing.AllocsPerRun(20000, func() {
		active++
		e.advance(stepOf(float64(1+e.pick()%7)) * (1 + active%10))
	}); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func TestTwoChoicesNeverTakeTheBusiestHost(t *testing.T) {
	v := NewCluster(&resource.Cluster{
		Static: numbered(1, 2, 3, 4, 5), LB: resource.LoadBalancing{Policy: resource.LeastRequest},
	}).View()
	p := NewPicker(&v.cfg.LB, 1)
	v.hosts[2].Active.Store(1)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		if h := p.Pick(v, &Request{Random: rng.Uint64()}); h == v.hosts[2] {
			t.Fatal("the only busy host was picked")
		}
	}
}

// Balls into bins (Mitzenmacher): with one choice the fullest of 100 bins with
// 10 000 balls has about 125, with two hardly more than 102.
func TestTwoChoicesKeepLoadEven(t *testing.T) {
	var ports []uint16
	for i := range uint16(100) {
		ports = append(ports, i+1)
	}
	v := NewCluster(&resource.Cluster{
		Static: numbered(ports...), LB: resource.LoadBalancing{Policy: resource.LeastRequest},
	}).View()
	p := NewPicker(&v.cfg.LB, 1)
	rng := rand.New(rand.NewPCG(7, 8))
	for range 10000 {
		p.Pick(v, &Request{Random: rng.Uint64()}).Active.Add(1)
	}
	most := int64(0)
	for _, h := range v.hosts {
		most = max(most, int64(h.Active.Load()))
	}
	if most > 105 {
		t.Errorf("the busiest host has %d requests, want at most 105", most)
	}
}

func TestChoicesOfAllHostsTakeTheLeastBusy(t *testing.T) {
	v := NewCluster(&resource.Cluster{
		Static: numbered(1, 2, 3, 4), LB: resource.LoadBalancing{Policy: resource.LeastRequest, ChoiceCount: 9},
	}).View()
	p := NewPicker(&v.cfg.LB, 1)
	rng := rand.New(rand.NewPCG(9, 10))
	for i := range 1000 {
		for _, h := range v.hosts {
			h.Active.Store(3)
		}
		least := v.hosts[i%4]
		least.Active.Store(2)
		if h := p.Pick(v, &Request{Random: rng.Uint64()}); h != least {
			t.Fatalf("pick %d is %s with %d requests, want %s with 2", i, h, h.Active.Load(), least)
		}
	}
}

func TestRequestsInFlightLowerTheEffectiveWeight(t *testing.T) {
	for _, tt := range []struct {
		bias float64
		want float64 // share of the second host: weights 1 and 2, active 0 and 3
	}{
		{0, 2. / 3},
		{1, .5 / 1.5},
		{.5, 1. / 2},
		{2, .125 / 1.125},
	} {
		cfg := resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: tt.bias}
		v := NewCluster(&resource.Cluster{Static: weighted(1, 2), LB: cfg}).View()
		v.hosts[1].Active.Store(3)
		p := NewPicker(&cfg, 1)
		n := 0
		for range 9000 {
			if p.Pick(v, &Request{}) == v.hosts[1] {
				n++
			}
		}
		if got := float64(n) / 9000; math.Abs(got-tt.want) > .005 {
			t.Errorf("bias %v: the busy host got %.3f, want %.3f", tt.bias, got, tt.want)
		}
	}
}

func TestKeysStayOnTheirHostWhateverIsRandom(t *testing.T) {
	for name, cfg := range hashPolicies() {
		a := numbered(1, 2, 3, 4, 5, 6)
		a.Localities = append(a.Localities, numbered(7, 8).Localities...)
		a.Localities[1].Priority = 1
		v := NewCluster(&resource.Cluster{Static: a, LB: cfg}).View()
		p, q := NewPicker(&cfg, 1), NewPicker(&cfg, 2)
		for k := range uint64(1000) {
			x, y := p.Pick(v, &Request{Hash: k, HasHash: true, Random: k}), q.Pick(v, &Request{Hash: k, HasHash: true, Random: ^k})
			if x != y {
				t.Fatalf("%s: key %d went to %s and to %s", name, k, x, y)
			}
		}
	}
}
