// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// downstream is the side of an exchange that asked: an HTTP/1 connection, a stream of
// an HTTP/2 connection, or this process itself (SubmitOffLoop).
type downstream interface {
	// sendInformational forwards a 1xx.
	sendInformational(x *exchange, h *codec.ResponseHead)
	// sendHead starts the response; last: no body follows.
	sendHead(x *exchange, last bool)
	// sendData sends a piece of the body.
	sendData(x *exchange, chunk []byte, last bool)
	// sendTrailer ends the body with trailers.
	sendTrailer(x *exchange, h *codec.Header)
	// abort ends a response that has begun and cannot be completed, so that its
	// recipient sees that it is not whole.
	abort(x *exchange)
	// holdRequest pauses or resumes the request's body.
	holdRequest(x *exchange, hold bool)
	// full: more waits to be read by the peer than the response may add to.
	full() bool
	// wire returns the bytes of this exchange so far.
	wire() (received, sent uint64)
	// done: the exchange has ended and lets go of its downstream side.
	done(x *exchange)
}

// downstreamConn is an HTTP/1 connection from a downstream peer.
type downstreamConn struct {
	// set once
	w        *worker
	conn     *reactor.Conn
	listener *listener
	chain    *chain
	security *record.Security // nil: plaintext
	opened   *managerCounters // where the connection is counted, whatever becomes of its chain

	dec     http1.RequestDecoder
	x       *exchange // nil between requests
	timer   reactor.Timer
	due     int64 // when the timer fires
	idle    int64 // since when: the last activity between requests
	started int64 // accepted
	// headSince is when the head that is being read began; 0: none.
	headSince int64
	retire    int64 // when to close for good, its chain having gone; 0: not
	requests  uint32
	held      bool // we paused reading
	closing   bool
	keepAlive bool // of the response being sent
	framing   http1.Framing
	newborn   bool // the head was read and the exchange not started
	tunnel    bool // its request has become a tunnel: what comes is no HTTP any more
	looped    bool // it is refused: the sidecar has dialled it

	received uint64 // bytes of the request that is being read
	sentFrom uint64 // place of the output where the exchange began
	counted  byteCount

	kept filter.ConnectionState

	prev, next *downstreamConn
}

// newDownstream: the time of the first head runs from since, when c was accepted.
func (w *worker) newDownstream(c *reactor.Conn, l *listener, ch *chain, m *manager, since int64) *downstreamConn {
	d := &downstreamConn{w: w, conn: c, listener: l, chain: ch, dec: http1.NewRequestDecoder(m.limits)}
	d.started, d.idle, d.headSince = since, since, since
	d.timer.Target = d
	d.ensure(since + int64(m.res.RequestHeadersTimeout))
	if d.retire = w.leaveAt(l, ch); d.retire != 0 {
		d.ensure(d.retire)
	}
	w.downs.add(d)
	d.opened = &m.stats.on[w.index]
	d.opened.cxTotal++
	d.opened.cxActive++
	return d
}

// ensure makes the timer fire at t at the latest. A timer that fires earlier
// finds nothing due and arms itself again, so that a request costs no timer.
func (d *downstreamConn) ensure(t int64) {
	if d.timer.Armed() && d.due <= t {
		return
	}
	d.due = t
	d.w.loop.Schedule(&d.timer, time.Duration(max(0, t-d.w.loop.Now())))
}

// OnTimer looks at what is due: the head, the idle time, the connection's age.
func (d *downstreamConn) OnTimer(*reactor.Timer) {
	m := d.chain.manager.Load()
	d.w.loop.Blame(d.conn)
	now := d.w.loop.Now()
	next := int64(1 << 62)
	if d.headSince != 0 && m.res.RequestHeadersTimeout > 0 {
		due := d.headSince + int64(m.res.RequestHeadersTimeout)
		if now >= due {
			d.headTimeout(m)
			return
		}
		next = min(next, due)
	}
	if t := d.w.connectionIdle(m.res.IdleTimeout); d.x == nil && t > 0 {
		due := d.idle + int64(t)
		if now >= due {
			m.stats.on[d.w.index].cxIdleTimeout++
			d.shut()
			return
		}
		next = min(next, due)
	}
	if d.tunnelDue(now, &next) {
		return
	}
	if d.retire != 0 && d.x == nil {
		if now >= d.retire {
			d.shut()
			return
		}
		next = min(next, d.retire)
	}
	if m.res.MaxConnectionDuration > 0 {
		due := d.started + int64(m.res.MaxConnectionDuration)
		if now >= due && d.x == nil {
			d.shut()
			return
		}
		next = min(next, max(due, now+int64(time.Second)))
	}
	if next < 1<<62 {
		d.ensure(next)
	}
}

// headTimeout answers a peer that did not complete its head in time: 408 where
// it began one, and silence where it sent nothing.
func (d *downstreamConn) headTimeout(m *manager) {
	m.stats.on[d.w.index].rqHeaderTimeout++
	if !d.dec.Head() {
		d.shut()
		return
	}
	d.received = uint64(d.conn.Unconsumed())
	d.refuse(m, &failureHeadTimeout, "request_header_timeout")
}

// shut closes the connection between requests.
func (d *downstreamConn) shut() {
	d.closing = true
	d.conn.CloseAfterFlush(0)
}

// OnConnect is not called for accepted connections.
func (d *downstreamConn) OnConnect(*reactor.Conn) {}

// OnData decodes requests: one at a time, what is pipelined behind it waits.
func (d *downstreamConn) OnData(c *reactor.Conn, in []byte) int {
	d.countBytes()
	if d.requests == 0 && d.comesBack() {
		return len(in)
	}
	if d.requests == 0 && in[0] == http2.Preface[0] && d.dec.Idle() {
		if m := d.chain.manager.Load(); speaks(c, m) == resource.CodecAuto {
			yes, maybe := http2.IsPreface(in)
			switch {
			case yes:
				return d.becomeHTTP2(m, in)
			case maybe:
				return 0 // the time for the head goes on
			}
		}
	}
	if d.w.shed != 0 && d.shedHTTP1() {
		return len(in)
	}
	total := 0
	for {
		if d.closing {
			return total + len(in)
		}
		if d.tunnel {
			d.received += uint64(len(in))
			d.x.fromClient(in, false)
			return total + len(in)
		}
		if d.dec.Done() {
			if d.x != nil || d.conn.AboveWatermark() {
				return total // pipelined: it waits for the response, and for its reader
			}
			d.dec.NextMessage()
			d.received = 0
		}
		n, err := d.dec.Decode(in, &d.w.reqHead, d)
		total, in = total+n, in[n:]
		d.received += uint64(n)
		if err != nil {
			d.received += uint64(len(in))
			d.protocolError(err)
			return total + len(in)
		}
		if d.newborn {
			d.newborn = false
			d.x.start()
		}
		if n == 0 || len(in) == 0 {
			break
		}
	}
	if d.dec.Head() && d.headSince == 0 {
		d.headSince = d.w.loop.Now()
		if t := d.chain.manager.Load().res.RequestHeadersTimeout; t > 0 {
			d.ensure(d.headSince + int64(t))
		}
	}
	return total
}

// RequestHead implements codec.Sink. The exchange starts when the read that
// brought its head is decoded, so that a short body is there with it.
func (d *downstreamConn) RequestHead(_ uint32, h *codec.RequestHead, last bool) error {
	m := d.chain.manager.Load()
	d.headSince = 0
	d.requests++
	x := d.begin(m)
	x.Request.CopyFrom(h)
	x.Record.RequestHeaderBytes = uint64(h.Size())
	if last {
		x.requestEnded()
	}
	d.newborn = true
	return nil
}

// Data implements codec.Sink.
func (d *downstreamConn) Data(_ uint32, chunk []byte, last bool) error {
	if d.x != nil {
		d.x.requestData(chunk, last)
	}
	return nil
}

// Trailer implements codec.Sink.
func (d *downstreamConn) Trailer(_ uint32, h *codec.Header) error {
	if d.x != nil {
		d.x.requestTrailer(h)
	}
	return nil
}

// ResponseHead, Informational and Tunnel are not what a request decoder emits.
func (d *downstreamConn) ResponseHead(uint32, *codec.ResponseHead, bool) error { return nil }

// Informational implements codec.Sink.
func (d *downstreamConn) Informational(uint32, *codec.ResponseHead) error { return nil }

// Tunnel implements codec.Sink.
func (d *downstreamConn) Tunnel(uint32) error { return nil }

// protocolError answers bytes that are no request and closes.
func (d *downstreamConn) protocolError(err error) {
	m := d.chain.manager.Load()
	m.stats.on[d.w.index].rqProtocolError++
	e, ok := err.(*http1.Error)
	if !ok {
		e = &http1.Error{Status: 400, Detail: "http1.codec_error"}
	}
	if x := d.x; x != nil && x.responseStarted {
		// The response is under way: nothing can be said any more.
		x.end(&failureDownstreamProtocol)
		d.closing = true
		d.conn.CloseAfterFlush(m.res.DelayedCloseTimeout)
		return
	}
	f := failureDownstreamProtocol
	f.Status = e.Status
	d.refuse(m, &f, e.Detail)
}

// refuse answers what never became a request, or stopped being one, and closes.
func (d *downstreamConn) refuse(m *manager, f *failure, detail string) {
	x := d.x
	if x == nil {
		x = d.begin(m)
		x.badRequest = true
	}
	d.newborn = false
	d.headSince = 0
	x.Request.KeepAlive = false
	x.Record.Details = detail
	x.fail(f)
}

// sendInformational implements downstream.
func (d *downstreamConn) sendInformational(x *exchange, h *codec.ResponseHead) {
	if x.Request.Protocol == codec.HTTP10 {
		return // RFC 9110 §15.2
	}
	b := d.conn.Reserve(h.Size() + 64)
	d.conn.Commit(http1.AppendInformational(b, h))
}

// sendHead implements downstream.
func (d *downstreamConn) sendHead(x *exchange, last bool) {
	keep := x.Request.KeepAlive && x.requestDone && !d.mustClose(x) || x.switches()
	d.framing, d.keepAlive = http1.FramingFor(&x.Response, x.Request.Protocol, keep)
	b := d.conn.Reserve(x.Response.Size() + 256)
	n := len(b)
	b = http1.AppendResponse(b, &x.Response, x.Request.Protocol, keep)
	x.Record.ResponseHeaderBytes = uint64(len(b) - n)
	if last && d.framing == http1.FramingChunked {
		b = http1.AppendLastChunk(b, nil)
	}
	d.conn.Commit(b)
}

// mustClose reports whether this response is to be the connection's last.
func (d *downstreamConn) mustClose(x *exchange) bool {
	m := x.manager
	switch {
	case x.Request.Method == codec.MethodConnect || x.tunnel == tunnelOffered && d.conn.Unconsumed() > 0:
		// What the client sent ahead was meant for the tunnel, and is no request
		// ("Security Considerations for Optimistic Protocol Transitions in HTTP/1.1").
		return true
	case d.listener.drains.Load() || d.chain.removed.Load() || d.conn.EOF() || d.w.loop.Crowded():
		return true
	case m.res.MaxRequestsPerConn > 0 && int(d.requests) >= m.res.MaxRequestsPerConn:
		return true
	case m.res.MaxConnectionDuration > 0 && d.w.loop.Now()-d.started >= int64(m.res.MaxConnectionDuration):
		return true
	}
	return x.Request.KeepAlive && d.w.endsKeepAlive(m, d.listener)
}

// sendData implements downstream.
func (d *downstreamConn) sendData(_ *exchange, chunk []byte, last bool) {
	d.countBytes()
	switch d.framing {
	case http1.FramingNone:
	case http1.FramingChunked:
		if len(chunk) > 0 {
			d.conn.Commit(http1.AppendChunkHeader(d.conn.Reserve(20), len(chunk)))
			d.conn.Write(chunk)
			d.conn.Commit(http1.AppendChunkEnd(d.conn.Reserve(2)))
		}
		if last {
			d.conn.Commit(http1.AppendLastChunk(d.conn.Reserve(8), nil))
		}
	default:
		d.conn.Write(chunk)
		if last && d.tunnel {
			d.conn.CloseWrite()
		}
	}
}

// sendTrailer implements downstream.
func (d *downstreamConn) sendTrailer(x *exchange, h *codec.Header) {
	if d.framing == http1.FramingChunked {
		d.conn.Commit(http1.AppendLastChunk(d.conn.Reserve(h.Size()+16), h))
	}
}

// abort implements downstream: never a clean end. Where only the close tells the
// end of the body, it must be a reset; else what was sent may still arrive.
func (d *downstreamConn) abort(x *exchange) {
	d.closing = true
	if d.framing == http1.FramingClose && (!d.tunnel || x.broken) {
		d.conn.Abort()
		return
	}
	d.conn.CloseAfterFlush(x.manager.res.DelayedCloseTimeout)
}

// holdRequest implements downstream.
func (d *downstreamConn) holdRequest(_ *exchange, hold bool) {
	if hold == d.held {
		return
	}
	d.held = hold
	if hold {
		d.conn.Pause()
	} else {
		d.conn.Resume()
	}
}

// full implements downstream.
func (d *downstreamConn) full() bool { return d.conn.AboveWatermark() }

// done implements downstream: the connection takes its next request, or closes.
func (d *downstreamConn) done(x *exchange) {
	d.x = nil
	d.countBytes()
	d.holdRequest(x, false)
	if d.conn.Closed() {
		return
	}
	m := d.chain.manager.Load()
	if !d.keepAlive || d.closing {
		d.closing = true
		d.conn.CloseAfterFlush(m.res.DelayedCloseTimeout)
		return
	}
	d.idle = d.w.loop.Now()
	if d.conn.EOF() {
		d.shut()
		return
	}
	if d.retire != 0 {
		d.ensure(d.retire)
	}
	if t := d.w.connectionIdle(m.res.IdleTimeout); t > 0 {
		d.ensure(d.idle + int64(t))
	}
	if d.conn.Unconsumed() > 0 {
		d.conn.Redeliver()
	}
}

// OnEOF implements reactor.Handler. A peer that half-closes in the middle of an
// exchange is taken for gone, as Envoy and nginx do.
func (d *downstreamConn) OnEOF(*reactor.Conn) {
	if d.x == nil {
		d.shut()
		return
	}
	if d.tunnel {
		d.x.fromClient(nil, true)
		return
	}
	d.gone()
	d.closing = true
	d.conn.CloseAfterFlush(0)
}

// OnHighWater implements reactor.Handler: the peer reads slower than the
// upstream sends.
func (d *downstreamConn) OnHighWater(*reactor.Conn) {
	if d.x != nil {
		d.x.holdResponse(true)
	}
}

// OnLowWater implements reactor.Handler.
func (d *downstreamConn) OnLowWater(*reactor.Conn) {
	if d.x != nil {
		d.x.holdResponse(false)
	} else if d.conn.Unconsumed() > 0 {
		d.conn.Redeliver()
	}
}

// OnClose implements reactor.Handler.
func (d *downstreamConn) OnClose(c *reactor.Conn, _ error) {
	d.closing = true
	d.timer.Stop()
	defer d.left()
	d.gone()
	var flags record.Flags
	var details string
	if d.looped {
		flags, details = record.UH, detailsLoop
	}
	d.listener.config.Load().log.accepted(d.w, c, d.started, d.chain.name, flags, details, d.security)
}

// gone ends the exchange of a peer that went away.
func (d *downstreamConn) gone() {
	if x := d.x; x != nil {
		d.newborn = false
		x.Record.Flags |= record.DC
		x.end(&failureDownstreamGone)
	}
}
