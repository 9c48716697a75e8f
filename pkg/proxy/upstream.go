// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// upstream is the side of an attempt that answers: an HTTP/1 connection that it
// has for itself, or one of many streams of an HTTP/2 connection. The attempt
// calls down; what comes up reaches it as head, data, trailer or failure.
type upstream interface {
	// note writes down which connection it is.
	note(r *record.Record)
	// sendHead starts the request; last: no body and no trailers follow.
	sendHead(h *codec.RequestHead, last bool)
	// sendData sends a piece of the body. After a head that was the last, the empty
	// last piece says nothing new.
	sendData(chunk []byte, last bool)
	// sendTrailer ends the body with trailers.
	sendTrailer(h *codec.Header)
	// hold pauses or resumes the response at its source.
	hold(on bool)
	// full: more waits to be read by the peer than the request may add to.
	full() bool
	// madeWith is what the connection is secured with; nil: plaintext.
	madeWith() *resource.UpstreamTLS
	// wire returns the bytes since sendHead.
	wire() (received, sent uint64)
	// finish lets go of the attempt; complete: the response has ended.
	finish(complete bool)
}

// upstreamConn is an HTTP/1 connection to an endpoint, in its pool.
type upstreamConn struct {
	pool *hostPool
	conn *reactor.Conn
	dec  http1.ResponseDecoder
	a    *attempt // nil between requests

	timer       reactor.Timer // connect timeout, then idle time
	due         int64
	idleAt      int64
	openedAt    int64
	requests    uint32
	written     uint64 // place of the output where the request begins
	readFrom    uint64 // place of the input
	chunked     bool   // the body goes out in chunks
	open        bool
	idle        bool // in pool.idle
	held        bool // we paused reading
	requestOver bool // the request on it was sent to its end
	decoding    bool // inside of Decode
	excess      bool // bytes came behind the response
	timedOut    bool
	immediate   bool                  // connect itself failed
	limits      *breaker.Limits       // holds a connection of them
	secure      *resource.UpstreamTLS // what it was made with
	closing     bool
	counted     byteCount
	tunnel      bool // what comes and goes is no HTTP any more
}

// OnConnect implements reactor.Handler.
func (u *upstreamConn) OnConnect(*reactor.Conn) {
	if u.secure != u.pool.secure { // it may carry nothing any more
		u.closing = true
		u.conn.Close(nil)
		return
	}
	u.open = true
	u.openedAt = u.pool.on.w.loop.Now()
	u.timer.Stop()
	u.pool.connected(u)
}

// OnData implements reactor.Handler.
func (u *upstreamConn) OnData(_ *reactor.Conn, in []byte) int {
	w := u.pool.on.w
	u.countBytes()
	if a := u.a; a != nil && !a.gotHead && (!a.streaming || u.conn.WrittenBytes() <= u.written) {
		u.unsolicited(a)
		return len(in)
	}
	if u.tunnel {
		return u.tunnelData(in)
	}
	total := 0
	for len(in) > 0 {
		if u.closing {
			return total + len(in)
		}
		u.decoding = true
		n, err := u.dec.Decode(in, &w.respHead, u)
		u.decoding = false
		total, in = total+n, in[n:]
		if err == errHeld {
			return total // it comes again when the filter goes on
		}
		if err != nil {
			u.broken()
			return total + len(in)
		}
		if u.dec.Done() {
			u.excess = len(in) > 0
			if u.a == nil {
				u.released()
			} // else a filter holds the response: finish releases
			return total + len(in)
		}
		if n == 0 {
			break
		}
	}
	return total
}

// errHeld stops the decoder behind a head that a filter holds.
var errHeld = errors.New("held by a filter")

// unsolicited: bytes came that cannot answer the request, since nothing of it has
// left. They are excess of an earlier response, or the peer's notice that it
// closes; the request goes elsewhere.
func (u *upstreamConn) unsolicited(a *attempt) {
	u.closing = true
	u.pool.on.stats.protocolError++
	a.fails(&failureUnsent)
	u.conn.Close(nil)
}

// broken: the peer sent what is no response.
func (u *upstreamConn) broken() {
	u.closing = true
	if a := u.a; a != nil {
		u.pool.on.stats.protocolError++
		a.fails(&failureUpstreamProtocol)
	}
	u.conn.Close(nil)
}

// released: a response has ended, and the exchange let go. The connection is
// used again only if both messages are complete and nothing came behind.
func (u *upstreamConn) released() {
	if u.excess || !u.requestOver || !u.dec.Reusable() || u.conn.EOF() {
		u.closing = true
		u.conn.Close(nil)
		return
	}
	u.hold(false)
	u.pool.put(u)
}

// RequestHead is not what a response decoder emits.
func (u *upstreamConn) RequestHead(uint32, *codec.RequestHead, bool) error { return nil }

// Informational implements codec.Sink.
func (u *upstreamConn) Informational(_ uint32, h *codec.ResponseHead) error {
	if u.a != nil {
		u.a.informational(h)
	}
	return nil
}

// ResponseHead implements codec.Sink.
func (u *upstreamConn) ResponseHead(_ uint32, h *codec.ResponseHead, last bool) error {
	a := u.a
	if a == nil {
		return nil
	}
	if last && a.x.tunnel == tunnelOffered {
		if err := a.x.judgeSwitch(h); err != nil {
			return err
		}
		last = !switching(h.Status, a.x.Request.Method)
	}
	a.responseHead(h, last)
	if u.a == a && !a.shadow && a.x.wait.on && !last {
		return errHeld
	}
	return nil
}

// Data implements codec.Sink.
func (u *upstreamConn) Data(_ uint32, chunk []byte, last bool) error {
	switch {
	case u.a == nil:
	case u.tunnel: // these came with the head
		u.a.x.fromUpstream(chunk, false)
	default:
		u.a.responseData(chunk, last)
	}
	return nil
}

// Trailer implements codec.Sink.
func (u *upstreamConn) Trailer(_ uint32, h *codec.Header) error {
	if u.a != nil {
		u.a.responseTrailer(h)
	}
	return nil
}

// OnEOF implements reactor.Handler.
func (u *upstreamConn) OnEOF(*reactor.Conn) {
	if u.tunnel {
		if u.a != nil {
			u.a.x.fromUpstream(nil, true)
		}
		return
	}
	if u.a != nil {
		started := u.dec.Started()
		if err := u.dec.EOF(u); err != nil {
			u.lost(started)
		}
	}
	u.closing = true
	u.conn.Close(nil)
}

// lost fails the attempt on a connection that ended without a whole response;
// started: a byte of it had come.
func (u *upstreamConn) lost(started bool) {
	a := u.a
	if a == nil || a.failed != nil {
		return
	}
	switch {
	case a.gotHead:
		a.fails(&failureResetStarted)
	case !a.streaming || u.conn.WrittenBytes() <= u.written:
		a.fails(&failureUnsent)
	case started:
		a.fails(&failureUpstreamProtocol) // a piece of a head is no answer
	default:
		a.fails(&failureReset)
	}
}

// OnHighWater implements reactor.Handler: the upstream reads slower than
// downstream sends. A mirror is not worth waiting for.
func (u *upstreamConn) OnHighWater(*reactor.Conn) {
	a := u.a
	switch {
	case a == nil:
	case a.shadow:
		a.overflow()
	default:
		a.x.hold(true)
	}
}

// OnLowWater implements reactor.Handler.
func (u *upstreamConn) OnLowWater(*reactor.Conn) {
	if a := u.a; a != nil && !a.shadow {
		a.x.hold(false)
	}
}

// OnClose implements reactor.Handler.
func (u *upstreamConn) OnClose(_ *reactor.Conn, err error) {
	u.closing = true
	u.timer.Stop()
	u.countBytes()
	u.pool.closed(u, err)
	if err == reactor.ErrPanic {
		if u.a != nil {
			u.a.abandon()
		}
		return
	}
	if u.tunnel {
		if u.a != nil {
			u.a.x.tunnelBroken()
		}
		return
	}
	if f := u.pool.refused(u.conn, err); f != nil && u.a != nil {
		u.a.fails(f)
		return
	}
	// An attempt whose response is complete, held by a filter, has lost nothing.
	if u.a != nil && !u.a.complete {
		u.lost(u.dec.Started())
	}
}

// OnTimer implements reactor.TimerTarget: the connect timeout, or the idle time.
func (u *upstreamConn) OnTimer(*reactor.Timer) {
	w := u.pool.on.w
	if !u.open {
		u.timedOut = true
		u.conn.Close(nil)
		return
	}
	idle := int64(u.pool.on.spec.res.IdleTimeout)
	if idle <= 0 || !u.idle {
		return // armed again when it is put back
	}
	if due := u.idleAt + idle; w.loop.Now() < due {
		u.ensure(due)
		return
	}
	u.pool.on.stats.cxIdleTimeout++
	u.pool.drop(u)
}

func (u *upstreamConn) ensure(t int64) {
	if u.timer.Armed() && u.due <= t {
		return
	}
	u.due = t
	w := u.pool.on.w
	w.loop.Schedule(&u.timer, time.Duration(t-w.loop.Now()))
}

// note implements upstream.
func (u *upstreamConn) note(r *record.Record) {
	r.UpstreamProtocol = codec.HTTP11
	r.UpstreamConnectionID, r.UpstreamLocal = u.conn.ID(), u.conn.LocalAddr()
}

// sendHead implements upstream.
func (u *upstreamConn) sendHead(h *codec.RequestHead, _ bool) {
	u.requests++
	if h.Upgrade {
		u.a.x.keyWebSocket()
		u.dec.ExpectUpgrade(h.Method)
	} else {
		u.dec.Expect(h.Method)
	}
	u.chunked = h.BodyLength == codec.BodyChunked
	u.requestOver = h.BodyLength == codec.BodyNone
	keep := h.KeepAlive
	h.KeepAlive = true // towards the upstream it is ours to decide
	u.conn.Commit(http1.AppendRequest(u.conn.Reserve(h.Size()+512), h))
	h.KeepAlive = keep
}

// sendData implements upstream.
func (u *upstreamConn) sendData(chunk []byte, last bool) {
	u.countBytes()
	c := u.conn
	if u.tunnel {
		c.Write(chunk)
		if last {
			c.CloseWrite()
		}
		return
	}
	switch {
	case !u.chunked:
		c.Write(chunk)
	case len(chunk) > 0:
		c.Commit(http1.AppendChunkHeader(c.Reserve(20), len(chunk)))
		c.Write(chunk)
		c.Commit(http1.AppendChunkEnd(c.Reserve(2)))
	}
	if last {
		u.sendTrailer(nil)
	}
}

// sendTrailer implements upstream.
func (u *upstreamConn) sendTrailer(h *codec.Header) {
	if u.chunked {
		n := 16
		if h != nil {
			n += h.Size()
		}
		u.conn.Commit(http1.AppendLastChunk(u.conn.Reserve(n), h))
	}
	u.requestOver = true
}

// full implements upstream.
func (u *upstreamConn) full() bool { return u.conn.AboveWatermark() }

// finish implements upstream: a connection with half a response is of no use.
func (u *upstreamConn) finish(complete bool) {
	u.countBytes()
	u.a = nil
	switch {
	case u.tunnel: // what was sent through it arrives
		u.closing = true
		u.conn.CloseAfterFlush(0)
	case !complete:
		u.closing = true
		u.conn.Close(nil)
	case !u.decoding:
		u.released()
	}
}

// hold implements upstream.
func (u *upstreamConn) hold(on bool) {
	if u.held == on {
		return
	}
	u.held = on
	if on {
		u.conn.Pause()
	} else {
		u.conn.Resume()
	}
}
