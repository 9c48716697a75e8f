// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// newcomerIdle is the least that a connection has for its first request in a drain,
// however soon those without one are closed that were there when it began.
const newcomerIdle = time.Second

// DrainScope says which listeners a drain is about.
type DrainScope uint8

// The scopes.
const (
	DrainAll DrainScope = iota
	DrainInbound
	DrainOutbound // all but inbound ones
)

// String is the scope's name.
func (s DrainScope) String() string { return [...]string{"all", "inbound", "outbound"}[s] }

func (s DrainScope) has(l *listener) bool {
	return s == DrainAll || (s == DrainInbound) == (l.config.Load().res.Direction == resource.Inbound)
}

// Drain lets connections end: responses carry "connection: close", connections
// without a request are closed after Options.DrainIdle, new ones are still accepted
// and served. It returns when no connection is left on the listeners that it is
// about, after they stopped accepting, or with an error when ctx ends before. A drain
// of one scope may follow that of another.
func (p *Proxy) Drain(ctx context.Context, scope DrainScope) (err error) {
	list := p.startDrain(scope)
	began := p.tellDrain(scope, activeOn(list))
	defer func() { began(activeOn(list), err) }()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	quiet := 0
	for {
		n := activeOn(list)
		if n == 0 {
			quiet++
		} else {
			quiet = 0
		}
		if quiet >= 3 { // what was in the backlog has been accepted meanwhile
			for _, l := range list {
				p.detach(l)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain: %d connections left: %w", n, context.Cause(ctx))
		case <-poll.C:
		}
	}
}

// startDrain tells the connections of the listeners that it is about to go.
func (p *Proxy) startDrain(scope DrainScope) []*listener {
	list := p.scope(scope)
	for _, l := range list {
		l.drains.Store(true)
	}
	p.draining.Store(true)
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() { w.drainListeners() })
	}
	return list
}

func activeOn(list []*listener) (n int64) {
	for _, l := range list {
		n += l.active.Load()
	}
	return n
}

// scope lists the listeners that a drain is about.
func (p *Proxy) scope(scope DrainScope) (list []*listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range inOrder(p.listeners) {
		if scope.has(l) {
			list = append(list, l)
		}
	}
	return list
}

// StopListening stops accepting at once; connections that are open go on, each
// until its next response.
func (p *Proxy) StopListening(scope DrainScope) {
	for _, l := range p.scope(scope) {
		l.drains.Store(true)
		p.detach(l)
	}
}

// Draining reports whether Drain was called.
func (p *Proxy) Draining() bool { return p.draining.Load() }

func (w *worker) drainListeners() {
	now := w.loop.Now()
	for d := w.downs.first; d != nil; d = d.next {
		if d.listener.drains.Load() {
			d.retire = now + w.proxy.drainIdle.Load()
			if d.tunnel {
				d.retire = now + w.tunnelTime()
			}
			d.ensure(d.retire)
		}
	}
	for _, c := range w.http2s {
		if c.listener.drains.Load() {
			c.leave(now+w.proxy.drainIdle.Load(), now+w.tunnelTime())
		}
	}
	// What is left by the end of the drain is cut off: tunnels are told before.
	whole := w.proxy.options.DrainTime
	end := now + int64(max(whole/2, whole-noticeTime))
	w.drainEnd = end
	for t := w.tunnels; t != nil; t = t.next {
		if t.listener.drains.Load() && (t.retire == 0 || t.retire > end) && !t.noticed {
			t.retire = end
			if t.open {
				t.arm()
			}
		}
	}
}

// drainChain tells the connections of a chain to go: each closes with its next
// response, or when the drain time is over, as tunnels do. Closing idle ones at
// once would lose requests that are on their way.
func (w *worker) drainChain(ch *chain) {
	w.loop.Schedule(&reactor.Timer{F: func() { w.endChain(ch) }}, w.proxy.options.DrainTime)
	retire := w.loop.Now() + int64(w.proxy.options.DrainTime)
	for d := w.downs.first; d != nil; d = d.next {
		if d.chain == ch {
			d.retire = retire
			d.ensure(retire)
		}
	}
	for _, c := range w.http2s {
		if c.chain == ch {
			c.leave(retire, retire)
		}
	}
	for t := w.tunnels; t != nil; t = t.next {
		if t.chain == ch {
			t.retire = retire
			if t.open {
				t.arm()
			}
		}
	}
}

// endChain ends the exchanges of a chain whose drain time is over: a response may
// have no end of its own. Tunnels see to theirs.
func (w *worker) endChain(ch *chain) {
	for d, next := w.downs.first, (*downstreamConn)(nil); d != nil; d = next {
		next = d.next
		if d.chain == ch && d.x != nil && !d.tunnel {
			w.loop.Blame(d.conn)
			d.x.Record.Flags |= record.DC
			d.x.fail(&failureDrained)
		}
	}
	for _, c := range slices.Clone(w.http2s) {
		if c.chain == ch && !c.closing {
			w.loop.Blame(c.conn)
			c.endTunnels() // in their own way, which their peers understand
			c.end("drain_time_over")
		}
	}
}

// leaveAt is when a connection of HTTP that begins now is to go, 0 for not: its
// chain may have gone while it shook hands, and a drain still accepts.
func (w *worker) leaveAt(l *listener, ch *chain) int64 {
	switch {
	case l.drains.Load():
		return w.loop.Now() + max(w.proxy.drainIdle.Load(), int64(newcomerIdle))
	case ch.removed.Load():
		return w.loop.Now() + int64(w.proxy.options.DrainTime)
	}
	return 0
}

// tunnelLeavesAt is leaveAt of a TCP connection: in a drain, together with those
// that were there when it began.
func (w *worker) tunnelLeavesAt(l *listener, ch *chain) int64 {
	now := w.loop.Now()
	switch {
	case l.drains.Load() && w.drainEnd > now:
		return w.drainEnd
	case l.drains.Load() || ch.removed.Load():
		return now + int64(w.proxy.options.DrainTime)
	}
	return 0
}
