// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const ms = int64(time.Millisecond)

func TestHostsKeepTheirSize(t *testing.T) {
	if got := unsafe.Sizeof(Host{}); got != 128 {
		t.Errorf("a host has %d bytes, want 128", got)
	}
}

func TestTheEstimateTakesPeaksAndForgetsSlowly(t *testing.T) {
	const decay = 10e9
	now := int64(time.Hour)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got/want-1) > .001 { // time goes in steps of a millisecond
			t.Errorf("%s: %.0f ns, want %.0f", what, got, want)
		}
	}
	r := rtt(0).observe(20e6, now, decay)
	near("the first", r.decayed(now, decay), 20e6)
	r = r.observe(500e6, now+5*ms, decay)
	near("a peak", r.decayed(now+5*ms, decay), 500e6)
	now += 5*ms + int64(10*time.Second)
	near("after the decay time", r.decayed(now, decay), 500e6/math.E)
	r = r.observe(20e6, now, decay)
	near("an answer after it", r.decayed(now, decay), 500e6/math.E+20e6*(1-1/math.E))
	r = r.observe(20e6, now, decay)
	near("another at the same time", r.decayed(now, decay), 500e6/math.E+20e6*(1-1/math.E))
	near("before its time", r.decayed(now-int64(time.Second), decay), 500e6/math.E+20e6*(1-1/math.E))

	wrap := int64(1)<<(32+rttStep) - 1<<rttStep // the last step of 52 days
	r = rtt(0).observe(10e6, wrap, decay)
	near("over the wrap", r.decayed(wrap+int64(10*time.Second), decay), 10e6/math.E)
}

func TestPeakEWMAWeighsLatencyByLoad(t *testing.T) {
	cfg := resource.LoadBalancing{Policy: resource.PeakEWMA, PeakEWMA: resource.LatencyEstimate{
		Decay: 10 * time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: 1e6,
	}}
	now := int64(time.Hour)
	for _, c := range []struct {
		name   string
		rtt    [2]int64 // milliseconds; 0: never answered
		active [2]int32
		want   int
	}{
		{"latency", [2]int64{20, 30}, [2]int32{}, 0},
		{"load", [2]int64{20, 20}, [2]int32{3, 2}, 1},
		{"their product", [2]int64{20, 30}, [2]int32{2, 0}, 1},
		{"against one that is new", [2]int64{20, 0}, [2]int32{0, 0}, 1},
		{"a new one that has not answered", [2]int64{900, 0}, [2]int32{5, 1}, 0},
	} {
		v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(1, 1)}).View()
		for i, h := range v.hosts {
			if c.rtt[i] > 0 {
				h.ObserveRTT(&cfg.PeakEWMA, c.rtt[i]*ms, now)
			}
			h.Active.Store(c.active[i])
		}
		p := NewPicker(&cfg, 1)
		for i := range 20 {
			if got := p.Pick(v, &Request{Random: mix(uint64(i)), Now: now}); got != v.hosts[c.want] {
				t.Errorf("%s: host %s was taken, want %s", c.name, got, v.hosts[c.want])
				break
			}
		}
	}
}

// A closed loop on a virtual clock: hosts answer after their latency, one of ten is
// ten times slower. P2C over latency × load gives it what it can take; with equal
// shares it would have all requests in flight.
func TestASlowHostGetsWhatItCanTake(t *testing.T) {
	cfg := resource.LoadBalancing{Policy: resource.PeakEWMA, PeakEWMA: resource.LatencyEstimate{
		Decay: 10 * time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: 1e6,
	}}
	v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)}).View()
	p, rng := NewPicker(&cfg, 1), rand.New(rand.NewPCG(1, 2))
	type answer struct {
		at, took int64
		h        *Host
	}
	var flying []answer
	count, total := 0, 0
	for now := int64(time.Hour); now < int64(time.Hour+60*time.Second); now += ms {
		kept := flying[:0]
		for _, a := range flying {
			if a.at > now {
				kept = append(kept, a)
				continue
			}
			a.h.ObserveRTT(&cfg.PeakEWMA, a.took, now)
			a.h.Active.Add(-1)
		}
		flying = kept
		h := p.Pick(v, &Request{Random: rng.Uint64(), Now: now})
		took := 10 * ms
		if h == v.hosts[0] {
			took = 100 * ms
			count++
		}
		total++
		h.Active.Add(1)
		flying = append(flying, answer{now + took, took, h})
	}
	if share := float64(count) / float64(total); share > .02 {
		t.Errorf("the slow host got %.3f of the requests, its fair part is 0.011", share)
	}
	if count == 0 {
		t.Error("the slow host got nothing: it could never show that it is fast again")
	}
}

func TestWorkersShareOneEstimate(t *testing.T) {
	cfg := resource.LoadBalancing{Policy: resource.PeakEWMA, PeakEWMA: resource.LatencyEstimate{Decay: time.Second}}
	v := NewCluster(&resource.Cluster{LB: cfg, Static: weighted(1)}).View()
	now := int64(time.Hour)
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for i := range int64(1000) {
				v.hosts[0].ObserveRTT(&cfg.PeakEWMA, (i*4+w)*1000, now)
			}
		})
	}
	wg.Wait()
	if got := v.hosts[0].rtt.Load().estimate(); got != 3999*1000 {
		t.Errorf("the estimate is %.0f, want the peak of all, 3999000", got)
	}
}

// decayed is the estimate as of now.
func (r rtt) decayed(now int64, decay float64) float64 { return r.estimate() * r.keeps(now, decay) }

func TestTheCheaperHostIsThatOfLessDecayedCost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const now = int64(time.Hour)
	for _, penalty := range []float64{0, 1e6} {
		cfg := resource.LoadBalancing{PeakEWMA: resource.LatencyEstimate{
			Decay: time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: penalty,
		}}
		p := newPeakEWMA(&cfg, 0).(*peakEWMA)
		hosts := make([]*Host, 50)
		costs := make([]float64, len(hosts))
		for i := range hosts {
			h := new(Host)
			hosts[i] = h
			active := float64(rng.IntN(3))
			h.Active.Store(int32(active))
			costs[i] = p.defaultRTT * (active + 1)
			if penalty > 0 && active > 0 {
				costs[i] = p.penalty + active
			}
			if i%3 > 0 {
				h.ObserveRTT(&cfg.PeakEWMA, rng.Int64N(1e9), now-rng.Int64N(20e9))
				costs[i] = h.rtt.Load().decayed(now, float64(cfg.PeakEWMA.Decay)) * (active + 1)
			}
		}
		for i := range hosts {
			for j := range hosts {
				if math.Abs(costs[i]-costs[j]) > 1e-9*costs[i] && p.cheaper(hosts[i], hosts[j], now) != (costs[i] < costs[j]) {
					t.Errorf("penalty %v: hosts of costs %v and %v are compared wrongly", penalty, costs[i], costs[j])
				}
			}
		}
	}
}

func TestPowersOfTwoHaveMoreDigitsThanEstimates(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100000 {
		x := (rng.Float64() - .5) * 2000
		if got, want := exp2(x), math.Exp2(x); math.Abs(got/want-1) > 2e-10 {
			t.Fatalf("2^%v is %v, want %v", x, got, want)
		}
	}
	for x := -1000.0; x <= 1000; x++ {
		if got, want := exp2(x), math.Exp2(x); got != want {
			t.Fatalf("2^%v is %v, want exactly %v", x, got, want)
		}
	}
	for _, x := range []float64{math.Inf(-1), -1e300, -1001, 1001, 1e300, math.Inf(1)} {
		if got := exp2(x); x < 0 && !(got < 1e-300) || x > 0 && !(got > 1e300) {
			t.Errorf("2^%v is %v", x, got)
		}
	}
}
