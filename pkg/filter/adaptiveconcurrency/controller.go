// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"math"
	"sync/atomic"
	"time"
)

// Controller is Envoy's gradient controller. From time to time it measures the
// least round-trip time, with few requests under way; between, it compares what is
// sampled with that and moves the limit by the ratio. Time is an argument, monotonic
// nanoseconds.
type Controller struct {
	config Config // set once

	// Atomic; written per request.
	outstanding atomic.Int64
	blocked     *atomic.Uint64
	samples     histogram

	// Atomic; written once per window, by whoever has busy.
	limit     atomic.Int64
	measuring atomic.Bool  // the least round-trip time
	epoch     atomic.Int64 // requests that began before are of no measurement
	windowEnd atomic.Int64
	measureAt atomic.Int64
	gauges    gauges
	busy      atomic.Bool // who finds it set goes on: nobody waits

	// Guarded by busy.
	deferred int64 // the limit while the least time is measured
	minRTT   int64
	atLeast  int // windows in a row that ended with the least limit
	random   uint64
}

// gauges are as Envoy shows them.
type gauges struct {
	burst, gradient, minRTT, sampleRTT atomic.Int64
}

// NewController makes a controller that begins by measuring. It counts refusals in
// blocked, which may outlive it.
func NewController(c Config, blocked *atomic.Uint64, now int64, seed uint64) *Controller {
	k := &Controller{config: c, blocked: blocked, random: seed}
	k.limit.Store(int64(c.MinConcurrency))
	k.windowEnd.Store(now + int64(c.Update))
	if c.Interval > 0 {
		k.measure(now)
	} else {
		k.minRTT = int64(c.FixedRTT)
		k.gauges.minRTT.Store(k.minRTT)
		k.measureAt.Store(math.MaxInt64)
	}
	return k
}

// Allow reports whether one more request may be under way, exactly over all workers.
// Who is let through calls Done or Cancel, once.
func (k *Controller) Allow(now int64) bool {
	if now >= k.measureAt.Load() && k.busy.CompareAndSwap(false, true) {
		if !k.measuring.Load() && now >= k.measureAt.Load() {
			k.measure(now)
		}
		k.busy.Store(false)
	}
	for {
		n := k.outstanding.Load()
		if n >= k.limit.Load() {
			k.blocked.Add(1)
			return false
		}
		if k.outstanding.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Cancel ends a request whose time says nothing.
func (k *Controller) Cancel() { k.outstanding.Add(-1) }

// Done ends a request that began at since.
func (k *Controller) Done(since, now int64) {
	k.outstanding.Add(-1)
	if since < k.epoch.Load() {
		return
	}
	n := k.samples.add(now - since)
	if k.measuring.Load() {
		if n >= int64(k.config.RequestCount) && k.busy.CompareAndSwap(false, true) {
			k.measured(now)
			k.busy.Store(false)
		}
		return
	}
	if now >= k.windowEnd.Load() && k.busy.CompareAndSwap(false, true) {
		k.endWindow(now)
		k.busy.Store(false)
	}
}

// measure begins to measure the least round-trip time.
func (k *Controller) measure(now int64) {
	k.deferred = k.limit.Load()
	k.measuring.Store(true)
	k.epoch.Store(now)
	k.measureAt.Store(math.MaxInt64)
	k.samples.take(0)
	k.setLimit(int64(k.config.MinConcurrency))
}

// measured ends that, and schedules the next time.
func (k *Controller) measured(now int64) {
	if !k.measuring.Load() || k.samples.count.Load() < int64(k.config.RequestCount) {
		return // somebody else did
	}
	least, ok := k.samples.take(k.config.Percentile)
	if !ok {
		return
	}
	k.minRTT = max(least, 1)
	k.gauges.minRTT.Store(k.minRTT)
	k.setLimit(k.deferred)
	k.deferred = 0
	k.measureAt.Store(now + k.jittered())
	k.windowEnd.Store(now + int64(k.config.Update))
	k.measuring.Store(false)
}

// endWindow computes the limit from what was sampled.
func (k *Controller) endWindow(now int64) {
	if k.measuring.Load() || now < k.windowEnd.Load() {
		return
	}
	k.windowEnd.Store(now + int64(k.config.Update))
	sample, ok := k.samples.take(k.config.Percentile)
	if !ok {
		return
	}
	sample = max(sample, 1)
	k.gauges.sampleRTT.Store(sample)
	k.setLimit(k.next(sample))
	if k.atLeast >= 5 && k.config.Interval > 0 {
		k.measureAt.Store(now) // the least time may be wrong
	}
}

// next is the limit times the gradient, which is kept between 1/2 and 2, and room for
// a burst.
func (k *Controller) next(sample int64) int64 {
	c := &k.config
	buffered := float64(k.minRTT) * (1 + c.Buffer/100)
	gradient := max(0.5, min(2, buffered/float64(sample)))
	k.gauges.gradient.Store(int64(gradient * 1000))
	limit := float64(k.limit.Load()) * gradient
	burst := math.Sqrt(limit)
	k.gauges.burst.Store(int64(burst))
	return max(int64(c.MinLimit), min(int64(c.MaxLimit), int64(limit+burst)))
}

func (k *Controller) setLimit(n int64) {
	least := int64(k.config.MinLimit)
	if old := k.limit.Swap(n); !k.measuring.Load() && old == least && n == least {
		k.atLeast++
	} else {
		k.atLeast = 0
	}
}

// jittered is the interval, and up to the jitter's share of it.
func (k *Controller) jittered() int64 {
	d := int64(k.config.Interval)
	spread := int64(float64(d) * k.config.Jitter / 100)
	if spread <= 0 {
		return d
	}
	k.random += 0x9e3779b97f4a7c15 // SplitMix64
	z := k.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return d + int64((z^z>>31)%uint64(spread))
}

// State is what the controller shows, under Envoy's names.
type State struct {
	Outstanding uint64
	Limit       uint64 // concurrency_limit
	Gradient    uint64 // in thousandths
	Burst       uint64 // burst_queue_size
	Measuring   bool   // min_rtt_calculation_active
	MinRTT      time.Duration
	SampleRTT   time.Duration
}

// State reads the controller; any goroutine may.
func (k *Controller) State() State {
	g := &k.gauges
	return State{
		Outstanding: uint64(max(k.outstanding.Load(), 0)), Limit: uint64(k.limit.Load()),
		Gradient: uint64(g.gradient.Load()), Burst: uint64(g.burst.Load()), Measuring: k.measuring.Load(),
		MinRTT: time.Duration(g.minRTT.Load()), SampleRTT: time.Duration(g.sampleRTT.Load()),
	}
}
