// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math/bits"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// CircuitEvent is a change of a circuit, with the numbers that led to it.
type CircuitEvent struct {
	Circuit string
	// State is the new one: Open, ForcedOpen, HalfOpen, Recovering or Closed.
	State    State
	Config   resource.CircuitBreaker // in force
	Openings uint64                  // so far, of Open this one included

	// Of the window, when the circuit opened.
	Requests, Errors, Slow    uint64
	ErrorPercent, SlowPercent int
	// TestIn is how long after the opening a request may test the circuit.
	TestIn time.Duration

	// Since the opening, of the other states.
	After              time.Duration
	Tests, FailedTests uint64
}

// told is what was told of a circuit, and to whom.
type told struct {
	tell func(CircuitEvent)
	news []CircuitEvent // that the tick has found; owned by who ticks

	// Guarded by Circuit.mu.
	mode   uint64
	gen    uint32
	at     int64     // of the opening
	judged health    // what it was decided by
	tests  uint64    // since then, told of
	before [2]uint64 // tests, and those that failed, before it
}

// Tell makes f hear of the circuit's changes, from Tick, which one goroutine calls then.
func (c *Circuit) Tell(f func(CircuitEvent)) {
	c.mu.Lock()
	c.told = &told{tell: f, gen: c.off.gen}
	c.mu.Unlock()
}

func (t *told) forget(gen uint32) {
	if t != nil {
		*t = told{tell: t.tell, news: t.news, gen: gen}
	}
}

// hand hands on what there is, without the lock: who is told may ask.
func (t *told) hand() {
	if t == nil || len(t.news) == 0 {
		return
	}
	for i := range t.news {
		t.tell(t.news[i])
	}
	t.news = nil
}

// news notes what has changed since the last tick. A circuit whose tests fail on is
// told to be half-open with its first, second, fourth, eighth test and so on: the
// others are counted.
func (c *Circuit) news(cfg *resource.CircuitBreaker, s *shared, now int64) {
	o, t := &c.off, c.told
	mode := o.word & modeMask
	add := func(state State) *CircuitEvent {
		t.news = append(t.news, CircuitEvent{Circuit: c.name, State: state, Config: *cfg, Openings: o.openings})
		e := &t.news[len(t.news)-1]
		if state != Open && state != ForcedOpen {
			e.After = time.Duration(now - t.at)
			e.Tests, e.FailedTests = s.tests.Load()-t.before[0], s.failedTests.Load()-t.before[1]
		}
		return e
	}
	if t.mode == open {
		if n := s.tests.Load() - t.before[0]; bits.Len64(n) != bits.Len64(t.tests) {
			add(HalfOpen)
			t.tests = n
		}
	}
	if mode == t.mode && o.gen == t.gen {
		return
	}
	again := o.gen != t.gen
	switch closed := mode == pass || again; {
	case t.mode == pass:
	case mode == ramp && t.mode != ramp:
		add(Recovering)
	case closed:
		add(Closed)
	}
	if mode == open && again || mode == deny && t.mode != deny {
		t.at, t.tests = now, 0
		t.before = [2]uint64{s.tests.Load(), s.failedTests.Load()}
		if mode == deny {
			add(ForcedOpen)
		} else {
			h := t.judged
			e := add(Open)
			e.Requests, e.Errors, e.Slow, e.ErrorPercent, e.SlowPercent = h.requests, h.errors, h.slow, h.errorPercent(), percent(h.slow, h.requests)
			e.TestIn = time.Duration(max(c.testedAt.Load()+c.sleep.Load()-now, 0))
		}
	}
	t.mode, t.gen = mode, o.gen
}
