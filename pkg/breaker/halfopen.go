// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// round is a test of an open circuit with several calls, packed into one word so
// that all workers together let exactly so many pass: how many may still come, how
// many have ended, how many of those were errors and how many slow, and the number
// of the round. Outcomes of an earlier round change nothing.
type round uint64

// MaxHalfOpenCalls is how many calls may test a circuit together.
const MaxHalfOpenCalls = exhausted - 1

const (
	// exhausted in place of the calls that have begun means that none may any more but
	// those of a new round.
	exhausted  = 1<<roundBits - 1
	roundBits  = 10
	grantedAt  = 0
	endedAt    = roundBits
	errorsAt   = 2 * roundBits
	slowAt     = 3 * roundBits
	numberAt   = 4 * roundBits
	numberMask = 1<<(64-numberAt) - 1
)

func (r round) get(at uint) int { return int(r >> at & exhausted) }

func (r round) number() uint32 { return uint32(r >> numberAt & numberMask) }

// next is the following round, of which that many calls have begun.
func (r round) next(granted int) round {
	return round(uint64(r.number()+1)&numberMask)<<numberAt | round(granted)
}

func permitted(cfg *resource.CircuitBreaker) int {
	return min(max(cfg.HalfOpenCalls, 1), MaxHalfOpenCalls)
}

// allowTest lets calls of a round pass; a round begins when the sleep window has
// ended, counted from when the last one began.
func (c *Circuit) allowTest(s *shared, most int, w uint64, now int64) (Token, bool) {
	for {
		r := round(s.round.Load())
		tested := c.testedAt.Load()
		if n := r.get(grantedAt); n > 0 && n < most {
			if s.round.CompareAndSwap(uint64(r), uint64(r+1<<grantedAt)) {
				return Token{gen: uint32(w >> 32), probe: true, round: r.number()}, true
			}
			continue
		}
		if now-tested <= c.sleep.Load() || !c.testedAt.CompareAndSwap(tested, now) {
			return Token{}, false
		}
		for { // outcomes of the last round still come
			r = round(s.round.Load())
			if s.round.CompareAndSwap(uint64(r), uint64(r.next(1))) {
				s.tests.Add(1)
				return Token{gen: uint32(w >> 32), probe: true, round: r.next(1).number()}, true
			}
		}
	}
}

// reportTest counts an outcome for its round. When all have ended, the circuit
// closes, or stays open for another sleep window from now on.
func (c *Circuit) reportTest(s *shared, cfg *resource.CircuitBreaker, t Token, o Outcome, wasSlow bool, now int64) {
	most := permitted(cfg)
	for {
		r := round(s.round.Load())
		if r.number() != t.round || r.get(grantedAt) == 0 {
			return
		}
		next := r + 1<<endedAt
		failed := o.isError() && o != Rejected
		if failed {
			next += 1 << errorsAt
		}
		if wasSlow {
			next += 1 << slowAt
		}
		if !failed && o != Success { // nothing was learnt: another may come in its place
			next = r - 1<<grantedAt
		}
		h := health{requests: uint64(next.get(endedAt)), errors: uint64(next.get(errorsAt)), slow: uint64(next.get(slowAt))}
		ended := h.requests >= uint64(most)
		if ended {
			next = next.next(exhausted)
		}
		if !s.round.CompareAndSwap(uint64(r), uint64(next)) {
			continue
		}
		if !ended {
			return
		}
		if h.unwell(cfg) {
			s.failedTests.Add(1)
			c.testedAt.Store(max(now, c.askedSleep(s, cfg, now)))
			return
		}
		c.close(s, cfg, t, now)
		return
	}
}

// close ends the opening that the token belongs to, if it is still that one.
func (c *Circuit) close(s *shared, cfg *resource.CircuitBreaker, t Token, now int64) {
	if c.word.Load() != word(t.gen, open) {
		return
	}
	mode := pass
	if cfg.Recovery > 0 {
		mode = ramp
		s.recoverAt.Store(now)
		s.credit.Store(rampUnit) // the first one passes
	}
	if !c.word.CompareAndSwap(word(t.gen, open), word(t.gen, mode)) {
		return
	}
	for o := range s.totals {
		s.closedTotals[o].Store(s.totals[o].Load())
	}
	if r := s.calls.Load(); r != nil {
		s.closedCalls.Store(r.next.Load())
	}
	s.closedGen.Store(t.gen)
}

// allowRamp lets a share of the requests pass that grows with the time since the
// circuit has closed, counted over all workers; the first one passes.
func (c *Circuit) allowRamp(s *shared, cfg *resource.CircuitBreaker, w uint64, now int64) (Token, bool) {
	t := Token{gen: uint32(w >> 32)}
	elapsed := max(now-s.recoverAt.Load(), 0)
	if elapsed >= int64(cfg.Recovery) {
		return t, true
	}
	share := uint64(float64(elapsed) / float64(cfg.Recovery) * rampUnit)
	for {
		had := s.credit.Load()
		has := had + share
		ok := has >= rampUnit
		if ok {
			has -= rampUnit
		}
		if s.credit.CompareAndSwap(had, has) {
			return t, ok
		}
	}
}

// rampUnit is the credit that one request costs; each adds its share.
const rampUnit = 1 << 32

// RetryAt says that an endpoint has answered with an error and wants to be left
// alone until then. What counts is who may be asked first: a test reaches one.
func (c *Circuit) RetryAt(at, now int64) {
	s := c.shared.Load()
	if s == nil {
		return
	}
	for {
		known := s.retryAt.Load()
		if known > now && known <= at || s.retryAt.CompareAndSwap(known, at) {
			return
		}
	}
}

// sleepOn lengthens the sleep window after a probe that failed, if that was asked for.
func (c *Circuit) sleepOn(s *shared, cfg *resource.CircuitBreaker, now int64) {
	tested := c.testedAt.Load()
	if asked := c.askedSleep(s, cfg, now); asked > max(tested, now-c.sleep.Load()) {
		c.testedAt.CompareAndSwap(tested, asked)
	}
}

// testing reports whether a round is under way.
func (s *shared) testing(cfg *resource.CircuitBreaker) bool {
	n := round(s.round.Load()).get(grantedAt)
	return permitted(cfg) > 1 && n > 0 && n != exhausted
}

// MaxAskedSleeps is how many sleep windows in a row endpoints may ask for: those who
// ask speak for themselves, and the circuit shuts out the others as well.
const MaxAskedSleeps = 3

// askedSleep is when a sleep window would have to begin to end when endpoints want
// to be asked again.
func (c *Circuit) askedSleep(s *shared, cfg *resource.CircuitBreaker, now int64) int64 {
	if !cfg.RetryAfter {
		return now
	}
	sleep := c.sleep.Load()
	most := int64(MaxRetryAfter)
	if sleep < most/MaxAskedSleeps {
		most = sleep * MaxAskedSleeps
	}
	return min(s.retryAt.Load(), now+most) - sleep
}

// RetryIn is how long a refused request had better wait: until the next test of an
// open circuit, a second while it recovers, 0 where nobody knows.
func (c *Circuit) RetryIn(now int64) time.Duration {
	switch c.word.Load() & modeMask {
	case open:
		return time.Duration(max(c.testedAt.Load()+c.sleep.Load()-now, 0))
	case ramp:
		return time.Second
	}
	return 0
}
