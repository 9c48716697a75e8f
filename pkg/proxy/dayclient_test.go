// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// dayClient is a connection to the proxy.
type dayClient struct {
	d      *day
	number int // of the day's connections
	p      *sim.Peer
	buf    []byte
	dec    http1.ResponseDecoder
	head   codec.ResponseHead
	h2     *http2.Conn

	todo    int                    // requests still to be begun
	queue   []*dayRequest          // HTTP/1: begun, in order
	streams map[uint32]*dayRequest // HTTP/2
	piped   bool
	last    bool // the proxy has said that the connection ends
	rude    bool // it ends or stops in the middle of something, or reads nothing
	over    bool
}

func (d *day) connect() {
	p, err := d.world.Dial(dayAddr)
	if err != nil {
		d.fail("%v", err)
	}
	d.sums.connections++
	rng := d.rng
	c := &dayClient{d: d, number: d.sums.connections, p: p, todo: 1 + rng.IntN(8), streams: map[uint32]*dayRequest{}, dec: http1.NewResponseDecoder(http1.Limits{}), piped: maybe(rng, 1, 4)}
	d.clients[c.number] = c
	p.OnData = c.onData
	p.OnEOF = func(*sim.Peer) { c.close() }
	p.OnError = func(*sim.Peer, error) { c.close() }
	if maybe(rng, 1, 3) {
		c.h2 = http2.New(http2.Client, http2.Limits{InitialStreamWindow: one[uint32](rng, 0, 3000), MaxConcurrentStreams: 8})
		c.flush()
		for range 1 + rng.IntN(4) {
			c.later(time.Duration(rng.IntN(30))*ms, c.nextStream)
		}
	} else {
		c.later(0, c.next)
	}
	if maybe(rng, 1, 4) {
		c.misbehave()
	}
}

// misbehave draws how the client goes, or stops reading.
func (c *dayClient) misbehave() {
	rng := c.d.rng
	at := time.Duration(rng.IntN(600)) * ms
	c.later(at, func() {
		switch c.rude = true; rng.IntN(6) {
		case 0:
			c.p.Close()
			c.close()
		case 1:
			c.p.Reset()
			c.close()
		case 2:
			c.p.CloseWrite()
			c.todo = 0
		case 3:
			c.p.Hold()
			c.later(time.Duration(rng.IntN(1500))*ms, c.p.Release)
		case 4:
			c.p.LimitReads(50 + rng.IntN(500))
		case 5: // gone without a word
			c.p.Hold()
			c.todo = 0
			for _, r := range c.pending() {
				r.forget()
			}
		}
	})
}

func (c *dayClient) pending() (list []*dayRequest) {
	list = append(list, c.queue...)
	for id := uint32(1); len(list) < len(c.queue)+len(c.streams); id += 2 {
		if r := c.streams[id]; r != nil {
			list = append(list, r)
		}
	}
	return list
}

// close is the connection's end.
func (c *dayClient) close() {
	if c.over {
		return
	}
	c.over = true
	delete(c.d.clients, c.number)
	if c.h2 == nil && len(c.queue) > 0 && c.queue[0].expecting {
		_ = c.dec.EOF(c)
	}
	for _, r := range c.pending() {
		r.broken()
	}
	c.p.Close()
}

func (c *dayClient) later(after time.Duration, f func()) {
	c.d.world.At(after, func() {
		if !c.over {
			c.d.traffic = c.d.world.Now()
			f()
		}
	})
}

// next begins the next request by HTTP/1.
func (c *dayClient) next() {
	rng := c.d.rng
	if c.last || c.rude && maybe(rng, 1, 2) {
		c.todo = 0
	}
	if c.todo == 0 {
		if len(c.queue) == 0 && maybe(rng, 1, 2) {
			c.close()
		}
		return // or it stays until the proxy closes it
	}
	c.todo--
	r := c.d.request(c)
	c.queue = append(c.queue, r)
	b := http1.AppendRequest(nil, r.head(rng))
	for at := 0; at < r.length; {
		to := min(r.length, at+1+rng.IntN(r.length))
		if r.chunked {
			b = http1.AppendChunk(b, r.text.appendTo(nil, at, to))
		} else {
			b = r.text.appendTo(b, at, to)
		}
		at = to
	}
	if r.chunked {
		b = http1.AppendLastChunk(b, r.trailer)
	}
	c.send(r, b, 1+rng.IntN(4)*rng.IntN(2))
}

// send writes a request in pieces. Behind the last, pipelining clients begin another.
func (c *dayClient) send(r *dayRequest, b []byte, pieces int) {
	rng := c.d.rng
	n := len(b)
	if pieces > 1 {
		n = 1 + rng.IntN(n)
	}
	if r.end != 0 { // answered before it was whole
		return
	}
	c.p.Write(b[:n])
	if b = b[n:]; len(b) > 0 {
		if maybe(rng, 1, 60) { // and no more of it
			c.rude = true
			return
		}
		c.later(time.Duration(rng.IntN(80))*ms, func() { c.send(r, b, pieces-1) })
		return
	}
	r.sent = true
	if c.piped {
		c.later(time.Duration(rng.IntN(10))*ms, c.next)
	}
}

func (c *dayClient) onData(_ *sim.Peer, b []byte) {
	c.d.traffic = c.d.world.Now()
	c.buf = append(c.buf, b...)
	for len(c.buf) > 0 && !c.over {
		var n int
		var err error
		if c.h2 != nil {
			n, err = c.h2.Decode(c.buf, int64(c.d.world.Now()), c)
			c.flush()
		} else {
			if c.d.plan.pressure && c.last && bytes.HasPrefix(failureOverloaded.Body, c.buf) {
				c.buf = nil // of an answer to HEAD that was given before its head was read
				return
			}
			if len(c.queue) == 0 {
				c.d.fail("a client that waits for nothing got %q", c.buf)
			}
			if r := c.queue[0]; !r.expecting {
				r.expecting = true
				if m := r.method; m == codec.MethodHead && !r.sent { // a part of a head has no method
					c.dec.Expect(codec.MethodGet)
				} else {
					c.dec.Expect(m)
				}
			}
			n, err = c.dec.Decode(c.buf, &c.head, c)
		}
		if err != nil {
			c.d.fail("a client got %q: %v", c.buf[:min(len(c.buf), 300)], err)
		}
		c.buf = append(c.buf[:0:0], c.buf[n:]...)
		if c.h2 == nil && c.dec.Done() && len(c.queue) > 0 && c.queue[0].expecting {
			c.answered()
		} else if n == 0 {
			return
		}
	}
}

// answered goes on behind a response by HTTP/1.
func (c *dayClient) answered() {
	r := c.queue[0]
	c.queue = c.queue[1:]
	whole := r.sent
	r.complete()
	if c.last = c.last || !c.head.KeepAlive; c.last || !whole {
		return // the proxy closes
	}
	if !c.piped {
		c.later(time.Duration(c.d.rng.IntN(60)*c.d.rng.IntN(4))*ms, c.next)
	}
}

func (c *dayClient) flush() {
	for c.h2.HasPending() && !c.over {
		c.p.Write(c.h2.AppendPending(nil))
	}
	if c.h2.Closed() {
		c.close()
	}
}

// nextStream begins the next request by HTTP/2.
func (c *dayClient) nextStream() {
	rng := c.d.rng
	if c.todo == 0 || c.h2.Draining() {
		c.todo = 0
		if len(c.streams) == 0 && maybe(rng, 1, 2) {
			c.h2.GoAway(false, http2.NoError)
			c.flush()
			c.close()
		}
		return
	}
	id, ok := c.h2.NewStream()
	if !ok {
		c.later(20*ms, c.nextStream)
		return
	}
	c.todo--
	r := c.d.request(c)
	r.sentHead = true
	c.streams[id] = r
	bare := r.length == 0 && r.trailer == nil
	c.p.Write(c.h2.AppendRequest(nil, id, r.head(rng), bare))
	if bare {
		r.sent = true
	} else {
		c.sendData(id, r, 0, 1+rng.IntN(4)*rng.IntN(2))
	}
	if maybe(rng, 1, 12) {
		c.later(time.Duration(rng.IntN(300))*ms, func() {
			if c.streams[id] == r {
				c.h2.Reset(id, http2.Cancel)
				delete(c.streams, id)
				r.broken()
				c.flush()
				c.later(0, c.nextStream)
			}
		})
	}
}

func (c *dayClient) sendData(id uint32, r *dayRequest, at, pieces int) {
	rng := c.d.rng
	switch {
	case c.streams[id] != r:
		return
	case c.h2.Queued(id) > 0:
		c.flush()
		c.later(2*ms, func() { c.sendData(id, r, at, pieces) })
		return
	case pieces > 1 && maybe(rng, 1, 60):
		c.rude = true // no more of it
		return
	}
	to := r.length
	if pieces > 1 {
		to = min(r.length, at+1+rng.IntN(max(r.length-at, 1)))
	}
	last := to == r.length && r.trailer == nil
	c.p.Write(c.h2.AppendData(nil, id, r.text.appendTo(nil, at, to), last))
	switch {
	case last:
		r.sent = true
	case to == r.length:
		c.p.Write(c.h2.AppendTrailer(nil, id, r.trailer))
		r.sent = true
	default:
		c.later(time.Duration(rng.IntN(80))*ms, func() { c.sendData(id, r, to, pieces-1) })
	}
	c.flush()
}

func (c *dayClient) of(stream uint32) *dayRequest {
	if c.h2 != nil {
		return c.streams[stream]
	}
	if len(c.queue) > 0 {
		return c.queue[0]
	}
	return nil
}

// ResponseHead implements codec.Sink.
func (c *dayClient) ResponseHead(stream uint32, h *codec.ResponseHead, last bool) error {
	if r := c.of(stream); r != nil {
		r.gotHead(h)
		if c.h2 != nil && last {
			c.streamEnded(stream, r)
		}
	}
	return nil
}

// Data implements codec.Sink.
func (c *dayClient) Data(stream uint32, chunk []byte, last bool) error {
	if c.h2 != nil {
		n := len(chunk)
		if maybe(c.d.rng, 1, 10) {
			c.later(time.Duration(c.d.rng.IntN(60))*ms, func() { c.h2.Consumed(stream, n); c.flush() })
		} else {
			c.h2.Consumed(stream, n)
		}
	}
	if r := c.of(stream); r != nil {
		r.gotData(chunk)
		if c.h2 != nil && last {
			c.streamEnded(stream, r)
		}
	}
	return nil
}

// Trailer implements codec.Sink.
func (c *dayClient) Trailer(stream uint32, h *codec.Header) error {
	if r := c.of(stream); r != nil {
		if got := h.Get("x-end"); got != nil && string(got) != strconv.FormatUint(r.id, 10) {
			c.d.fail("%s: trailers of %s", r, got)
		}
		if c.h2 != nil {
			c.streamEnded(stream, r)
		}
	}
	return nil
}

func (c *dayClient) streamEnded(stream uint32, r *dayRequest) {
	delete(c.streams, stream)
	r.complete()
	c.later(time.Duration(c.d.rng.IntN(60))*ms, c.nextStream)
}

// RequestHead is not what a client gets.
func (c *dayClient) RequestHead(uint32, *codec.RequestHead, bool) error {
	return errors.New("a request")
}

// Informational implements codec.Sink.
func (c *dayClient) Informational(uint32, *codec.ResponseHead) error { return nil }

// Tunnel implements codec.Sink.
func (c *dayClient) Tunnel(uint32) error { return errors.New("a tunnel") }

// Reset implements http2.Sink.
func (c *dayClient) Reset(stream uint32, code http2.ErrorCode, local bool) {
	r := c.streams[stream]
	if local {
		c.d.fail("the proxy broke a rule on the stream of %v: %v", r, c.h2.ResetCause())
	}
	if r == nil {
		return
	}
	r.code = code
	delete(c.streams, stream)
	r.broken()
	c.later(0, c.nextStream)
}

// Drained implements http2.Sink.
func (c *dayClient) Drained(uint32) {}

// GoAway implements http2.Sink.
func (c *dayClient) GoAway(uint32, http2.ErrorCode) {}

func (c *dayClient) String() string {
	protocol := "HTTP/1.1"
	if c.h2 != nil {
		protocol = "HTTP/2"
	}
	return fmt.Sprintf("%s rude %v over %v last %v", protocol, c.rude, c.over, c.last)
}
