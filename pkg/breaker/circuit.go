// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Circuit is the breaker of one cluster, shared by all workers.
//
// The word has the mode in its low bits and the generation, which counts
// openings, in its upper half. Tick and Update publish it; the only other change
// is the one from open to pass, made by the probe that succeeded.
type Circuit struct {
	name string // set once

	// Atomic, read by every request.
	word     atomic.Uint64
	testedAt atomic.Int64 // when the circuit opened or let the last probe pass
	sleep    atomic.Int64 // ns
	config   atomic.Pointer[resource.CircuitBreaker]

	shared atomic.Pointer[shared] // nil until the circuit was enabled

	mu   sync.Mutex
	off  offLoop // guarded by mu; loops do not touch it
	told *told   // likewise; nil: nobody is told
}

// shared is what loops write to besides the word.
type shared struct {
	totals  [counted]atomic.Uint64
	latency atomic.Pointer[sharedLatencies]
	calls   atomic.Pointer[callRing] // of windows of calls; nil: none
	// The totals when a probe closed the circuit, and which generation that was:
	// what was counted until then says nothing about the time after.
	closedTotals [counted]atomic.Uint64
	closedCalls  atomic.Uint64
	closedGen    atomic.Uint32

	round     atomic.Uint64 // see round
	recoverAt atomic.Int64  // when the ramp began
	credit    atomic.Uint64 // of the ramp, see rampUnit
	retryAt   atomic.Int64

	tests, failedTests atomic.Uint64 // probes, or rounds of them
}

// Modes of the word.
const (
	pass     uint64 = iota
	open            // nothing passes but a probe per sleep window
	deny            // forced open: nothing passes
	ramp            // a growing share passes
	modeMask = 3
)

// word joins a generation and a mode.
func word(gen uint32, mode uint64) uint64 { return uint64(gen)<<32 | mode }

// Token goes with a request that was allowed, and back with its outcome.
type Token struct {
	gen   uint32
	round uint32 // of a probe that is one of several
	probe bool
}

// Probe reports whether the request is the one that tests an open circuit. Its
// outcome must be reported; if it is lost, the next probe passes a sleep window
// later.
func (t Token) Probe() bool { return t.probe }

// NewCircuit makes a closed circuit. A nil configuration or one that is not
// enabled lets everything pass and keeps no counts.
func NewCircuit(name string, cfg *resource.CircuitBreaker) *Circuit {
	c := &Circuit{name: name}
	c.Update(cfg)
	return c
}

// Name is the circuit's.
func (c *Circuit) Name() string { return c.name }

// Enabled reports whether the circuit counts and may open.
func (c *Circuit) Enabled() bool { return c.config.Load() != nil }

// Allow reports whether a request may be sent now.
func (c *Circuit) Allow(now int64) (Token, bool) {
	w := c.word.Load()
	if w&modeMask == pass {
		return Token{gen: uint32(w >> 32)}, true
	}
	return c.allowProbe(w, now)
}

// allowProbe lets one request of all workers pass per sleep window, or as many as
// the settings say.
func (c *Circuit) allowProbe(w uint64, now int64) (Token, bool) {
	s, cfg := c.shared.Load(), c.config.Load()
	if w&modeMask == deny || s == nil || cfg == nil {
		return Token{}, false
	}
	if w&modeMask == ramp {
		return c.allowRamp(s, cfg, w, now)
	}
	if most := permitted(cfg); most > 1 {
		return c.allowTest(s, most, w, now)
	}
	tested := c.testedAt.Load()
	if now-tested <= c.sleep.Load() || !c.testedAt.CompareAndSwap(tested, now) {
		return Token{}, false
	}
	s.tests.Add(1)
	return Token{gen: uint32(w >> 32), probe: true}, true
}

// Report tells the outcome of an allowed request. Only a probe's changes
// anything at once: its success closes the circuit, if it is still the opening
// that the probe belongs to; anything else leaves it open for another sleep
// window from the probe's start. Where several are let through, they decide
// together. Counts and Flush are for all outcomes, probes included.
func (c *Circuit) Report(t Token, o Outcome, now int64) { c.ReportCall(t, o, false, now) }

// ReportCall is Report of a call that may have been slow, which is no success of a
// probe.
func (c *Circuit) ReportCall(t Token, o Outcome, slow bool, now int64) {
	if !t.probe {
		return
	}
	s, cfg := c.shared.Load(), c.config.Load()
	switch {
	case s == nil || cfg == nil: // disabled meanwhile
	case permitted(cfg) > 1:
		c.reportTest(s, cfg, t, o, slow, now)
	case o == Success && !slow:
		c.close(s, cfg, t, now)
	case o.isError() || slow:
		s.failedTests.Add(1)
		if cfg.RetryAfter {
			c.sleepOn(s, cfg, now)
		}
	}
}

// Slow reports whether a call of that many nanoseconds counts as slow.
func (c *Circuit) Slow(nanos int64) bool {
	cfg := c.config.Load()
	return cfg != nil && cfg.SlowDuration > 0 && nanos > int64(cfg.SlowDuration)
}

// Count counts an outcome, and in the window of calls if there is one.
func (c *Circuit) Count(n *Counts, o Outcome, slow bool) {
	n.Add(o)
	if o != Success && !o.isError() {
		return
	}
	if slow {
		n.Slow++
	}
	s := c.shared.Load()
	if s == nil {
		return
	}
	if r := s.calls.Load(); r != nil {
		var code uint32
		if o != Success {
			code |= callError
		}
		if slow {
			code |= callSlow
		}
		r.push(code)
	}
}

// Classify says what a result counts as by the circuit's configuration.
func (c *Circuit) Classify(r Result, status int) Outcome {
	if cfg := c.config.Load(); cfg != nil {
		return classify(cfg, r, status)
	}
	return Success
}

// Flush moves the loop's counts into the circuit's totals and zeroes them. Call it
// every 50 ms or so: the circuit decides by what was flushed.
func (c *Circuit) Flush(n *Counts) {
	s := c.shared.Load()
	if s == nil {
		*n = Counts{latency: n.latency}
		return
	}
	// Success goes first and is read last, so that a tick in between sees too few
	// errors and slow calls rather than too many.
	for o := range counted {
		if f := n.field(o); *f != 0 {
			s.totals[o].Add(uint64(*f))
			*f = 0
		}
	}
	if n.latency == nil || n.latency.count == 0 {
		return
	}
	l := s.latency.Load()
	if l == nil {
		s.latency.CompareAndSwap(nil, new(sharedLatencies))
		l = s.latency.Load()
	}
	l.flush(n.latency)
}
