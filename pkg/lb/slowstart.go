// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// ramp is slow start's part of a view, immutable like the rest of it: since when
// each host is healthy. Time passes in steps, from Tick to Tick: the weights of a
// view are those of its own time, so that picks need no clock.
type ramp struct {
	now   int64   // of the last Tick, monotonic nanoseconds; 0: none yet
	since []int64 // by place in View.hosts; 0: not healthy yet, or only since the last Tick
	fresh bool    // some healthy host waits for the next Tick to know its time
	under bool    // some healthy host's window is not over
	step  int64   // time between two views
}

// rampSteps is how many views a window is cut into at least: the weights lag by
// one percent of it at most.
const rampSteps = 100

// newRamp makes the view's ramp; nil where the policy knows no slow start.
//
// A host's window begins when it is first seen healthy. It begins again after the
// host has failed its health checks, the active ones or those that EDS tells of;
// an ejection does not begin it again. Source: Envoy, "Slow start mode".
func newRamp(prev *View, v *View, states []healthState, now int64) *ramp {
	window := v.cfg.LB.SlowStart.Window
	if window <= 0 || !startsSlowly(v.cfg.LB.Policy) {
		return nil
	}
	r := &ramp{now: now, since: make([]int64, len(v.hosts)), step: int64(window) / rampSteps}
	var old *ramp
	if prev != nil && prev.ramp != nil {
		old = prev.ramp
		carrySince(r.since, v.hosts, old.since, prev.hosts)
		if now == 0 {
			r.now = old.now
		}
	}
	for i, h := range v.hosts {
		switch {
		case states[i] == stateHealthy:
			if r.since[i] == 0 {
				r.since[i] = now
			}
			r.fresh = r.fresh || r.since[i] == 0
			r.under = r.under || r.since[i] == 0 || r.now-r.since[i] < int64(window)
		case h.failsChecks():
			r.since[i] = 0
		}
	}
	return r
}

func startsSlowly(p resource.LBPolicy) bool {
	return p == resource.RoundRobin || p == resource.LeastRequest || p == resource.ClientWeighted
}

// failsChecks: an ejected host is unhealthy too, but does not.
func (h *Host) failsChecks() bool {
	s := h.EDSHealth()
	return h.Failed() || !s.Usable() && s != resource.Degraded
}

func carrySince(since []int64, hosts []*Host, oldSince []int64, old []*Host) {
	if slices.Equal(hosts, old) {
		copy(since, oldSince)
		return
	}
	byHost := make(map[*Host]int64, len(old))
	for i, h := range old {
		byHost[h] = oldSince[i]
	}
	for i, h := range hosts {
		since[i] = byHost[h]
	}
}

// due reports whether the view's weights are out of date.
func (r *ramp) due(now int64) bool {
	return r != nil && (r.fresh || r.under && now-r.now >= r.step)
}

// factor is what slow start leaves of the weight of a healthy host.
func (r *ramp) factor(cfg *resource.SlowStart, since int64) float64 {
	healthy := int64(0)
	if since != 0 {
		healthy = (r.now - since) / int64(time.Millisecond)
	}
	window := int64(cfg.Window / time.Millisecond)
	if healthy >= window {
		return 1
	}
	f := float64(max(healthy, 1)) / float64(window)
	if cfg.Aggression != 1 && cfg.Aggression > 0 {
		f = math.Pow(f, 1/cfg.Aggression)
	}
	return max(f, cfg.MinWeightPercent/100)
}

// ramped lists what healthy hosts of the view weigh now; nil where others are among
// them: in panic health does not count, and those that became healthy last must
// not get less than those that are not.
func (b *builder) ramped(hosts []*Host) []float64 {
	v := b.v
	if v.ramp == nil || !v.ramp.under {
		return nil
	}
	w := make([]float64, len(hosts))
	at := 0 // hosts are in the view's order, or nearly
	for i, h := range hosts {
		for v.hosts[at] != h {
			at = (at + 1) % len(v.hosts)
		}
		if b.states[at] != stateHealthy {
			return nil
		}
		w[i] = v.weight(h) * v.ramp.factor(&v.cfg.LB.SlowStart, v.ramp.since[at])
	}
	return w
}

// continues reports whether a schedule of the set before holds for this one:
// other weights count from each host's next turn on.
func (s *Set) continues(before *Set) bool {
	return before != nil && s.schedule != nil && before.schedule != nil && slices.Equal(s.Hosts, before.Hosts)
}
