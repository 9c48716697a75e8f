// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func callCircuit(change func(*resource.CircuitBreaker)) *Circuit {
	cfg := hystrixDefaults
	cfg.WindowCalls, cfg.SlowDuration, cfg.SlowPercent = 100, time.Second, 100
	if change != nil {
		change(&cfg)
	}
	return NewCircuit("c", &cfg)
}

// Of what two workers count while ticks fall anywhere, exactly the last calls are in
// the window: one that marks its last calls as errors finds all of them.
func TestWindowsOfCallsAreExactOverWorkers(t *testing.T) {
	const workers, each, last = 2, 50000, 30
	c := callCircuit(func(cfg *resource.CircuitBreaker) { cfg.ErrorThresholdPercent = 101 })
	var wg, ticker sync.WaitGroup
	var done atomic.Bool
	ticker.Go(func() {
		for !done.Load() {
			c.Tick(int64(time.Hour))
		}
	})
	for range workers {
		wg.Go(func() {
			var n Counts
			for range each {
				c.Count(&n, Success, false)
			}
		})
	}
	wg.Wait()
	for w := range workers {
		wg.Go(func() {
			var n Counts
			for range last {
				c.Count(&n, Failure, w == 0)
			}
		})
	}
	wg.Wait()
	done.Store(true)
	ticker.Wait()
	c.Tick(int64(time.Hour))
	if m := c.Metrics(int64(time.Hour)); m.Requests != 100 || m.Errors != workers*last || m.Slow != last {
		t.Errorf("%d requests, %d errors, %d slow; want 100, %d and %d", m.Requests, m.Errors, m.Slow, workers*last, last)
	}
}

// A window of calls agrees with a plain list of them, however ticks fall.
func TestAWindowOfCallsIsTheLastCalls(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		size := 1 + rng.IntN(300)
		w := newCallWindow(newCallRing(size), size)
		var all []uint32
		for range 200 {
			for range rng.IntN(2 * size) {
				code := rng.Uint32N(4)
				all = append(all, code)
				w.ring.push(code)
			}
			w.take(func(health) bool { return false })
			want := health{}
			for _, code := range all[max(0, len(all)-size):] {
				want.requests++
				want.errors += uint64(code & callError)
				want.slow += uint64(code & callSlow >> 1)
			}
			if w.health != want {
				t.Fatalf("seed %d: got %+v, want %+v", seed, w.health, want)
			}
		}
	}
}

func TestTestsOfAnOpenCircuitAreExactOverWorkers(t *testing.T) {
	const most = 7
	c := callCircuit(func(cfg *resource.CircuitBreaker) {
		cfg.WindowCalls, cfg.RequestVolumeThreshold, cfg.HalfOpenCalls, cfg.ErrorThresholdPercent = 0, 1, most, 60
	})
	now := int64(time.Hour)
	for round := range 200 {
		n := Counts{Failure: 100}
		c.Flush(&n)
		c.Tick(now)
		now += int64(5*time.Second) + 1
		var tokens [4][]Token
		var wg sync.WaitGroup
		for w := range tokens {
			wg.Go(func() {
				for range 50 {
					if token, ok := c.Allow(now); ok {
						tokens[w] = append(tokens[w], token)
					}
				}
			})
		}
		wg.Wait()
		if got := slices.Concat(tokens[:]...); len(got) != most {
			t.Fatalf("round %d: %d calls passed, want %d", round, len(got), most)
		}
		var failures atomic.Int32
		for _, list := range tokens {
			wg.Go(func() {
				for _, token := range list {
					o := Success
					if failures.Add(1) <= int32(round%(most+1)) {
						o = Failure
					}
					c.Report(token, o, now)
				}
			})
		}
		wg.Wait()
		want := Closed
		if percent(uint64(round%(most+1)), most) >= 60 {
			want = Open
		}
		if got := c.State(now); got != want {
			t.Fatalf("round %d: %s after %d failures of %d, want %s", round, got, round%(most+1), most, want)
		}
	}
}

func TestARampLetsItsShareThroughOverAllWorkers(t *testing.T) {
	c := callCircuit(func(cfg *resource.CircuitBreaker) {
		cfg.RequestVolumeThreshold, cfg.WindowCalls, cfg.Recovery = 1, 0, 10*time.Second
	})
	now := int64(time.Hour)
	n := Counts{Failure: 1}
	c.Flush(&n)
	c.Tick(now)
	now += int64(6 * time.Second)
	token, _ := c.Allow(now)
	c.Report(token, Success, now)
	now += int64(2500 * time.Millisecond)
	var passed atomic.Int32
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 1000 {
				if _, ok := c.Allow(now); ok {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := passed.Load(); got != 501 { // and the first, which passes in any case
		t.Errorf("%d of 2000 requests passed after a quarter of the time, want 501", got)
	}
}

func TestWindowsOfCallsAllocateNothingOnTheLoop(t *testing.T) {
	c := callCircuit(func(cfg *resource.CircuitBreaker) { cfg.Recovery, cfg.HalfOpenCalls = time.Hour, 5 })
	now := int64(time.Hour)
	var n Counts
	run := func() {
		now += int64(time.Millisecond)
		if token, ok := c.Allow(now); ok {
			c.Count(&n, Failure, c.Slow(5))
			c.ReportCall(token, Success, false, now)
		}
		c.RetryAt(now, now)
	}
	if a := testing.AllocsPerRun(1000, run); a != 0 {
		t.Errorf("%v allocations", a)
	}
	if c.Tick(now); c.State(now) != Open {
		t.Fatal("did not open")
	}
	if a := testing.AllocsPerRun(10000, run); a != 0 {
		t.Errorf("%v allocations while it is open, tested and recovers", a)
	}
	if c.State(now) != Recovering {
		t.Errorf("is %s", c.State(now))
	}
	if a := testing.AllocsPerRun(100, func() { c.Tick(now) }); a != 0 {
		t.Errorf("%v allocations per tick", a)
	}
}

// BenchmarkCall is what a call costs that is judged by time, by a window of calls, and
// from two workers at once.
func BenchmarkCall(b *testing.B) {
	for name, change := range map[string]func(*resource.CircuitBreaker){
		"time":  func(cfg *resource.CircuitBreaker) { cfg.WindowCalls = 0 },
		"calls": func(*resource.CircuitBreaker) {},
	} {
		c := callCircuit(change)
		b.Run(name, func(b *testing.B) {
			var n Counts
			b.ReportAllocs()
			for b.Loop() {
				token, _ := c.Allow(1)
				c.Count(&n, Success, c.Slow(1e6))
				c.ReportCall(token, Success, false, 1)
			}
		})
		b.Run(name+"/2", func(b *testing.B) {
			b.SetParallelism(1)
			b.RunParallel(func(p *testing.PB) {
				var n Counts
				for p.Next() {
					token, _ := c.Allow(1)
					c.Count(&n, Success, c.Slow(1e6))
					c.ReportCall(token, Success, false, 1)
				}
			})
		})
	}
}
