// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// tunnelConn is a connection to an endpoint that CONNECT is terminated for: the
// answer is 200 once it is there, and it carries nothing but the tunnel's bytes.
// It belongs to one attempt and to no pool.
type tunnelConn struct {
	on     *clusterOn
	host   *lb.Host
	limits *breaker.Limits // holds a connection of them
	conn   *reactor.Conn
	a      *attempt      // nil once the attempt is over
	timer  reactor.Timer // connect timeout

	open      bool
	timedOut  bool
	immediate bool // connect itself failed
	held      bool // we paused reading
	tunnel    bool // the client has its answer
	ended     bool // the end of the endpoint's bytes was passed on
	counted   byteCount
	secure    *resource.UpstreamTLS // what it was made with
}

// dialTunnel connects to the attempt's host; the exchange is woken with the
// connection, or with the failure.
func (on *clusterOn) dialTunnel(a *attempt) filter.Verdict {
	w := on.w
	if a.dialling != nil {
		return filter.Wait
	}
	if !a.limits.TryConnection() {
		on.stats.cxOverflow++
		return a.x.attemptFailed(a, &failureOverflow)
	}
	if !w.loop.MayDial() {
		w.makePlace()
	}
	t := &tunnelConn{on: on, host: a.host, limits: a.limits, a: a, secure: on.transport(a.host).res}
	t.timer.Target = t
	c, err := on.dial(a.host, "", t)
	if err != nil {
		a.limits.ReleaseConnection()
		on.stats.cxConnectFail++
		return a.x.attemptFailed(a, connectFailure(err, true))
	}
	t.conn, t.immediate = c, c.Closed()
	a.dialling = t
	introduce(c, on.spec.res, a.x.Record.Remote, a.x.Record.Local)
	c.SetWatermark(watermark(on.spec.res.BufferLimit))
	w.loop.Schedule(&t.timer, on.spec.res.ConnectTimeout)
	a.host.Conns.Add(1)
	a.host.Stats.CxTotal.Add(1)
	on.stats.cxTotal++
	on.stats.cxActive++
	return filter.Wait
}

// OnSecure implements mtls.Owner.
func (t *tunnelConn) OnSecure(*reactor.Conn, *mtls.Session) reactor.Handler { return t }

// OnInsecure implements mtls.Owner: the connection never opened.
func (t *tunnelConn) OnInsecure(c *reactor.Conn, f mtls.Failure) { t.OnClose(c, connectError(f)) }

// OnTimer is the connect timeout.
func (t *tunnelConn) OnTimer(*reactor.Timer) {
	t.timedOut = true
	t.conn.Close(nil)
}

// outdated reports whether another connection would be made in another way by now.
func (t *tunnelConn) outdated() bool { return t.secure != t.on.transport(t.host).res }

// OnConnect implements reactor.Handler.
func (t *tunnelConn) OnConnect(*reactor.Conn) {
	if t.outdated() {
		t.conn.Close(nil)
		return
	}
	t.open = true
	t.timer.Stop()
	if a := t.a; a != nil {
		a.dialling, a.up = nil, t
		t.on.w.wake(a.x)
	}
}

// OnData implements reactor.Handler. An endpoint that speaks first is heard when
// the client knows that there is a tunnel.
func (t *tunnelConn) OnData(_ *reactor.Conn, in []byte) int {
	if !t.tunnel {
		return 0
	}
	t.countBytes()
	if t.a != nil {
		t.a.x.fromUpstream(in, false)
		t.endsIfDue(0)
	}
	return len(in)
}

// endsIfDue passes the end of the endpoint's bytes on, behind the last of them.
func (t *tunnelConn) endsIfDue(left int) {
	if t.a != nil && t.tunnel && !t.ended && left == 0 && t.conn.EOF() {
		t.ended = true
		t.a.x.fromUpstream(nil, true)
	}
}

// OnEOF implements reactor.Handler.
func (t *tunnelConn) OnEOF(*reactor.Conn) { t.endsIfDue(t.conn.Unconsumed()) }

// OnHighWater implements reactor.Handler.
func (t *tunnelConn) OnHighWater(*reactor.Conn) {
	if t.a != nil {
		t.a.x.hold(true)
	}
}

// OnLowWater implements reactor.Handler.
func (t *tunnelConn) OnLowWater(*reactor.Conn) {
	if t.a != nil {
		t.a.x.hold(false)
	}
}

// OnClose implements reactor.Handler.
func (t *tunnelConn) OnClose(_ *reactor.Conn, err error) {
	t.timer.Stop()
	t.countBytes()
	on := t.on
	t.host.Conns.Add(-1)
	t.limits.ReleaseConnection()
	on.stats.cxActive--
	on.stats.cxDestroy++
	again := !t.open && t.outdated() // which says nothing of the endpoint
	if !t.open && !again {
		t.host.Stats.CxConnectFail.Add(1)
		on.stats.cxConnectFail++
		if t.timedOut {
			on.stats.cxConnectTimeout++
		}
	}
	switch a := t.a; {
	case a == nil:
	case err == reactor.ErrPanic:
		a.x.abandon()
	case again:
		t.a, a.dialling = nil, nil
		on.w.wake(a.x) // and dials anew
	case t.tunnel:
		a.x.tunnelBroken()
	default:
		t.a, a.dialling = nil, nil
		a.fails(t.failure(err))
	}
	on.w.lostCluster(on)
}

// failure is why there is no tunnel.
func (t *tunnelConn) failure(err error) *failure {
	switch {
	case t.open:
		return &failureUnsent
	case t.timedOut:
		return &failureConnectTimeout
	}
	return connectFailure(err, t.immediate)
}

// note implements upstream.
func (t *tunnelConn) note(r *record.Record) {
	r.UpstreamProtocol = codec.HTTP11
	r.UpstreamConnectionID, r.UpstreamLocal = t.conn.ID(), t.conn.LocalAddr()
}

// sendHead implements upstream: nothing is sent, and the answer is ours. The
// exchange finds it when it comes to wait for one.
func (t *tunnelConn) sendHead(*codec.RequestHead, bool) {
	a := t.a
	a.gotHead, a.status = true, 200
	x := a.x
	x.Record.UpstreamResponse = x.since()
	h := &x.Response
	h.Reset()
	h.Status, h.Protocol, h.KeepAlive = 200, codec.HTTP11, true
	h.NoBody, h.BodyLength = true, codec.BodyChunked
	x.hasResponse, x.responseLast = true, false
}

// sendData implements upstream.
func (t *tunnelConn) sendData(chunk []byte, last bool) {
	t.countBytes()
	t.conn.Write(chunk)
	if last {
		t.conn.CloseWrite()
	}
}

// sendTrailer implements upstream; tunnels have none.
func (t *tunnelConn) sendTrailer(*codec.Header) {}

// full implements upstream.
func (t *tunnelConn) full() bool { return t.conn.AboveWatermark() }

// wire implements upstream.
func (t *tunnelConn) wire() (received, sent uint64) { return t.conn.ReadBytes(), outPlace(t.conn) }

func (t *tunnelConn) countBytes() { t.counted.add(t.conn, &t.on.stats.rxBytes, &t.on.stats.txBytes) }

// hold implements upstream.
func (t *tunnelConn) hold(on bool) {
	if t.held == on {
		return
	}
	t.held = on
	if on {
		t.conn.Pause()
	} else {
		t.conn.Resume()
	}
}

// startTunnel implements tunneler.
func (t *tunnelConn) startTunnel() {
	t.tunnel = true
	if t.conn.Unconsumed() > 0 {
		t.conn.Redeliver()
		return
	}
	t.endsIfDue(0)
}

// finish implements upstream.
func (t *tunnelConn) finish(bool) {
	t.a = nil
	if !t.open {
		t.conn.Close(nil)
		return
	}
	t.conn.CloseAfterFlush(0)
}

var _ tunneler = (*tunnelConn)(nil)
