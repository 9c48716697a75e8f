// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// One timer serves all deadlines of an exchange. It is armed for the earliest
// and never moved forward: when it fires it looks at what is due.

// armTimeouts sees to it that the timer fires for what now runs.
func (x *exchange) armTimeouts() {
	if x.retry.timeout > 0 && x.requestDone {
		x.ensure(x.requestAt + int64(x.retry.timeout))
	}
	if due, ok := x.perTryDue(); ok {
		x.ensure(due)
	}
	if d := x.maxDuration(); d > 0 {
		x.ensure(x.began + int64(d))
	}
	if x.call.deadline != 0 {
		x.ensure(x.call.deadline)
	}
	if t := x.idleTimeout(); t > 0 { // the route's may be shorter than the one that start saw
		x.ensure(x.lastActivity + int64(t))
	}
	if p := x.perTryIdle(); p > 0 {
		x.ensure(x.lastActivity + int64(p))
	}
}

// maxDuration is how long the exchange may take in all; 0: no limit.
func (x *exchange) maxDuration() time.Duration {
	if x.call.ownLimit {
		return 0 // its deadline takes the place of the route's
	}
	if x.route != nil && x.route.action != nil && x.route.action.res.MaxDuration > 0 {
		return x.route.action.res.MaxDuration
	}
	return x.manager.res.MaxStreamDuration
}

// perTryIdle is how long an attempt may be silent; 0: no limit.
func (x *exchange) perTryIdle() time.Duration {
	if x.main == nil || x.route == nil || x.route.action == nil || x.route.action.retry == nil {
		return 0
	}
	return x.route.action.retry.PerTryIdleTimeout
}

// endTry goes on behind an attempt whose time is over. The timer has fired for it, and
// looks at what else is due in a moment: the next attempt may be later than that.
func (x *exchange) endTry(now int64) {
	x.w.contain(x)
	if !x.ended && x.manager != nil {
		x.ensure(now)
	}
}

// OnTimer implements reactor.TimerTarget.
func (x *exchange) OnTimer(*reactor.Timer) {
	if x.manager == nil {
		return // in the free list
	}
	defer x.w.contained(x)
	now := x.w.loop.Now()
	if x.ended {
		x.endMirrors(now)
		return
	}
	next := int64(1 << 62)
	pending := func(due int64) bool {
		if now >= due {
			return true
		}
		next = min(next, due)
		return false
	}
	m := x.manager.res
	if x.endOutdated(pending) {
		return
	}
	switch {
	case !x.requestDone && m.RequestTimeout > 0 && pending(x.began+int64(m.RequestTimeout)):
		x.fail(&failureRequestTimeout)
		return
	case x.maxDuration() > 0 && pending(x.began+int64(x.maxDuration())):
		x.fail(&failureMaxDuration)
		return
	case x.call.deadline != 0 && pending(x.call.deadline):
		if x.on != nil {
			x.on.stats.rqTimeout++
		}
		x.fail(&failureDeadline)
		return
	case x.requestDone && x.retry.timeout > 0 && pending(x.requestAt+int64(x.retry.timeout)):
		if x.on != nil {
			x.on.stats.rqTimeout++
		}
		x.fail(&failureTimeout)
		return
	}
	if due, ok := x.perTryDue(); ok && pending(due) && x.perTryTimeout() {
		x.endTry(now)
		return
	}
	if a, d := x.main, x.perTryIdle(); d > 0 && a.sentAt != 0 && !a.gotHead && pending(max(x.lastActivity, a.sentAt)+int64(d)) {
		x.on.stats.rqPerTryTimeout++
		a.failed = &failurePerTryIdle
		x.endTry(now)
		return
	}
	if p := m.AccessLogInterval; p > 0 && pending(max(x.logged, x.began)+int64(p)) {
		x.logged = now
		x.periodicRecord()
		x.ensure(now + int64(p))
	}
	if x.retry.at != 0 && pending(x.retry.at) {
		x.retry.at = 0
		x.w.contain(x)
		if x.ended || x.manager == nil {
			return
		}
	}
	if idle := x.idleTimeout(); idle > 0 && pending(x.lastActivity+int64(idle)) {
		x.manager.stats.on[x.w.index].rqIdleTimeout++
		if x.requestDone {
			x.fail(&failureIdleUpstream)
		} else {
			x.fail(&failureIdle)
		}
		return
	}
	if next < 1<<62 {
		x.ensure(next)
	}
}
