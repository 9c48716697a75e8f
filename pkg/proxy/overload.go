// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// failureOverloaded answers requests that this process has no room for. Nothing of them
// was processed: no filter and no endpoint has seen them.
var failureOverloaded = failure{Flag: record.OM, Status: 503, Details: "overload", Body: []byte("envoy overloaded")}

// beginTick looks once how much pressure the process is under.
func (w *worker) beginTick() {
	if w.counts {
		w.countHeld()
	}
	if s := w.proxy.overload.State(); s != w.load {
		w.loadChanged(s)
	}
	if n := w.load.Scale(resource.ActionReduceBuffers); n != w.bounded { // growing may have been before
		w.boundBuffers(n)
	}
	w.shed = w.proxy.overload.Points()
	w.beginLate()
}

// loadChanged puts a state into force: what is not asked for at each request or
// connection.
func (w *worker) loadChanged(s overload.State) {
	old := w.load
	w.load = s
	const accepting, timeouts = resource.ActionStopAcceptingConnections, resource.ActionReduceTimeouts
	if was, is := old.Scale(accepting) >= 100, s.Scale(accepting) >= 100; was != is {
		byName := func(a, b *listener) int { return strings.Compare(a.name, b.name) }
		for _, l := range slices.SortedFunc(maps.Keys(w.listeners), byName) {
			for _, on := range w.listeners[l] {
				w.holdAccepting(on)
			}
		}
	}
	if s.Scale(timeouts) > old.Scale(timeouts) {
		w.shortenIdle()
	}
}

// holdAccepting pauses a listener's sockets while nothing is to be accepted, and
// resumes them then.
func (w *worker) holdAccepting(on *listenerOn) {
	hold := w.load.Scale(resource.ActionStopAcceptingConnections) >= 100 && !on.shared.config.Load().res.BypassOverload
	for _, ln := range on.open {
		if hold {
			ln.Pause()
		} else if err := ln.Resume(); err != nil {
			w.proxy.log.Error("listener cannot accept again", "listener", on.shared.name, "worker", w.index, "error", err)
		}
	}
}

// shortenIdle makes the timers of connections fire in time for idle times that have
// become shorter.
func (w *worker) shortenIdle() {
	for d := w.downs.first; d != nil; d = d.next {
		m := d.chain.manager.Load()
		if t := w.connectionIdle(m.res.IdleTimeout); d.x == nil && t > 0 {
			d.ensure(d.idle + int64(t))
		} else if x := d.x; x != nil {
			x.armIdle()
		}
	}
	for _, c := range w.http2s {
		c.arm()
		for _, s := range inOrder(c.streams) {
			if s.x != nil {
				s.x.armIdle()
			}
		}
	}
}

func (x *exchange) armIdle() {
	if t := x.idleTimeout(); t > 0 && !x.ended {
		x.ensure(x.lastActivity + int64(t))
	}
}

// connectionIdle and streamIdle are what the pressure leaves of idle times.
func (w *worker) connectionIdle(t time.Duration) time.Duration {
	if n := w.load.Scale(resource.ActionReduceTimeouts); n > 0 {
		return w.proxy.overload.Action(resource.ActionReduceTimeouts).ConnectionIdle.Scaled(t, n)
	}
	return t
}

func (w *worker) streamIdle(t time.Duration) time.Duration {
	if n := w.load.Scale(resource.ActionReduceTimeouts); n > 0 {
		return w.proxy.overload.Action(resource.ActionReduceTimeouts).StreamIdle.Scaled(t, n)
	}
	return t
}

// endsKeepAlive draws whether a connection ends with the response that is being sent.
func (w *worker) endsKeepAlive(m *manager, l *listener) bool {
	if w.load == 0 || l.config.Load().res.BypassOverload || !w.load.Hit(resource.ActionDisableKeepAlive, w.random.Uint64()) {
		return false
	}
	m.stats.on[w.index].cxOverloadKeepAlive++
	return true
}

// overloaded draws whether a request is refused before anything is done for it.
func (x *exchange) overloaded() bool {
	w := x.w
	if w.load == 0 && w.shed == 0 || x.manager.listener.BypassOverload {
		return false
	}
	if !w.load.Hit(resource.ActionStopAcceptingRequests, w.random.Uint64()) && !w.sheds(resource.ShedHeaders) {
		return false
	}
	x.manager.stats.on[w.index].rqOverload++
	return true
}

// leave takes a connection off the books that no chain has.
func (l *listener) leave() {
	l.active.Add(-1)
	l.all.Add(-1)
}

// tooManyConnections counts a connection that was accepted, and refuses it where there
// are too many in the process or the pressure says so.
func (l *listener) tooManyConnections(w *worker, res *resource.Listener) bool {
	l.active.Add(1)
	most := w.proxy.overload.MaxConnections()
	if n := l.all.Add(1); most >= 0 && n > most && !res.IgnoreGlobalLimit {
		l.globalRefused.Add(1)
		return true
	}
	if w.load == 0 && w.shed == 0 || res.BypassOverload {
		return false
	}
	if w.load.Hit(resource.ActionRejectConnections, w.random.Uint64()) || w.sheds(resource.ShedAccept) {
		l.overloadRefused.Add(1)
		return true
	}
	return false
}
