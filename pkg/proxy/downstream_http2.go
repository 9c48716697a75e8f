// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// http2Conn is an HTTP/2 connection from a downstream peer. Each of its streams is
// the downstream side of an exchange; what they write leaves together, at the end
// of the tick or with what the loop's next events add (reactor.Conn.Gather).
type http2Conn struct {
	// set once
	w        *worker
	conn     *reactor.Conn
	listener *listener
	chain    *chain
	security *record.Security // nil: plaintext
	codec    *http2.Conn
	opened   *managerCounters // where the connection is counted

	streams map[uint32]*http2Stream
	newborn []*http2Stream // their heads were read; from born on their exchanges are not started
	born    int
	later   bool // what is left of them starts in the next tick
	timer   reactor.Timer
	due     int64 // when the timer fires
	idle    int64 // since when there is no stream
	started int64 // accepted
	stuck   int64 // since when the peer owes the rest of what it has begun; 0: it does not
	retire  int64 // when to close for good, its chain having gone; 0: not
	// tunnelsEnd is when those are to end that are open still; 0: not.
	tunnelsEnd int64
	asked      int64 // when GOAWAY was sent; 0: not
	served     uint32
	closing    bool
	reading    bool  // inside of Decode
	begun      bool  // something has come
	heard      int64 // when something came last
	counted    byteCount
	kept       filter.ConnectionState
	pressed    bool // it ends because the process is overloaded
}

// http2Stream is a stream of an http2Conn.
type http2Stream struct {
	c        *http2Conn
	id       uint32
	x        *exchange // nil once it has ended; the stream may still be written
	withheld int       // received, and not credited to the peer as the upstream is slow
	held     bool      // the request is paused
	blocked  bool      // the peer's windows are shut
	fresh    bool      // in c.newborn
	received uint64    // of the stream's frames; heads as they are without HPACK
	sent     uint64
	since    int64        // when the exchange ended with bytes left to write
	tunnel   *http2Tunnel // nil: it asks for none
}

var _ downstream = (*http2Stream)(nil)

// newHTTP2Conn takes a connection over from d, which speaks HTTP/2.
func (d *downstreamConn) newHTTP2Conn(m *manager) *http2Conn {
	w := d.w
	c := &http2Conn{
		w: w, conn: d.conn, listener: d.listener, chain: d.chain, security: d.security,
		codec: http2.New(http2.Server, m.http2), streams: map[uint32]*http2Stream{}, opened: d.opened,
		started: d.started, idle: w.loop.Now(), heard: w.loop.Now(), retire: d.retire, counted: d.counted,
	}
	c.timer.Target = c
	d.timer.Stop()
	w.downs.remove(d)
	w.http2s = append(w.http2s, c)
	c.opened.cxHTTP2++
	c.opened.cxHTTP2Active++
	c.watch(0, 0)
	c.arm()
	return c
}

// OnConnect is not called for accepted connections.
func (c *http2Conn) OnConnect(*reactor.Conn) {}

// OnData implements reactor.Handler. Exchanges start when all that was read is
// decoded, so that short bodies are there with their heads, or later (startNewborn).
func (c *http2Conn) OnData(_ *reactor.Conn, in []byte) int {
	c.countBytes()
	if c.closing || c.shedHTTP2() {
		return len(in)
	}
	c.reading, c.heard = true, c.w.loop.Now()
	n, err := c.codec.Decode(in, c.w.loop.Now(), c)
	c.reading = false
	if err != nil {
		c.protocolError(err)
		return len(in)
	}
	c.startNewborn()
	c.flush()
	c.watch(n, len(in)-n)
	return n
}

// counts are this worker's of the connection manager.
func (c *http2Conn) counts() *managerCounters { return &c.chain.manager.Load().stats.on[c.w.index] }

// protocolError ends the connection: GOAWAY says why, and all streams end.
func (c *http2Conn) protocolError(err error) {
	counts, detail := c.counts(), "http2.codec_error"
	counts.rqProtocolError++
	if e, ok := err.(*http2.Error); ok {
		detail = e.Detail
	}
	if c.w.stats.flood(err) {
		c.w.flooders.note(c.conn.RemoteAddr().Addr(), c.w.loop.Now())
	}
	c.closing = true
	c.endAll(record.DPE, detail)
	c.flush()
	c.shut()
}

// shut closes once what is written has left, or the peer has had its time for it.
func (c *http2Conn) shut() {
	c.closing = true
	c.conn.CloseAfterFlush(c.chain.manager.Load().res.DelayedCloseTimeout)
}

// endAll ends the exchanges of a connection that is over.
func (c *http2Conn) endAll(flag record.Flags, detail string) {
	for _, s := range inOrder(c.streams) {
		if x := s.x; x != nil {
			x.Record.Flags |= flag
			f := failureDownstreamGone
			if detail != "" {
				f.Details = detail
			}
			x.end(&f)
		} else {
			c.release(s)
		}
	}
	clear(c.streams)
}

// flush writes what the codec has to say. What it keeps while the peer does not
// read is bounded by the codec.
func (c *http2Conn) flush() {
	for c.codec.HasPending() && (!c.conn.AboveWatermark() || c.codec.Err() != nil) {
		b := c.codec.AppendPending(c.w.frames[:0])
		c.w.frames = b
		c.conn.Write(b)
		if c.codec.Err() != nil {
			return
		}
	}
	if !c.closing && c.codec.Closed() && !c.codec.HasPending() {
		c.shut()
	}
}

// RequestHead implements codec.Sink.
func (c *http2Conn) RequestHead(id uint32, h *codec.RequestHead, last bool) error {
	c.served++
	s := c.take(id)
	x := c.w.newExchange(c.chain.manager.Load(), s)
	x.Request.CopyFrom(h)
	x.Request.KeepAlive = true
	if h.BodyLength >= 0 && !last && h.HasKnown(codec.NameTrailer) {
		x.Request.BodyLength = codec.BodyChunked // HTTP/1 has no trailers behind a length
	}
	x.Record.Protocol = codec.HTTP2
	x.Record.ConnectionID = c.conn.ID()
	x.Record.Remote = c.conn.RemoteAddr()
	x.Record.DirectRemote = c.conn.DirectRemoteAddr()
	x.Record.Security = c.security
	x.Record.Local = c.conn.LocalAddr()
	x.Record.FilterChain = c.chain.name
	x.Connection = &c.kept
	x.Record.RequestHeaderBytes = uint64(h.Size())
	s.received = uint64(h.Size())
	s.x = x
	c.streams[id] = s
	if len(c.streams) == 2 {
		c.conn.Gather(true)
	}
	c.newborn, s.fresh = append(c.newborn, s), true
	switch {
	case h.Method == codec.MethodConnect:
		s.asksTunnel(x, last)
	case last:
		x.requestEnded()
	}
	return nil
}

// Data implements codec.Sink.
func (c *http2Conn) Data(id uint32, chunk []byte, last bool) error {
	s := c.streams[id]
	if s == nil || s.x == nil {
		c.codec.Consumed(id, len(chunk))
		return nil
	}
	s.received += uint64(len(chunk) + frameHead)
	if s.tunnel != nil {
		s.tunnelData(chunk, last)
		return nil
	}
	s.x.requestData(chunk, last)
	if s.held {
		s.withheld += len(chunk)
	} else {
		c.codec.Consumed(id, len(chunk))
	}
	return nil
}

// Trailer implements codec.Sink.
func (c *http2Conn) Trailer(id uint32, h *codec.Header) error {
	switch s := c.streams[id]; {
	case s == nil || s.x == nil:
	case s.tunnel != nil:
		s.misused()
	default:
		s.x.requestTrailer(h)
	}
	return nil
}

// Reset implements http2.Sink: the peer wants no more of the stream, or has broken
// its rules.
func (c *http2Conn) Reset(id uint32, code http2.ErrorCode, local bool) {
	s := c.streams[id]
	if local {
		c.counts().rqProtocolError++
	}
	if s == nil {
		return
	}
	delete(c.streams, id)
	if x := s.x; x != nil {
		f := failureDownstreamGone
		x.Record.Flags |= record.DC
		if local {
			f = failureDownstreamProtocol
			x.Record.Flags = x.Record.Flags&^record.DC | record.DPE
			if e := c.codec.ResetCause(); e != nil {
				f.Details = e.Detail
			}
		}
		x.end(&f)
		return
	}
	c.release(s)
}

// Drained implements http2.Sink.
func (c *http2Conn) Drained(id uint32) {
	s := c.streams[id]
	if s == nil || !s.blocked {
		return
	}
	s.blocked = false
	switch {
	case s.x == nil:
		delete(c.streams, id)
		c.release(s)
		c.rest()
	case !c.conn.AboveWatermark():
		s.x.holdResponse(false)
	}
}

// GoAway implements http2.Sink: the peer opens no more streams; those that are
// open go on.
func (c *http2Conn) GoAway(uint32, http2.ErrorCode) { c.codec.GoAway(false, http2.NoError) }

// ResponseHead, Informational and Tunnel are not what a server's codec emits.
func (c *http2Conn) ResponseHead(uint32, *codec.ResponseHead, bool) error { return nil }

// Informational implements codec.Sink.
func (c *http2Conn) Informational(uint32, *codec.ResponseHead) error { return nil }

// Tunnel implements codec.Sink.
func (c *http2Conn) Tunnel(uint32) error { return nil }

// OnEOF implements reactor.Handler.
func (c *http2Conn) OnEOF(*reactor.Conn) {
	c.endAll(record.DC, "")
	c.shut()
}

// OnHighWater implements reactor.Handler: the peer reads slower than the upstreams
// send.
func (c *http2Conn) OnHighWater(*reactor.Conn) {
	for _, s := range inOrder(c.streams) {
		if s.x != nil {
			s.x.holdResponse(true)
		}
	}
}

// OnLowWater implements reactor.Handler.
func (c *http2Conn) OnLowWater(*reactor.Conn) {
	c.flush()
	for _, s := range inOrder(c.streams) {
		if s.x != nil && !s.blocked {
			s.x.holdResponse(false)
		}
	}
	c.startNewborn()
}

// OnClose implements reactor.Handler.
func (c *http2Conn) OnClose(conn *reactor.Conn, _ error) {
	c.closing = true
	c.timer.Stop()
	defer c.left()
	c.endAll(record.DC, "")
	c.listener.config.Load().log.accepted(c.w, conn, c.started, c.chain.name, 0, "", c.security)
}

// left takes the connection off the books, whatever happens to its exchanges.
func (c *http2Conn) left() {
	c.countBytes()
	if i := slices.Index(c.w.http2s, c); i >= 0 {
		c.w.http2s = slices.Delete(c.w.http2s, i, i+1)
	}
	c.listener.left(c.chain)
	c.opened.cxActive--
	c.opened.cxHTTP2Active--
	c.opened.cxDestroy++
}

// rest is called when a stream has ended: the last one starts the idle time, and
// lets a connection that drains close.
func (c *http2Conn) rest() {
	c.drainIfDue()
	if len(c.streams) == 0 {
		c.conn.Gather(false)
		c.idle = c.w.loop.Now()
		c.arm()
	}
}

// drainIfDue starts the graceful end of a connection whose time has come: the
// first GOAWAY excludes no stream, so that none that is on its way is lost.
func (c *http2Conn) drainIfDue() {
	if c.asked != 0 || c.closing {
		return
	}
	m := c.chain.manager.Load()
	switch {
	case c.listener.drains.Load() || c.chain.removed.Load() || c.w.loop.Crowded() || c.pressed:
	case m.res.MaxRequestsPerConn > 0 && int(c.served) >= m.res.MaxRequestsPerConn:
	case m.res.MaxConnectionDuration > 0 && c.w.loop.Now()-c.started >= int64(m.res.MaxConnectionDuration):
	default:
		return
	}
	c.asked = c.w.loop.Now()
	c.codec.GoAway(true, http2.NoError)
	c.arm()
}

// end ends the connection with all that is under way on it.
func (c *http2Conn) end(why string) {
	c.codec.GoAway(false, http2.NoError)
	c.flush()
	c.endAll(record.DC, why)
	c.shut()
}

// leave starts the graceful end: at retire, or with the last stream that is open
// then; that of tunnels at tunnelsEnd.
func (c *http2Conn) leave(retire, tunnelsEnd int64) {
	c.retire, c.tunnelsEnd = retire, tunnelsEnd
	c.drainIfDue()
	c.flush()
	c.arm()
}

// goAwayWait is how long the answer to the first GOAWAY may take.
const goAwayWait = time.Second

// arm makes the timer fire for what comes next.
func (c *http2Conn) arm() {
	c.ensure(c.soonest())
}

// ensure makes the timer fire at t at the latest.
func (c *http2Conn) ensure(t int64) {
	if c.closing { // a timer would keep it
		return
	}
	if t < 1<<62 && (!c.timer.Armed() || t < c.due) {
		c.due = t
		c.w.loop.Schedule(&c.timer, time.Duration(max(0, t-c.w.loop.Now())))
	}
}

// soonest is the time at which something is due.
func (c *http2Conn) soonest() int64 {
	m, next := c.chain.manager.Load(), int64(1<<62)
	if t := m.res.RequestHeadersTimeout; c.stuck != 0 && t > 0 {
		next = min(next, c.stuck+int64(t))
	}
	if t := c.w.connectionIdle(m.res.IdleTimeout); len(c.streams) == 0 && t > 0 {
		next = min(next, c.idle+int64(t))
	}
	if t := m.res.MaxConnectionDuration; t > 0 && c.asked == 0 {
		next = min(next, c.started+int64(t))
	}
	if c.asked != 0 && !c.codec.Closed() {
		next = min(next, c.asked+int64(goAwayWait))
	}
	if c.retire != 0 {
		next = min(next, c.retire)
	}
	if c.tunnelsEnd != 0 && c.tunnels() {
		next = min(next, c.tunnelsEnd)
	}
	next = min(next, keepAliveAt(c.codec, &m.res.HTTP2, c.heard))
	for _, s := range c.streams {
		if t := m.res.StreamIdleTimeout; s.x == nil && t > 0 {
			next = min(next, s.since+int64(t))
		}
	}
	return next
}

// OnTimer looks at what is due: the rest of a frame, the idle time, the
// connection's age, the end of its drain, streams that the peer does not read.
func (c *http2Conn) OnTimer(*reactor.Timer) {
	c.w.loop.Blame(c.conn)
	if c.closing {
		return
	}
	m, now := c.chain.manager.Load(), c.w.loop.Now()
	s := &m.stats.on[c.w.index]
	switch {
	case c.stuck != 0 && m.res.RequestHeadersTimeout > 0 && now >= c.stuck+int64(m.res.RequestHeadersTimeout):
		s.rqHeaderTimeout++
		c.end("request_header_timeout")
		return
	case c.retire != 0 && now >= c.retire,
		len(c.streams) == 0 && m.res.IdleTimeout > 0 && now >= c.idle+int64(c.w.connectionIdle(m.res.IdleTimeout)):
		if c.retire == 0 || now < c.retire {
			s.cxIdleTimeout++
		}
		if c.asked == 0 {
			c.codec.GoAway(false, http2.NoError)
		}
		if len(c.streams) == 0 {
			c.flush()
			c.shut()
			return
		}
		c.retire = 0
	}
	if c.asked != 0 && now >= c.asked+int64(goAwayWait) {
		c.codec.Finish()
	}
	if c.tunnelsEnd != 0 && now >= c.tunnelsEnd {
		c.endTunnels()
	}
	if !keepAlive(c.codec, &m.res.HTTP2, c.heard, now) {
		c.w.stats.http2KeepAlive++
		c.endAll(record.DC, "http2.ping_timeout")
		c.shut()
		return
	}
	for id, s := range inOrder(c.streams) {
		if t := m.res.StreamIdleTimeout; s.x == nil && t > 0 && now >= s.since+int64(t) {
			c.codec.Reset(id, http2.Cancel)
			delete(c.streams, id)
			c.release(s)
		}
	}
	c.drainIfDue()
	c.flush()
	if !c.closing {
		c.arm()
	}
}
