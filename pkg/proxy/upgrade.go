// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A request may become a tunnel: by Upgrade, once the upstream has answered 101
// (RFC 9110 §7.8), or by CONNECT, with a 2xx (§9.3.6). Until then it is a request
// like any other, with its timeouts, retries and limits, and what the client
// sends behind it stays unread in its connection. From then on bytes go across in
// both directions, each with its own end, as long as there is any activity.

// tunnelState is how far a request has come in becoming a tunnel.
type tunnelState uint8

const (
	noTunnel      tunnelState = iota // it asks for none, or for one that is not enabled
	tunnelOffered                    // the upstream may agree
	tunnelOpen
)

// tunneler is a side of an exchange that can become an end of a tunnel.
type tunneler interface {
	// startTunnel: what follows the head of the response are the tunnel's bytes.
	startTunnel()
}

var (
	errSwitchedToOther = errors.New("101 to a protocol that was not asked for")
	errSwitchedEarly   = errors.New("101 before the request was complete")
)

// switching reports whether a response to the method begins a tunnel.
func switching(status int, m codec.Method) bool {
	return status == 101 || m == codec.MethodConnect && status >= 200 && status < 300
}

// offerTunnel decides whether the request may ask its upstream for a tunnel. An
// Upgrade that is not enabled is not passed on, as if it had not been there;
// CONNECT that is not enabled is refused, extended or not.
func (x *exchange) offerTunnel() filter.Verdict {
	h := &x.Request
	connect := h.Method == codec.MethodConnect
	if !connect && !h.Upgrade {
		return filter.Next
	}
	if _, able := x.down.(tunneler); able {
		x.upgrade = x.findUpgrade(connect, h.UpgradeProtocol())
	}
	if x.upgrade != nil && !connect && x.needsHTTP2(x.on.spec.res) && !x.convertible() {
		x.upgrade = nil
	}
	switch {
	case x.upgrade != nil:
		x.tunnel = tunnelOffered
	case x.asksConnect():
		return x.reply(&failureUpgrade)
	default:
		h.Upgrade = false
	}
	return filter.Next
}

// findUpgrade returns what allows the tunnel: the route has the last word, then
// the manager.
func (x *exchange) findUpgrade(connect bool, protocol []byte) *resource.Upgrade {
	for _, list := range [...][]resource.Upgrade{x.route.action.res.Upgrades, x.manager.res.Upgrades} {
		for i := range list {
			u := &list[i]
			if connect && u.Type != resource.UpgradeConnect || !connect && !codec.EqualFold(protocol, u.Type) {
				continue
			}
			if !u.Enabled {
				return nil
			}
			return u
		}
	}
	return nil
}

// judgeSwitch refuses a 101 that nobody may believe.
func (x *exchange) judgeSwitch(h *codec.ResponseHead) error {
	switch {
	case h.Status != 101:
		return nil
	case !codec.EqualFold(h.UpgradeProtocol(), x.upgrade.Type):
		return errSwitchedToOther
	case !x.requestDone:
		return errSwitchedEarly
	}
	return x.judgeWebSocket(h)
}

// switches reports whether the response that is here begins a tunnel.
func (x *exchange) switches() bool {
	return x.tunnel == tunnelOffered && x.hasResponse && !x.local && switching(x.Response.Status, x.Request.Method)
}

// viaUpstream is Envoy's name for an answer of the upstream.
func (x *exchange) viaUpstream() string {
	if x.tunnel == tunnelOffered && x.upgrade.Type == "websocket" && !x.switches() {
		return "websocket_handshake_unsuccessful"
	}
	if x.fallen.from != nil {
		return "fallback_cluster"
	}
	return "via_upstream"
}

// openTunnel follows the head of the response. As a request, the exchange is
// over: its timeouts have no meaning any more, and breaker and statistics hear of
// it now. What limits requests and connections counts it until it ends.
func (x *exchange) openTunnel() {
	a := x.main
	x.tunnel = tunnelOpen
	x.retry.timeout, x.retry.perTry = 0, 0
	a.count(nil, x.w.loop.Now())
	a.counted = true
	x.followWebSocket()
	s := &x.manager.stats.on[x.w.index]
	s.upgradesTotal++
	s.upgradesActive++
	if t, ok := x.down.(tunneler); ok {
		t.startTunnel()
	}
	if t, ok := a.up.(tunneler); ok {
		t.startTunnel()
	}
	if s, ok := x.down.(*http2Stream); ok {
		s.passAhead()
	}
}

// fromClient takes bytes of an open tunnel from downstream; last: it sends no
// more.
func (x *exchange) fromClient(b []byte, last bool) {
	if x.ended {
		return
	}
	x.lastActivity = x.w.loop.Now()
	x.Record.BytesReceived += uint64(len(b))
	if x.web.on {
		b = x.fromWebClient(b)
	}
	x.main.sendData(b, last)
	if last {
		x.clientEnded = true
		if x.halfEnded() {
			return
		}
	}
	x.closeWebSocket()
}

// fromUpstream takes bytes of an open tunnel from upstream.
func (x *exchange) fromUpstream(b []byte, last bool) {
	if x.ended {
		return
	}
	x.lastActivity = x.w.loop.Now()
	if x.web.on {
		b = x.fromWebServer(b)
	}
	x.Record.BytesSent += uint64(len(b))
	x.main.complete = last
	x.down.sendData(x, b, last)
	if last {
		x.upstreamEnded = true
		if x.halfEnded() {
			return
		}
	}
	x.closeWebSocket()
}

// halfEnded: one direction has ended. With both, the tunnel has; it reports whether.
func (x *exchange) halfEnded() bool {
	if !x.clientEnded || !x.upstreamEnded {
		return false
	}
	x.responseEnded()
	return true
}

// tunnelBroken: the connection to the endpoint failed. The client sees a reset
// too, unless the upstream had said all it had to say.
func (x *exchange) tunnelBroken() {
	if x.ended {
		return
	}
	x.broken = !x.upstreamEnded
	x.on.stats.rqRxReset++
	x.fail(&failureTerminatedStarted)
}

// startTunnel implements tunneler. What the client has sent ahead is presented
// now.
func (d *downstreamConn) startTunnel() {
	d.tunnel, d.keepAlive, d.framing = true, false, http1.FramingClose
	if d.retire != 0 { // drained already
		d.retire = d.w.upgradeLeavesAt(d.listener)
		d.ensure(d.retire)
	}
	if d.conn.Unconsumed() > 0 {
		d.conn.Redeliver()
	}
}

// tunnelDue ends a tunnel whose drain time is over.
func (d *downstreamConn) tunnelDue(now int64, next *int64) bool {
	switch {
	case !d.tunnel || d.x == nil || d.retire == 0:
	case now < d.retire:
		*next = min(*next, d.retire)
	default:
		return d.endTunnel(now, next)
	}
	return false
}

// endTunnel ends the tunnel, or begins its end. It reports whether it is over.
func (d *downstreamConn) endTunnel(now int64, next *int64) bool {
	t, over := d.x.leaveWebSocket()
	if t > 0 {
		d.retire = now + int64(t)
		*next = min(*next, d.retire)
		return false
	}
	if !over {
		d.w.stats.upgradesDrained++
		d.x.fail(&failureDrained)
	}
	return true
}

// tunnelTime is how long a tunnel goes on in a drain. A part of the drain time is
// left for its end, which the process may not outlive.
func (w *worker) tunnelTime() int64 { return int64(w.proxy.options.DrainTime) * 7 / 8 }

// upgradeLeavesAt is when a tunnel ends that opens on a connection which was told to go:
// in a drain, no later than TCP connections that were there when it began.
func (w *worker) upgradeLeavesAt(l *listener) int64 {
	now := w.loop.Now()
	at := now + w.tunnelTime()
	if l.drains.Load() && w.drainEnd > now {
		at = min(at, w.drainEnd)
	}
	return at
}

// startTunnel implements tunneler.
func (u *upstreamConn) startTunnel() { u.tunnel = true }

// tunnelData passes on what came for an open tunnel.
func (u *upstreamConn) tunnelData(in []byte) int {
	if a := u.a; a != nil {
		a.x.fromUpstream(in, false)
	}
	return len(in)
}

// Tunnel implements codec.Sink: the response's head, which was dispatched, has
// opened the tunnel, or the attempt is over. Anything else is a filter that kept
// the head, and nobody is there for the bytes.
func (u *upstreamConn) Tunnel(uint32) error {
	if u.a != nil && !u.tunnel {
		return errSwitchedEarly
	}
	return nil
}

var (
	_ tunneler = (*downstreamConn)(nil)
	_ tunneler = (*upstreamConn)(nil)
)
