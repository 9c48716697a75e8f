// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// http2Up is an HTTP/2 connection to an endpoint. Attempts share it, each with a
// stream of its own.
type http2Up struct {
	pool  *hostPool
	conn  *reactor.Conn
	codec *http2.Conn
	calls map[uint32]*http2Call
	bound []*http2Call // whose requests have not begun: numbers are given in order

	timer    reactor.Timer // connect timeout, then idle time and age
	due      int64
	idleAt   int64 // since when no stream is open
	used     bool  // a stream was opened since
	openedAt int64
	requests uint32

	open      bool  // and settled
	reading   bool  // inside of Decode
	heard     int64 // when something came last
	counted   byteCount
	tails     int // of calls, those without an attempt
	timedOut  bool
	immediate bool // connect itself failed
	closing   bool
	limits    *breaker.Limits       // holds a connection of them
	secure    *resource.UpstreamTLS // what it was made with
}

// newHTTP2Up makes a connection that is being dialled.
func (p *hostPool) newHTTP2Up(l *breaker.Limits) *http2Up {
	u := &http2Up{pool: p, codec: http2.New(http2.Client, p.on.http2), calls: map[uint32]*http2Call{}, limits: l, secure: p.secure}
	u.timer.Target = u
	p.shared = append(p.shared, u)
	return u
}

// usable reports whether the connection takes another stream.
func (u *http2Up) usable() bool {
	return u.open && !u.closing && u.secure == u.pool.secure && !u.conn.Closed() && !u.conn.EOF() && u.codec.Room() > len(u.bound)
}

// OnConnect implements reactor.Handler. The connection is open once the endpoint's
// SETTINGS have come, in the time for connecting: before, nobody knows how many
// streams it takes, and those beyond would be refused.
func (u *http2Up) OnConnect(*reactor.Conn) { u.flush() }

// settled opens the connection to attempts.
func (u *http2Up) settled() {
	if u.secure != u.pool.secure { // it may carry nothing any more
		u.giveUp()
		return
	}
	u.open = true
	u.openedAt = u.pool.on.w.loop.Now()
	u.idleAt, u.heard = u.openedAt, u.openedAt
	u.timer.Stop()
	u.pool.connecting--
	u.pool.serveShared(u)
	u.arm()
}

// giveUp closes a connection that has not opened; those that wait get another.
func (u *http2Up) giveUp() {
	u.closing = true
	u.conn.Close(nil)
}

// OnData implements reactor.Handler.
func (u *http2Up) OnData(_ *reactor.Conn, in []byte) int {
	u.countBytes()
	if u.closing {
		return len(in)
	}
	u.reading, u.heard = true, u.pool.on.w.loop.Now()
	n, err := u.codec.Decode(in, u.pool.on.w.loop.Now(), u)
	u.reading = false
	if err != nil {
		u.pool.on.stats.protocolError++
		u.pool.on.w.stats.flood(err)
		u.flush()
		u.end(&failureUpstreamProtocol)
		return len(in)
	}
	u.flush()
	if !u.open && u.codec.PeerSettled() {
		u.settled()
	}
	u.rest()
	return n
}

// end closes the connection; what runs on it fails with f.
func (u *http2Up) end(f *failure) {
	u.closing = true
	u.failAll(f)
	u.conn.CloseAfterFlush(0)
}

// failAll fails the attempts on a connection that is gone. What the endpoint has
// not seen a byte of is tried elsewhere.
func (u *http2Up) failAll(f *failure) {
	for _, c := range slices.Clone(u.bound) {
		c.a.fails(&failureUnsent)
	}
	for id, c := range inOrder(u.calls) {
		if c.tail > 0 {
			c.tailOver()
			continue
		}
		delete(u.calls, id)
		a := c.a
		if a == nil {
			continue
		}
		switch {
		case a.complete && !a.tunnels() || a.failed != nil:
		case a.gotHead:
			a.fails(f.withinResponse())
		case u.conn.WrittenBytes() <= c.written:
			a.fails(&failureUnsent)
		default:
			a.fails(f)
		}
	}
}

// flush writes what the codec has to say, all of it before the connection closes.
func (u *http2Up) flush() {
	w := u.pool.on.w
	for u.codec.HasPending() && (!u.conn.AboveWatermark() || u.closing || u.codec.Err() != nil) {
		w.frames = u.codec.AppendPending(w.frames[:0])
		u.conn.Write(w.frames)
		if u.codec.Err() != nil {
			return
		}
	}
}

func (u *http2Up) flushLater() {
	if !u.closing && !u.reading {
		u.flush()
	}
}

// rest is called when a stream may have ended: others may have waited for it, and
// a connection that drains closes with the last.
func (u *http2Up) rest() {
	if u.closing || u.reading {
		return
	}
	if u.codec.Draining() || u.pool.host.Gone() || u.pool.on.c.spec.Load() == nil || u.secure != u.pool.secure || u.worn() {
		u.pool.unshare(u)
		if u.unused() {
			u.closing = true
			u.codec.GoAway(false, http2.NoError)
			u.flush()
			u.conn.CloseAfterFlush(0)
		}
		return
	}
	if u.unused() {
		u.conn.Gather(false)
		if u.used { // else it is an answer to our PING, say
			u.used = false
			u.idleAt = u.pool.on.w.loop.Now()
		}
		u.arm()
	}
	u.pool.serveShared(u)
}

func (u *http2Up) unused() bool { return len(u.calls) == 0 && len(u.bound) == 0 }

// worn reports whether the connection has done its share of requests or of time.
func (u *http2Up) worn() bool {
	res := u.pool.on.spec.res
	return res.MaxRequestsPerConn > 0 && int(u.requests) >= res.MaxRequestsPerConn ||
		res.MaxConnDuration > 0 && u.pool.on.w.loop.Now()-u.openedAt >= int64(res.MaxConnDuration)
}

func (u *http2Up) call(id uint32) *attempt {
	if c := u.calls[id]; c != nil {
		return c.a
	}
	return nil
}

// RequestHead and Tunnel are not what a client's codec emits.
func (u *http2Up) RequestHead(uint32, *codec.RequestHead, bool) error { return nil }

// Tunnel implements codec.Sink.
func (u *http2Up) Tunnel(uint32) error { return nil }

// Informational implements codec.Sink.
func (u *http2Up) Informational(id uint32, h *codec.ResponseHead) error {
	if a := u.call(id); a != nil {
		a.informational(h)
	}
	return nil
}

// ResponseHead implements codec.Sink.
func (u *http2Up) ResponseHead(id uint32, h *codec.ResponseHead, last bool) error {
	if c := u.calls[id]; c != nil && c.a != nil {
		if h.BodyLength >= 0 && !last && h.HasKnown(codec.NameTrailer) {
			h.BodyLength = codec.BodyChunked // HTTP/1 has no trailers behind a length
		}
		c.received += uint64(h.Size()) // before HPACK: what it took of the wire nobody can tell by stream
		agreed := c.agrees(h)
		c.a.responseHead(h, last && !agreed)
		if agreed && last && u.calls[id] == c && !c.keepBehind(nil, true, nil) {
			c.pass(nil, true)
		}
	}
	return nil
}

// Data implements codec.Sink.
func (u *http2Up) Data(id uint32, chunk []byte, last bool) error {
	c := u.calls[id]
	if c == nil || c.a == nil {
		u.codec.Consumed(id, len(chunk))
		return nil
	}
	c.received += uint64(len(chunk) + frameHead)
	if c.keepBehind(chunk, last, nil) {
		c.withheld += len(chunk)
		return nil
	}
	c.pass(chunk, last)
	if u.calls[id] == c && c.held {
		c.withheld += len(chunk)
	} else {
		u.codec.Consumed(id, len(chunk))
	}
	return nil
}

// Trailer implements codec.Sink.
func (u *http2Up) Trailer(id uint32, h *codec.Header) error {
	if c := u.calls[id]; c != nil && c.a != nil {
		c.received += uint64(h.Size())
		switch {
		case c.tunnel:
			c.misused()
		case !c.keepBehind(nil, false, h):
			c.a.responseTrailer(h)
		}
	}
	return nil
}

// Reset implements http2.Sink.
func (u *http2Up) Reset(id uint32, code http2.ErrorCode, local bool) {
	c := u.calls[id]
	switch {
	case c == nil:
		return
	case c.tail > 0:
		c.tailOver()
		return
	}
	delete(u.calls, id)
	a := c.a
	if a == nil || a.complete && !a.tunnels() {
		return // the rest of the request is not wanted, or of the response by us
	}
	if local { // for what it sent
		u.pool.on.stats.protocolError++
		code = http2.ProtocolError
	}
	a.fails(streamReset(code, a.gotHead))
}

// Drained implements http2.Sink.
func (u *http2Up) Drained(id uint32) {
	c := u.calls[id]
	if c == nil || !c.blocked {
		return
	}
	c.blocked = false
	if c.tail > 0 {
		c.tailOver()
	} else if a := c.a; a != nil && !a.shadow && !u.conn.AboveWatermark() {
		a.x.hold(false)
	}
}

// GoAway implements http2.Sink: no more streams on this connection.
func (u *http2Up) GoAway(uint32, http2.ErrorCode) { u.pool.unshare(u) }

// OnEOF implements reactor.Handler.
func (u *http2Up) OnEOF(*reactor.Conn) { u.conn.Close(nil) }

// OnHighWater implements reactor.Handler: the upstream reads slower than
// downstream sends. A mirror is not worth waiting for.
func (u *http2Up) OnHighWater(*reactor.Conn) {
	for _, c := range inOrder(u.calls) {
		switch a := c.a; {
		case a == nil:
		case a.shadow:
			a.overflow()
		default:
			a.x.hold(true)
		}
	}
}

// OnLowWater implements reactor.Handler.
func (u *http2Up) OnLowWater(*reactor.Conn) {
	u.flush()
	for _, c := range inOrder(u.calls) {
		if a := c.a; a != nil && !a.shadow && !c.blocked {
			a.x.hold(false)
		}
	}
}

// OnClose implements reactor.Handler.
func (u *http2Up) OnClose(_ *reactor.Conn, err error) {
	u.closing = true
	u.timer.Stop()
	u.countBytes()
	u.pool.unshare(u)
	if f, ok := mtls.Refused(err); ok && !u.open {
		err = f
	}
	u.pool.gone(connectionEnd{open: u.open, timedOut: u.timedOut, immediate: u.immediate, limits: u.limits, secure: u.secure, err: err})
	if err == reactor.ErrPanic {
		u.abandonAll()
		return
	}
	u.failAll(&failureReset)
}

// abandonAll ends all whose connection goes because a callback panicked.
func (u *http2Up) abandonAll() {
	for _, c := range slices.Clone(u.bound) {
		c.a.fails(&failureUnsent)
	}
	for id, c := range inOrder(u.calls) {
		if c.tail > 0 {
			c.tailOver()
			continue
		}
		delete(u.calls, id)
		if c.a != nil {
			c.a.abandon()
		}
	}
}

// OnTimer implements reactor.TimerTarget: the connect timeout, or the idle time.
func (u *http2Up) OnTimer(*reactor.Timer) {
	if !u.open {
		u.timedOut = true
		u.conn.Close(nil)
		return
	}
	now := u.pool.on.w.loop.Now()
	if idle := int64(u.pool.on.spec.res.IdleTimeout); u.unused() && idle > 0 && now >= u.idleAt+idle {
		u.pool.on.stats.cxIdleTimeout++
		u.pool.unshare(u)
		u.closing = true
		u.codec.GoAway(false, http2.NoError)
		u.flush()
		u.conn.CloseAfterFlush(0)
		return
	}
	if !keepAlive(u.codec, &u.pool.on.spec.res.HTTP2Options, u.heard, now) {
		u.pool.on.stats.http2KeepAlive++
		u.end(&failureReset)
		return
	}
	u.dropTails(now)
	u.flush()
	u.rest()
	u.arm()
}

// arm makes the timer fire for the idle time and the connection's age.
func (u *http2Up) arm() {
	if u.closing {
		return
	}
	res, next := u.pool.on.spec.res, int64(1<<62)
	if res.IdleTimeout > 0 && u.unused() {
		next = u.idleAt + int64(res.IdleTimeout)
	}
	w := u.pool.on.w
	if age := u.openedAt + int64(res.MaxConnDuration); res.MaxConnDuration > 0 && age > w.loop.Now() {
		next = min(next, age)
	}
	next = min(next, keepAliveAt(u.codec, &res.HTTP2Options, u.heard), u.tailsDue())
	if next < 1<<62 && (!u.timer.Armed() || next < u.due) {
		u.due = next
		w.loop.Schedule(&u.timer, time.Duration(next-w.loop.Now()))
	}
}

func (u *http2Up) countBytes() {
	s := &u.pool.on.stats
	u.counted.add(u.conn, &s.rxBytes, &s.txBytes)
}
