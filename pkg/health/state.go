// SPDX-License-Identifier: Apache-2.0

package health

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Outcome is what a check found.
type Outcome uint8

// The outcomes.
const (
	Passed   Outcome = iota
	Degraded         // passed, and the host says that it is degraded
	Refused          // it answers, and says that it is not well
	Unreachable
	TimedOut
	Passive // a response to traffic said so (x-envoy-immediate-health-check-fail)
	// Unknown says nothing of the host: this side lacked something.
	Unknown
)

// String is the failure's type in Envoy's events.
func (o Outcome) String() string {
	return [...]string{"PASSED", "DEGRADED", "ACTIVE", "NETWORK", "NETWORK_TIMEOUT", "PASSIVE", "UNKNOWN"}[o]
}

func (o Outcome) passed() bool  { return o <= Degraded }
func (o Outcome) network() bool { return o == Unreachable || o == TimedOut }

// Result is the end of a check.
type Result struct {
	Outcome   Outcome
	Retriable bool   // of Refused: it counts towards the threshold
	Status    int    // of HTTP; 0: there was no response
	Reason    string // why it has not passed
	verified  bool   // the service's name was compared
}

// State is what the checks of one host have come to. The zero State is of a host
// that no check has seen; Failed may be set beforehand.
type State struct {
	Failed   bool
	Degraded bool
	Checked  bool // at least one check has ended
	// In a row; of the kind that could change Failed.
	successes, failures uint32
}

// Change is what a result has changed.
type Change struct {
	First    bool // the first result of this host
	Health   bool // Failed is another
	Degraded bool // Degraded is another
	// Pending: the threshold for a change of Failed is not reached yet.
	Pending bool
}

// Apply takes a result into account. The first one decides at once. Later ones need
// as many in a row as the thresholds say, but for an answer that is neither expected
// nor retriable, which needs no second one.
func (s *State) Apply(h *resource.HealthCheck, r *Result) (c Change) {
	if r.Outcome == Unknown {
		return c
	}
	c.First = !s.Checked
	s.Checked = true
	if r.Outcome.passed() {
		s.pass(h, &c)
		if degraded := r.Outcome == Degraded; degraded != s.Degraded {
			s.Degraded, c.Degraded = degraded, true
		}
		return c
	}
	s.fail(h, r, &c)
	return c
}

func (s *State) pass(h *resource.HealthCheck, c *Change) {
	s.failures = 0
	if !s.Failed {
		return
	}
	s.successes++
	if c.First || s.successes >= h.HealthyThreshold {
		s.Failed, s.successes, c.Health = false, 0, true
		return
	}
	c.Pending = true
}

func (s *State) fail(h *resource.HealthCheck, r *Result, c *Change) {
	s.successes = 0
	if s.Failed {
		return
	}
	s.failures++
	if c.First || !r.Outcome.network() && !r.Retriable || s.failures >= h.UnhealthyThreshold {
		s.Failed, s.failures, c.Health = true, 0, true
		return
	}
	c.Pending = true
}

// Wait is how long after a check the next one begins. used says whether the cluster
// has ever had a connection.
func Wait(h *resource.HealthCheck, o Outcome, c Change, used bool, random func() uint64) time.Duration {
	var d time.Duration
	switch passed := o.passed(); {
	case !used && passed && !c.Pending:
		d = h.NoTrafficHealthyInterval
	case !used:
		d = h.NoTrafficInterval
	case passed && c.Pending:
		d = h.HealthyEdgeInterval
	case passed:
		d = h.Interval
	case c.Pending:
		d = h.UnhealthyEdgeInterval
	default:
		d = h.UnhealthyInterval
	}
	if h.IntervalJitterPercent > 0 {
		d += draw(d*time.Duration(h.IntervalJitterPercent)/100, random)
	}
	return max(d+draw(h.IntervalJitter, random), time.Millisecond)
}

// draw is in [0, most).
func draw(most time.Duration, random func() uint64) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(random() % uint64(most))
}
