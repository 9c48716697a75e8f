// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// frameRoom is what a piece of a body gets in a connection's output; a frame's
// head goes before it.
const (
	frameRoom = 16000
	frameHead = 9
)

// sendInformational implements downstream.
func (s *http2Stream) sendInformational(_ *exchange, h *codec.ResponseHead) {
	c := s.c.conn
	c.Commit(s.c.codec.AppendInformational(c.Reserve(h.Size()+64), s.id, h))
}

// sendHead implements downstream.
func (s *http2Stream) sendHead(x *exchange, last bool) {
	c := s.c.conn
	b := c.Reserve(x.Response.Size() + 256)
	n := len(b)
	agreed := x.extended && x.switches()
	if agreed {
		x.Response.Status = 200 // RFC 8441 §4
	}
	b = s.c.codec.AppendResponse(b, s.id, &x.Response, last)
	if agreed {
		x.Response.Status = 101
	}
	x.Record.ResponseHeaderBytes = uint64(len(b) - n)
	s.sent += uint64(len(b) - n)
	c.Commit(b)
	if !s.c.pressed && s.c.asked == 0 {
		s.c.pressed = s.c.w.endsKeepAlive(x.manager, s.c.listener)
	}
}

// sendData implements downstream. What the peer's windows do not permit stays
// with the codec, and the upstream is paused.
func (s *http2Stream) sendData(x *exchange, chunk []byte, last bool) {
	c := s.c.conn
	for {
		n := min(len(chunk), frameRoom)
		end := n == len(chunk)
		c.Commit(s.c.codec.AppendData(c.Reserve(n+frameHead), s.id, chunk[:n], last && end))
		s.sent += uint64(n + frameHead)
		if chunk = chunk[n:]; end {
			break
		}
	}
	s.block(x)
}

// block pauses the upstream if the peer's windows are shut.
func (s *http2Stream) block(x *exchange) {
	if !s.blocked && s.c.codec.Queued(s.id) > 0 {
		s.blocked = true
		x.holdResponse(true)
	}
}

// sendTrailer implements downstream.
func (s *http2Stream) sendTrailer(_ *exchange, h *codec.Header) {
	c := s.c.conn
	c.Commit(s.c.codec.AppendTrailer(c.Reserve(h.Size()+64), s.id, h))
}

// abort implements downstream: a reset is never taken for the end of a body.
func (s *http2Stream) abort(x *exchange) {
	if s.tunnel != nil {
		s.endTunnel(x)
		return
	}
	s.c.codec.Reset(s.id, http2.InternalError)
}

// holdRequest implements downstream: no credit means no more data.
func (s *http2Stream) holdRequest(_ *exchange, hold bool) {
	s.held = hold
	if !hold && s.withheld > 0 {
		s.c.codec.Consumed(s.id, s.withheld)
		s.withheld = 0
		s.c.flushLater()
	}
}

// wire implements downstream: the frames of the stream.
func (s *http2Stream) wire() (received, sent uint64) { return s.received, s.sent }

// full implements downstream.
func (s *http2Stream) full() bool { return s.blocked || s.c.conn.AboveWatermark() }

// done implements downstream. A request that is not wanted to its end is cut
// short; a response that the peer has not taken yet goes on by itself.
func (s *http2Stream) done(x *exchange) {
	c := s.c
	s.x = nil
	c.unborn(s)
	switch {
	case !x.responseDone:
		c.codec.Reset(s.id, http2.InternalError) // if it was not reset before
	case c.codec.Queued(s.id) > 0:
		s.blocked, s.since = true, c.w.loop.Now()
		if !x.requestDone {
			c.codec.StopRequest(s.id)
		}
		c.arm()
		return
	case !x.requestDone, s.tunnel != nil && !s.tunnel.ended:
		c.codec.Reset(s.id, http2.NoError) // RFC 9113 §8.1
	}
	if c.streams[s.id] == s {
		delete(c.streams, s.id)
	}
	c.release(s)
	c.rest()
	c.flushLater()
}

// flushLater writes what the codec has to say with this tick's output. Inside of
// Decode that happens by itself.
func (c *http2Conn) flushLater() {
	if !c.closing && !c.reading {
		c.flush()
	}
}

// take makes a stream of a free one.
func (c *http2Conn) take(id uint32) *http2Stream {
	s := c.w.http2Streams.take()
	if s == nil {
		s = new(http2Stream)
	}
	*s = http2Stream{c: c, id: id}
	return s
}

// release gives a stream back.
func (c *http2Conn) release(s *http2Stream) {
	c.unborn(s)
	*s = http2Stream{}
	c.w.freeHTTP2Stream(s)
}
