// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const defaultSleep = 5 * time.Second

// offLoop is the part of a circuit that decides.
type offLoop struct {
	window   window
	calls    *callWindow // nil where the window is one of time
	latency  *latencyRing
	last     tally  // totals at the last tick
	gen      uint32 // openings so far
	open     bool
	ramp     bool   // it has closed and not all pass yet
	word     uint64 // last published
	ticked   bool
	limits   *Limits
	openings uint64
	openedAt int64
}

// Update applies a configuration to the running circuit. Other settings than the
// window's shape keep what was counted; forcing takes effect at once. When the
// circuit is not enabled any more, it closes and forgets.
func (c *Circuit) Update(cfg *resource.CircuitBreaker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cfg == nil || !cfg.Enabled {
		c.config.Store(nil)
		c.shared.Store(nil)
		c.off = offLoop{gen: c.off.gen, limits: c.off.limits, openings: c.off.openings}
		c.off.word = word(c.off.gen, pass)
		c.word.Store(c.off.word)
		c.told.forget(c.off.gen)
		return
	}
	old := c.config.Load()
	c.config.Store(cfg)
	sleep := cfg.SleepWindow
	if sleep < 0 {
		sleep = defaultSleep
	}
	c.sleep.Store(int64(sleep))
	if c.shared.Load() == nil {
		c.shared.Store(new(shared))
		c.off.last = tally{}
	}
	if old == nil || old.Window != cfg.Window || old.Buckets != cfg.Buckets {
		c.off.window, c.off.ticked = window{}, false
	}
	c.countCalls(cfg.WindowCalls)
	c.off.ramp = c.off.ramp && cfg.Recovery > 0
	c.publish(cfg, func() {})
}

// countCalls makes the window one of so many calls, 0 for one of time.
func (c *Circuit) countCalls(n int) {
	o, s := &c.off, c.shared.Load()
	switch {
	case n <= 0:
		o.calls = nil
		s.calls.Store(nil)
	case o.calls == nil || len(o.calls.codes) != n:
		r := newCallRing(n)
		o.calls = newCallWindow(r, n)
		s.calls.Store(r)
	}
}

// health is that of the window.
func (o *offLoop) health() health {
	if o.calls != nil {
		return o.calls.health
	}
	return o.window.sum.health()
}

// Watch makes the circuit show how many requests are in flight and how many may
// be; it does not change its decisions.
func (c *Circuit) Watch(l *Limits) {
	c.mu.Lock()
	c.off.limits = l
	c.mu.Unlock()
}

// Tick moves what was flushed into the window, decides whether the circuit opens
// and publishes that. Call it every 50 to 100 ms; it reports whether the circuit
// has opened or closed since the last call.
func (c *Circuit) Tick(now int64) bool {
	changed, told := c.tick(now)
	told.hand()
	return changed
}

func (c *Circuit) tick(now int64) (changed bool, _ *told) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg, s := c.config.Load(), c.shared.Load()
	if cfg == nil {
		return false, nil
	}
	o := &c.off
	before := o.word
	if !o.ticked {
		o.window, o.ticked = newWindow(cfg.Window, cfg.Buckets, now), true
	}
	o.window.advanceTo(now)
	c.publish(cfg, func() { c.decide(cfg, s, now) })
	c.tickLatency(s, now)
	if c.told != nil {
		c.news(cfg, s, now)
	}
	return o.word != before, c.told
}

// decide merges the new counts and opens the circuit if they say so.
func (c *Circuit) decide(cfg *resource.CircuitBreaker, s *shared, now int64) {
	o := &c.off
	var delta tally
	for i := int(counted) - 1; i >= 0; i-- { // Success last, see Flush
		t := s.totals[i].Load()
		delta[i], o.last[i] = t-o.last[i], t
	}
	var inFlight uint32
	if o.limits != nil {
		inFlight = o.limits.Requests()
	}
	o.window.add(&delta, inFlight)
	if o.ramp && now-s.recoverAt.Load() >= int64(cfg.Recovery) {
		o.ramp = false
	}
	forced := cfg.ForceOpen || cfg.ForceClosed
	opens := func(h health) bool {
		least := uint64(max(cfg.RequestVolumeThreshold, 1))
		if o.calls != nil {
			least = min(least, uint64(len(o.calls.codes)))
		}
		if o.open || forced || h.requests < least || !h.unwell(cfg) {
			return false
		}
		if c.told != nil {
			c.told.judged = h
		}
		return true
	}
	if o.calls == nil {
		if opens(o.window.sum.health()) {
			c.openAt(cfg, s, now)
		}
		return
	}
	for o.calls.take(opens) { // what comes after the opening is only counted
		c.openAt(cfg, s, now)
	}
}

func (c *Circuit) openAt(cfg *resource.CircuitBreaker, s *shared, now int64) {
	o := &c.off
	o.open, o.ramp = true, false
	o.gen++
	o.openings++
	o.openedAt = now
	// Both before the word, so that no probe passes at once, nor one of a round of the
	// opening before.
	c.testedAt.Store(max(now, c.askedSleep(s, cfg, now)))
	for {
		r := round(s.round.Load())
		if s.round.CompareAndSwap(uint64(r), uint64(r.next(exhausted))) {
			return
		}
	}
}

// publish takes notice of a probe's success, lets change do its part and stores
// the word. A probe that succeeds meanwhile makes it take notice again: the word
// it closed is gone then, and change has nothing left to merge.
func (c *Circuit) publish(cfg *resource.CircuitBreaker, change func()) {
	o := &c.off
	for {
		w := c.word.Load()
		if m := w & modeMask; o.word&modeMask == open && (m == pass || m == ramp) {
			c.closed()
			o.ramp = m == ramp
		}
		change()
		mode := pass
		switch {
		case cfg.ForceOpen:
			mode, o.open, o.ramp = deny, false, false
		case cfg.ForceClosed:
			o.open, o.ramp = false, false
		case o.open:
			mode = open
		case o.ramp:
			mode = ramp
		}
		next := uint64(o.gen)<<32 | mode
		if c.word.CompareAndSwap(w, next) {
			o.word = next
			return
		}
	}
}

// closed forgets what led to the opening. Counts from after the probe's success
// stay to be merged.
func (c *Circuit) closed() {
	o, s := &c.off, c.shared.Load()
	o.open = false
	o.word = word(o.gen, pass)
	o.window.clear()
	if s == nil {
		return
	}
	probed := s.closedGen.Load() == o.gen
	if o.calls != nil {
		before := o.calls.ring.next.Load()
		if probed {
			before = s.closedCalls.Load()
		}
		o.calls.clear(before)
	}
	for i := int(counted) - 1; i >= 0; i-- {
		if probed {
			o.last[i] = s.closedTotals[i].Load()
		} else { // the probe's worker is between its two steps
			o.last[i] = s.totals[i].Load()
		}
	}
}

func (c *Circuit) tickLatency(s *shared, now int64) {
	l := s.latency.Load()
	if l == nil {
		return
	}
	if c.off.latency == nil {
		c.off.latency = newLatencyRing(now)
	}
	r := c.off.latency
	r.advanceTo(now)
	l.take(&r.buckets[r.at])
}
