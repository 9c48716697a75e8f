// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestClassesCountAsConfigured(t *testing.T) {
	none := resource.CircuitBreaker{Enabled: true}
	all := resource.CircuitBreaker{
		Enabled: true, Count5xx: true, Count4xx: true, CountTimeout: true, CountConnectFailure: true, CountReset: true,
	}
	status := resource.CircuitBreaker{Enabled: true, CountStatus: []int{302, 429}}
	for _, tt := range []struct {
		name   string
		cfg    *resource.CircuitBreaker
		result Result
		status int
		want   Outcome
	}{
		{"2xx", &all, Response, 200, Success},
		{"5xx that counts", &all, Response, 503, Failure},
		{"5xx that does not", &none, Response, 503, Success},
		{"4xx that counts", &all, Response, 404, Failure},
		{"4xx that does not", &none, Response, 404, Success},
		{"a listed status", &status, Response, 429, Failure},
		{"a listed redirect", &status, Response, 302, Failure},
		{"one that is not listed", &status, Response, 500, Success},
		{"timeout that counts", &all, TimedOut, 0, Timeout},
		{"timeout that does not", &none, TimedOut, 0, BadRequest},
		{"connect failure that counts", &all, NotConnect, 0, ConnectFailure},
		{"connect failure that does not", &none, NotConnect, 0, BadRequest},
		{"reset that counts", &all, Reset, 0, Failure},
		{"reset that does not", &none, Reset, 0, BadRequest},
		{"without a circuit", nil, Response, 500, Success},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewCircuit("c", tt.cfg).Classify(tt.result, tt.status); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOnlyOneProbeOfAllWorkersPasses(t *testing.T) {
	cfg := hystrixDefaults
	cfg.RequestVolumeThreshold = 1
	c := NewCircuit("c", &cfg)
	now := int64(time.Hour)
	n := Counts{Failure: 1}
	c.Flush(&n)
	c.Tick(now)
	for window := range 50 {
		now += int64(cfg.SleepWindow) + 1
		var probes atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					if token, ok := c.Allow(now); ok {
						probes.Add(1)
						if !token.Probe() {
							t.Error("a request that is no probe passed an open circuit")
						}
					}
				}
			})
		}
		wg.Wait()
		if got := probes.Load(); got != 1 {
			t.Fatalf("sleep window %d: %d requests passed, want 1", window, got)
		}
	}
}

// Flush and Tick race freely, and still nothing is lost or counted twice.
func TestTotalsAreExactOverWorkers(t *testing.T) {
	const workers, each = 4, 20000
	cfg := hystrixDefaults
	cfg.ErrorThresholdPercent = 101
	c := NewCircuit("c", &cfg)
	var wg sync.WaitGroup
	var done atomic.Bool
	var ticker sync.WaitGroup
	ticker.Go(func() {
		for !done.Load() {
			c.Tick(int64(time.Hour))
		}
	})
	for w := range workers {
		wg.Go(func() {
			var n Counts
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			for i := range each {
				n.Add(Outcome(i % Outcomes))
				n.Observe(rng.Int64N(int64(time.Second)))
				if rng.IntN(10) == 0 {
					c.Flush(&n)
				}
			}
			c.Flush(&n)
		})
	}
	wg.Wait()
	done.Store(true)
	ticker.Wait()
	c.Tick(int64(time.Hour))
	m := c.Metrics(int64(time.Hour))
	sum := uint64(0)
	for o := range m.Total {
		if m.Total[o] != m.Rolling[o] {
			t.Errorf("%s: %d in all and %d in the window", Outcome(o), m.Total[o], m.Rolling[o])
		}
		sum += m.Total[o]
	}
	if sum != workers*each || m.Executed != workers*each {
		t.Errorf("%d outcomes and %d latencies, want %d of each", sum, m.Executed, workers*each)
	}
}

// Half of each batch are errors, always: a tick between the two halves of a flush
// must never see more errors than that and open at 51 %.
func TestATickInTheMiddleOfAFlushNeverSeesTooManyErrors(t *testing.T) {
	cfg := hystrixDefaults
	cfg.ErrorThresholdPercent, cfg.RequestVolumeThreshold = 51, 1
	c := NewCircuit("c", &cfg)
	var wg sync.WaitGroup
	var done atomic.Bool
	for range 2 {
		wg.Go(func() {
			var n Counts
			for !done.Load() {
				n.Success, n.Failure = 1000, 1000
				c.Flush(&n)
			}
		})
	}
	for i := range 20000 {
		if c.Tick(int64(time.Hour) + int64(i)*int64(time.Millisecond)) {
			t.Error("opened")
			break
		}
	}
	done.Store(true)
	wg.Wait()
}

// Opening, probing, configuring and ticking race; the circuit must end where its
// last counts and configuration put it.
func TestACircuitSurvivesEverythingAtOnce(t *testing.T) {
	cfg := hystrixDefaults
	cfg.RequestVolumeThreshold, cfg.SleepWindow = 1, 0
	c := NewCircuit("c", &cfg)
	var clock atomic.Int64
	clock.Store(int64(time.Hour))
	var workers, control sync.WaitGroup
	var done atomic.Bool
	for w := range 3 {
		workers.Go(func() {
			var n Counts
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for !done.Load() {
				now := clock.Add(1)
				if token, ok := c.Allow(now); ok {
					o := Outcome(rng.IntN(2))
					n.Add(o)
					c.Report(token, o, now)
				} else {
					n.Add(ShortCircuited)
				}
				c.Flush(&n)
			}
		})
	}
	control.Go(func() {
		for range 5000 {
			c.Tick(clock.Load())
			c.Metrics(clock.Load())
		}
	})
	control.Go(func() {
		for i := range 2000 {
			next := cfg
			next.Enabled, next.ForceOpen, next.ForceClosed = i%5 != 0, i%7 == 0, i%3 == 0
			c.Update(&next)
		}
	})
	control.Wait()
	done.Store(true)
	workers.Wait()
	c.Update(nil)
	c.Update(&cfg)
	now := clock.Load() + int64(time.Hour)
	if c.Tick(now); c.State(now) != Closed {
		t.Fatalf("a fresh circuit is %s", c.State(now))
	}
	n := Counts{Failure: 1}
	c.Flush(&n)
	if c.Tick(now); c.State(now) != Open {
		t.Fatalf("after a failure it is %s, want open", c.State(now))
	}
	if token, ok := c.Allow(now + 1); !ok || !token.Probe() {
		t.Fatal("no probe passed")
	} else if c.Report(token, Success, now+1); c.State(now+1) != Closed {
		t.Fatal("the probe's success did not close it")
	}
}

func TestLatencyPercentilesAreWithinAQuarter(t *testing.T) {
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	var n Counts
	for i := range 10000 { // 1 to 10 000 µs
		n.Observe(int64(i+1) * 1000)
	}
	c.Flush(&n)
	c.Tick(int64(time.Hour))
	m := c.Metrics(int64(time.Hour))
	for i, p := range Percentiles {
		want := max(p*100, 1)
		if got := float64(m.LatencyPercentiles[i]); got < want || got > want*1.25 {
			t.Errorf("percentile %v is %v µs, want %v to %v", p, got, want, want*1.25)
		}
	}
	if m.LatencyMean < 5000 || m.LatencyMean > 5001 {
		t.Errorf("mean %d µs, want 5000", m.LatencyMean)
	}
	c.Tick(int64(time.Hour + time.Minute))
	if got := c.Metrics(int64(time.Hour + time.Minute)).Executed; got != 0 {
		t.Errorf("%d latencies are left after a minute, want none", got)
	}
}

func TestLatencySlotsHaveNoGaps(t *testing.T) {
	last := -1
	for micros := range uint64(1 << 17) {
		i := latencySlot(micros)
		if i != last && i != last+1 {
			t.Fatalf("%d µs is in slot %d after slot %d", micros, i, last)
		}
		if micros > slotMicros(i) || i > 0 && micros <= slotMicros(i-1) {
			t.Fatalf("%d µs is in slot %d, which ends at %d", micros, i, slotMicros(i))
		}
		last = i
	}
	if i := latencySlot(1 << 60); i != latencySlots-1 {
		t.Errorf("ages are in slot %d, want the last", i)
	}
}

func TestMetricsShowWhatIsInFlight(t *testing.T) {
	l := NewLimits(resource.Thresholds{MaxRequests: 9})
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	c.Watch(l)
	l.TryRequest()
	l.TryRequest()
	c.Tick(int64(time.Hour))
	l.ReleaseRequest()
	if m := c.Metrics(int64(time.Hour)); m.Active != 1 || m.RollingActive != 2 || m.MaxRequests != 9 {
		t.Errorf("%d in flight, at most %d, limit %d; want 1, 2 and 9", m.Active, m.RollingActive, m.MaxRequests)
	}
	c.Tick(int64(time.Hour + 11*time.Second))
	if m := c.Metrics(int64(time.Hour)); m.RollingActive != 1 {
		t.Errorf("at most %d in flight after the window, want 1", m.RollingActive)
	}
}

func TestACircuitThatIsOffIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Circuit{}); size > 400 {
		t.Errorf("%d bytes, want at most 400", size)
	}
	c := NewCircuit("c", nil)
	n := Counts{Success: 3, Failure: 4}
	n.Observe(5)
	c.Flush(&n)
	if c.shared.Load() != nil || n.Success != 0 || c.Tick(1) || c.Metrics(1).State != Disabled {
		t.Error("it must forget counts and never change")
	}
}

func TestTheLoopSideAllocatesNothing(t *testing.T) {
	cfg := hystrixDefaults
	cfg.RequestVolumeThreshold, cfg.Count5xx = 1, true
	c, l, h := NewCircuit("c", &cfg), NewLimits(resource.Thresholds{MaxRequests: 2}), &fakeHost{}
	detect := envoyDefaults
	o := NewOutlier("c", &detect, Members{Each: func(func(Host)) {}, Changed: func() {}}, nil, 1)
	now := int64(time.Hour)
	n := Counts{}
	n.Observe(1) // makes its histogram
	c.Flush(&n)
	c.Tick(now)
	run := func() {
		now += int64(10 * time.Second)
		if token, ok := c.Allow(now); ok {
			result := c.Classify(Response, 503)
			n.Add(result)
			n.Observe(1e6)
			c.Report(token, result, now)
		}
		c.Flush(&n)
		if l.TryRequest() && l.TryRetry() {
			l.ReleaseRetry()
		}
		l.ReleaseRequest()
		o.Result(h, nil, 503)
		o.Local(h, nil, TimedOut)
		o.Result(h, nil, 200)
	}
	if a := testing.AllocsPerRun(1000, run); a != 0 {
		t.Errorf("closed: %v allocations, want 0", a)
	}
	if !c.Tick(now) {
		t.Fatal("the circuit did not open")
	}
	if a := testing.AllocsPerRun(1000, run); a != 0 {
		t.Errorf("open: %v allocations, want 0", a)
	}
}

func TestTicksAllocateNothing(t *testing.T) {
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	now := int64(time.Hour)
	var n Counts
	n.Observe(1)
	c.Flush(&n)
	c.Tick(now)
	if a := testing.AllocsPerRun(1000, func() {
		n.Success++
		n.Observe(1e6)
		c.Flush(&n)
		now += int64(100 * time.Millisecond)
		c.Tick(now)
	}); a != 0 {
		t.Errorf("%v allocations per tick, want 0: there may be thousands of circuits", a)
	}
}
