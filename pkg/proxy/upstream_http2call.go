// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// http2Call is the stream of one attempt on an http2Up.
type http2Call struct {
	u        *http2Up
	id       uint32   // 0 before the request begins
	a        *attempt // nil once it let go
	written  uint64   // of the connection, before the request
	withheld int      // received, and not credited to the peer as downstream is slow
	held     bool     // the response is paused
	blocked  bool     // the peer's windows are shut
	over     bool     // the request was sent to its end
	tunnel   bool     // what comes and goes is no HTTP any more
	received uint64   // of the stream's frames
	sent     uint64

	tail             int   // bytes that waited at the last look; 0: the tunnel goes on, or is none
	tailDue, tailEnd int64 // when to look next, and for the last time

	// What came behind a head that a filter holds. It is no more than the windows
	// that the peer was given.
	behind      []byte
	trailer     *codec.Header
	behindLast  bool
	behindThere bool
}

var _ upstream = (*http2Call)(nil)

// bindShared gives the attempt a stream of u, which is usable.
func (u *http2Up) bindShared(a *attempt) {
	w := u.pool.on.w
	c := w.http2Calls.take()
	if c == nil {
		c = new(http2Call)
	}
	*c = http2Call{u: u, a: a}
	u.bound = append(u.bound, c)
	u.requests++
	u.used = true
	a.up = c
}

// note implements upstream.
func (c *http2Call) note(r *record.Record) {
	r.UpstreamProtocol = codec.HTTP2
	r.UpstreamConnectionID, r.UpstreamLocal = c.u.conn.ID(), c.u.conn.LocalAddr()
}

// sendHead implements upstream.
func (c *http2Call) sendHead(h *codec.RequestHead, last bool) {
	conn := c.u.conn
	c.unbind()
	if h.Upgrade && !c.u.codec.ExtendedConnect() {
		c.over = true
		c.a.fails(&failureNoExtended)
		return
	}
	id, ok := c.u.codec.NewStream()
	if !ok { // GOAWAY came meanwhile
		c.over = true
		c.a.fails(&failureRefused)
		return
	}
	c.id = id
	c.u.calls[id] = c
	if len(c.u.calls) == 2 {
		conn.Gather(true)
	}
	c.written = outPlace(conn)
	conn.Commit(c.u.codec.AppendRequest(conn.Reserve(h.Size()+512), c.id, h, last))
	c.sent = outPlace(conn) - c.written
	c.over = last
}

func (c *http2Call) unbind() {
	if i := slices.Index(c.u.bound, c); i >= 0 {
		c.u.bound = slices.Delete(c.u.bound, i, i+1)
	}
}

// sendData implements upstream. What the peer's windows do not permit stays with
// the codec, and downstream is paused.
func (c *http2Call) sendData(chunk []byte, last bool) {
	if c.over {
		return
	}
	c.over = last
	conn := c.u.conn
	from := outPlace(conn)
	defer func() { c.sent += wireSince(from, outPlace(conn)) }()
	for {
		n := min(len(chunk), frameRoom)
		end := n == len(chunk)
		conn.Commit(c.u.codec.AppendData(conn.Reserve(n+frameHead), c.id, chunk[:n], last && end))
		if chunk = chunk[n:]; end {
			break
		}
	}
	if a := c.a; !c.blocked && a != nil && c.u.codec.Queued(c.id) > 0 {
		c.blocked = true
		if a.shadow {
			a.overflow()
		} else {
			a.x.hold(true)
		}
	}
}

// sendTrailer implements upstream.
func (c *http2Call) sendTrailer(h *codec.Header) {
	if c.over {
		return
	}
	c.over = true
	conn := c.u.conn
	conn.Commit(c.u.codec.AppendTrailer(conn.Reserve(h.Size()+64), c.id, h))
}

// hold implements upstream: no credit means no more data.
func (c *http2Call) hold(on bool) {
	c.held = on
	switch {
	case on:
	case c.behindThere:
		c.u.pool.on.w.replayLater(c) // behind the head, which comes first
	case c.withheld > 0:
		c.u.codec.Consumed(c.id, c.withheld)
		c.withheld = 0
		c.u.flushLater()
	}
}

// keepBehind keeps what came behind a head that a filter holds, and reports
// whether there is such a head.
func (c *http2Call) keepBehind(chunk []byte, last bool, trailer *codec.Header) bool {
	if !c.behindThere && (c.a.shadow || !c.a.x.wait.on) {
		return false
	}
	c.behindThere = true
	c.behind = append(c.behind, chunk...)
	c.behindLast = last
	if trailer != nil {
		c.trailer = new(codec.Header)
		c.trailer.CopyFrom(trailer)
	}
	return true
}

// replay passes on what was kept.
func (c *http2Call) replay() {
	a := c.a
	if a == nil || !c.behindThere || c.held || a.x.wait.on {
		return
	}
	kept, last, trailer := c.behind, c.behindLast, c.trailer
	c.behind, c.trailer, c.behindThere = nil, nil, false
	if len(kept) > 0 || last {
		c.pass(kept, last)
	}
	switch {
	case trailer == nil || c.a != a:
	case c.tunnel:
		c.misused()
	default:
		a.responseTrailer(trailer)
	}
	if c.a == a {
		c.hold(c.held)
	}
}

// wire implements upstream: the frames of the stream.
func (c *http2Call) wire() (received, sent uint64) { return c.received, c.sent }

// full implements upstream.
func (c *http2Call) full() bool { return c.blocked || c.u.conn.AboveWatermark() }

// finish implements upstream: a stream that is not at its end is cut short, and
// the others on the connection go on. What was sent through a tunnel arrives.
func (c *http2Call) finish(complete bool) {
	u := c.u
	c.a = nil
	switch {
	case c.id == 0:
		c.unbind()
	case complete && c.over && u.calls[c.id] == c && c.leavesTail():
		u.flushLater()
		u.rest()
		return
	case u.calls[c.id] == c:
		delete(u.calls, c.id)
		fallthrough
	default:
		if !complete || !c.over {
			u.codec.Reset(c.id, http2.Cancel)
		}
	}
	c.free()
	u.flushLater()
	u.rest()
}
