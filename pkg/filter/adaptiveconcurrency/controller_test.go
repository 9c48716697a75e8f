// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var defaults = Config{
	Enabled: true, Status: 503, Percentile: 50, MaxLimit: 1000, MinLimit: 3, Update: 100 * time.Millisecond,
	Interval: time.Minute, RequestCount: 50, Jitter: 15, MinConcurrency: 3, Buffer: 25,
}

func controller(change func(*Config)) (*Controller, *atomic.Uint64) {
	c, blocked := defaults, new(atomic.Uint64)
	if change != nil {
		change(&c)
	}
	return NewController(c, blocked, 1, 1), blocked
}

// upstream serves so many requests at a time within base, and makes the others wait
// their turn; whenever it may, a client sends one more.
func upstream(k *Controller, now *int64, until int64, capacity int, base time.Duration) (most int) {
	type running struct{ since, end int64 }
	var list []running
	for *now < until {
		for k.Allow(*now) {
			wait := time.Duration(len(list)/capacity) * base
			list = append(list, running{*now, *now + int64(base+wait)})
			most = max(most, len(list))
		}
		i := 0
		for j := range list {
			if list[j].end < list[i].end {
				i = j
			}
		}
		*now = max(*now, list[i].end)
		k.Done(list[i].since, *now)
		list = slices.Delete(list, i, i+1)
	}
	for _, r := range list {
		k.Done(r.since, r.end)
	}
	return most
}

func TestTheLimitFollowsWhatTheUpstreamTakes(t *testing.T) {
	for _, capacity := range []int{20, 200} {
		k, blocked := controller(nil)
		now := int64(1)
		upstream(k, &now, int64(5*time.Second), capacity, 10*time.Millisecond)
		s := k.State()
		if s.Measuring || s.MinRTT < 9*time.Millisecond || s.MinRTT > 11*time.Millisecond {
			t.Errorf("capacity %d: least time %s, measuring %t", capacity, s.MinRTT, s.Measuring)
		}
		// The median stays near the least time while most requests need not wait; then
		// the limit is cut.
		if s.Limit < uint64(capacity/2) || s.Limit > uint64(3*capacity) {
			t.Errorf("capacity %d: limit %d", capacity, s.Limit)
		}
		if s.Outstanding != 0 || blocked.Load() == 0 {
			t.Errorf("capacity %d: %d under way, %d refused", capacity, s.Outstanding, blocked.Load())
		}
	}
}

func TestTheLeastTimeIsMeasuredWithFewRequests(t *testing.T) {
	k, _ := controller(func(c *Config) { c.Jitter = 0 })
	now := int64(1)
	if n := upstream(k, &now, int64(50*time.Millisecond), 100, 10*time.Millisecond); n != 3 {
		t.Errorf("%d requests under way while it is measured, want 3", n)
	}
	upstream(k, &now, int64(3*time.Second), 100, 10*time.Millisecond)
	before := k.State()
	now += int64(2 * time.Minute)
	k.Allow(now)
	k.Cancel()
	if s := k.State(); !s.Measuring || s.Limit != 3 {
		t.Fatalf("%+v: is not measured again after its interval", s)
	}
	upstream(k, &now, now+int64(600*time.Millisecond), 100, 20*time.Millisecond)
	if s := k.State(); s.Measuring || s.MinRTT < 19*time.Millisecond || s.Limit < before.Limit/2 {
		t.Errorf("after measuring %+v, before %+v", s, before)
	}
}

// Envoy's own arithmetic, step by step.
func TestTheGradientMovesTheLimit(t *testing.T) {
	k, _ := controller(func(c *Config) { c.Interval, c.FixedRTT = 0, 100*time.Millisecond })
	now := int64(time.Hour)
	for _, step := range []struct {
		sample          time.Duration
		limit, gradient uint64
	}{
		{50 * time.Millisecond, 8, 2000},   // 3·2 + √6
		{125 * time.Millisecond, 10, 1000}, // 8·1 + √8
		{250 * time.Millisecond, 7, 500},   // 10·0.5 + √5
		{time.Second, 5, 500},              // 7·0.5 + √3.5
		{time.Second, 4, 500},              // 5·0.5 + √2.5
		{time.Second, 3, 500},              // 4·0.5 + √2
		{time.Second, 3, 500},              // at least 3
	} {
		now += int64(100 * time.Millisecond)
		if !k.Allow(now) {
			t.Fatal("refused")
		}
		k.Done(now-int64(step.sample), now)
		s := k.State()
		if off := math.Abs(float64(s.Gradient) - float64(step.gradient)); s.Limit != step.limit || off > 40 {
			t.Errorf("after %s: limit %d and gradient %d, want %d and %d", step.sample, s.Limit, s.Gradient, step.limit, step.gradient)
		}
	}
}

func TestFiveWindowsAtTheLeastLimitMeasureAgain(t *testing.T) {
	k, _ := controller(func(c *Config) { c.RequestCount = 1 })
	now := int64(time.Second)
	k.Allow(now)
	k.Done(now-int64(time.Millisecond), now)
	for i := range 5 {
		if k.Allow(now); k.State().Measuring {
			t.Fatalf("measured after %d windows", i)
		}
		now += int64(101 * time.Millisecond)
		k.Done(now-int64(90*time.Millisecond), now)
	}
	if k.Allow(now); !k.State().Measuring {
		t.Error("is not measured")
	}
}

func TestTheLimitIsExactOverWorkers(t *testing.T) {
	k, blocked := controller(func(c *Config) { c.MinConcurrency, c.RequestCount = 7, 1<<30 })
	var under, most, passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20000 {
				if !k.Allow(1) {
					continue
				}
				n := under.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				passed.Add(1)
				under.Add(-1)
				k.Done(1, 2)
			}
		})
	}
	wg.Wait()
	if most.Load() > 7 || k.State().Outstanding != 0 || uint64(passed.Load())+blocked.Load() != 80000 {
		t.Errorf("at most %d under way, %d left, %d passed and %d were refused", most.Load(), k.State().Outstanding, passed.Load(), blocked.Load())
	}
	if n := k.samples.count.Load(); n != passed.Load() {
		t.Errorf("%d samples of %d requests", n, passed.Load())
	}
}

func TestQuantilesAreWithinThreePercent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		h := new(histogram)
		list := make([]int64, 1+rng.IntN(500))
		for i := range list {
			list[i] = int64(math.Exp(rng.Float64()*18)) * 1000
			h.add(list[i])
		}
		slices.Sort(list)
		p := rng.Float64() * 100
		got, _ := h.take(p)
		i := min(int(p/100*float64(len(list))), len(list)-1)
		lo, hi := float64(list[max(i-1, 0)])*0.93-1000, float64(list[min(i+1, len(list)-1)])*1.07+1000
		if float64(got) < lo || float64(got) > hi {
			t.Errorf("percentile %v of %d is %d, want %v to %v", p, len(list), got, lo, hi)
		}
		if h.count.Load() != 0 {
			t.Error("is not empty")
		}
	}
}

func TestSlotsHaveNoGaps(t *testing.T) {
	last := -1
	for micros := range uint64(1 << 16) {
		i := slotOf(micros)
		if lo, hi := bounds(i); i != last && i != last+1 || float64(micros) < lo || float64(micros) >= hi {
			t.Fatalf("%d µs is in slot %d (%v to %v) after %d", micros, i, lo, hi, last)
		}
		last = i
	}
	if slotOf(1<<62) != slots-1 {
		t.Error("ages are not in the last slot")
	}
}

func TestARequestAllocatesNothing(t *testing.T) {
	k, _ := controller(func(c *Config) { c.RequestCount = 10 })
	now := int64(1)
	if n := testing.AllocsPerRun(1000, func() {
		now += int64(10 * time.Millisecond)
		if k.Allow(now) {
			k.Done(now-5, now)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	k, _ := controller(func(c *Config) { c.RequestCount = 1 << 30 })
	for b.Loop() {
		k.Allow(1)
		k.Done(1, 2)
	}
}
