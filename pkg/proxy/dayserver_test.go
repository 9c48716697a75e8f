// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// dayServer is a connection at an instance, in the protocol that the proxy speaks.
type dayServer struct {
	i       *dayInstance
	p       *sim.Peer
	buf     []byte
	told    bool // which protocol
	h1      http1.RequestDecoder
	h2      *http2.Conn
	head    codec.RequestHead
	asks    map[uint32]*dayAsked // by stream
	busy    bool                 // HTTP/1: an answer is under way
	mute    bool                 // nothing happens here any more
	end     *dayEnd              // HTTP/1: of the tunnel that it has become
	streams map[uint32]*dayEnd   // HTTP/2
	over    bool
}

// dayAsked is a request at an instance.
type dayAsked struct {
	id        uint64
	method    codec.Method
	want, got int
	whole     bool
	answered  bool // or never to be
	text      dayText
}

func (i *dayInstance) accept(p *sim.Peer) {
	s := &dayServer{i: i, p: p, asks: map[uint32]*dayAsked{}, streams: map[uint32]*dayEnd{}, h1: http1.NewRequestDecoder(http1.Limits{})}
	i.conns[s] = struct{}{}
	i.order = append(slices.DeleteFunc(i.order, func(o *dayServer) bool { return o.over }), s)
	p.OnData = s.onData
	p.OnEOF = func(*sim.Peer) {
		if s.end != nil && !s.end.over {
			s.end.ended()
			return
		}
		s.close()
	}
	p.OnError = func(*sim.Peer, error) { s.close() }
}

func (s *dayServer) close() {
	if !s.over {
		s.over = true
		delete(s.i.conns, s)
		s.endsBroken()
		s.p.Close()
	}
}

// cut ends the connection as a process does that is killed.
func (s *dayServer) cut(reset bool) {
	if s.over {
		return
	}
	if s.end != nil {
		s.end.rough = true
	}
	for _, e := range s.streams {
		e.rough = true
	}
	if reset {
		s.p.Reset()
	}
	s.close()
}

// later runs f if the connection is still there then.
func (s *dayServer) later(after time.Duration, f func()) {
	s.i.d.world.At(after, func() {
		if !s.over && !s.mute {
			s.i.d.traffic = s.i.d.world.Now()
			f()
		}
	})
}

func (s *dayServer) onData(_ *sim.Peer, b []byte) {
	d := s.i.d
	d.traffic = d.world.Now()
	if s.mute || s.over {
		return
	}
	if s.end != nil {
		s.end.hears(b)
		return
	}
	s.buf = append(s.buf, b...)
	if !s.told {
		yes, more := http2.IsPreface(s.buf)
		switch {
		case yes:
			s.h2 = http2.New(http2.Server, http2.Limits{AllowConnect: maybe(d.rng, 3, 4), MaxConcurrentStreams: one[uint32](d.rng, 0, 0, 1, 3), InitialStreamWindow: one[uint32](d.rng, 0, 2048)})
			s.flush()
		case more:
			return
		}
		s.told = true
	}
	s.decode()
}

// decode reads what is there, in HTTP/1 up to the end of a request whose answer is under way.
func (s *dayServer) decode() {
	d := s.i.d
	for len(s.buf) > 0 && !s.over && !s.mute {
		var n int
		var err error
		if s.h2 != nil {
			n, err = s.h2.Decode(s.buf, int64(d.world.Now()), s)
			s.flush()
		} else {
			if s.h1.Done() {
				if s.busy {
					return
				}
				s.h1.NextMessage()
			}
			n, err = s.h1.Decode(s.buf, &s.head, s)
		}
		if err != nil {
			d.fail("the proxy sent %q to %s: %v", s.buf[:min(len(s.buf), 300)], s.i.addr, err)
		}
		s.buf = append(s.buf[:0:0], s.buf[n:]...)
		if n == 0 {
			return
		}
	}
}

func (s *dayServer) flush() {
	for s.h2.HasPending() && !s.over {
		s.p.Write(s.h2.AppendPending(nil))
	}
	if s.h2.Closed() {
		s.close()
	}
}

// RequestHead implements codec.Sink.
func (s *dayServer) RequestHead(id uint32, h *codec.RequestHead, last bool) error {
	d := s.i.d
	if h.Upgrade || h.Method == codec.MethodConnect {
		s.asksTunnel(id, h)
		return nil
	}
	n, _ := strconv.ParseUint(string(h.Get("x-id")), 10, 64)
	q := d.requests[n]
	if n == 0 || n > d.lastID {
		d.fail("%s got a request that nobody has made: %q", s.i.addr, h.Path())
	}
	a := &dayAsked{id: n, method: h.Method, text: textOf(n)}
	a.want, _ = strconv.Atoi(string(h.Get("x-len")))
	s.asks[id] = a
	d.sums.served++
	if s.h2 != nil && maybe(d.rng, d.hard.refuse, 100) {
		a.answered = true
		s.h2.Reset(id, http2.RefusedStream) // not looked at: it may come again
		delete(s.asks, id)
		return nil
	}
	if s.i.cluster == "m" {
		d.sums.mirrored++
	}
	if q != nil { // else its exchange has ended, and what was sent has taken longer
		q.arrived(s.i)
	}
	if maybe(d.rng, d.hard.early, 100) && !last {
		s.later(time.Duration(d.rng.IntN(5))*ms, func() { s.answer(id, a) })
	}
	if last {
		s.requestOver(id, a)
	}
	return nil
}

// Data implements codec.Sink.
func (s *dayServer) Data(id uint32, chunk []byte, last bool) error {
	a := s.asks[id]
	if e := s.streams[id]; e != nil {
		heardStream(s.h2, id, e, len(chunk), s.flush)
		if len(chunk) > 0 {
			e.hears(chunk)
		}
		if last {
			e.ended()
		}
		return nil
	}
	if s.h2 != nil {
		n := len(chunk)
		if maybe(s.i.d.rng, 1, 8) { // a slow reader
			s.later(time.Duration(s.i.d.rng.IntN(50))*ms, func() { s.h2.Consumed(id, n); s.flush() })
		} else {
			s.h2.Consumed(id, n)
		}
	}
	if a == nil {
		return nil
	}
	if !a.text.check(a.got, chunk) {
		s.i.d.fail("request %d has the body of another at %d: %q", a.id, a.got, chunk)
	}
	a.got += len(chunk)
	if last {
		s.requestOver(id, a)
	}
	return nil
}

// Trailer implements codec.Sink.
func (s *dayServer) Trailer(id uint32, h *codec.Header) error {
	if a := s.asks[id]; a != nil {
		if got := string(h.Get("x-end")); got != strconv.FormatUint(a.id, 10) {
			s.i.d.fail("request %d has the trailers of %q", a.id, got)
		}
		s.requestOver(id, a)
	}
	return nil
}

func (s *dayServer) requestOver(id uint32, a *dayAsked) {
	if a.got != a.want {
		s.i.d.fail("request %d was whole upstream with %d of %d bytes", a.id, a.got, a.want)
	}
	a.whole = true
	if s.h2 == nil {
		s.busy = true
	}
	rng, w := s.i.d.rng, &s.i.d.hard
	after := time.Duration(rng.IntN(3)) * ms
	switch {
	case maybe(rng, w.hang, 100):
		return
	case maybe(rng, w.slow, 100):
		after = time.Duration(rng.IntN(400)) * ms
	}
	s.later(after, func() { s.answer(id, a) })
}

// ResponseHead, Informational and Tunnel are not what servers get.
func (s *dayServer) ResponseHead(uint32, *codec.ResponseHead, bool) error { return nil }

// Informational implements codec.Sink.
func (s *dayServer) Informational(uint32, *codec.ResponseHead) error { return nil }

// Tunnel implements codec.Sink.
func (s *dayServer) Tunnel(uint32) error { return nil }

// Reset implements http2.Sink.
func (s *dayServer) Reset(id uint32, code http2.ErrorCode, local bool) {
	if e := s.streams[id]; e != nil && !(code == http2.NoError && e.eof) {
		e.broken()
	}
	if a := s.asks[id]; a != nil {
		if local {
			s.i.d.fail("the proxy broke a rule on the stream of request %d: %v", a.id, s.h2.ResetCause())
		}
		a.answered = true
		delete(s.asks, id)
	}
}

// Drained and GoAway implement http2.Sink.
func (s *dayServer) Drained(uint32) {}

// GoAway implements http2.Sink.
func (s *dayServer) GoAway(uint32, http2.ErrorCode) {}

// dayAnswer is a response as it is drawn.
type dayAnswer struct {
	head     codec.ResponseHead
	length   int
	chunked  bool
	toClose  bool
	trailer  *codec.Header
	pieces   int
	gap      time.Duration
	cutAfter int // pieces, then the connection ends; -1: not
	reset    bool
	end      bool // the connection ends behind it
}

func (s *dayServer) draw(a *dayAsked) *dayAnswer {
	d := s.i.d
	rng, w := d.rng, &d.hard
	r := &dayAnswer{pieces: 1, cutAfter: -1}
	h := &r.head
	h.Protocol, h.KeepAlive, h.Status = codec.HTTP11, true, one(rng, 200, 200, 200, 201, 404)
	if maybe(rng, w.fail, 100) {
		h.Status = one(rng, 500, 503, 503, 502, 504, 409, 429)
		if maybe(rng, 1, 3) {
			h.AddString("retry-after", strconv.Itoa(rng.IntN(3)))
		}
	}
	if r.length = rng.IntN(3) * rng.IntN(1500); maybe(rng, 1, 20) {
		r.length = rng.IntN(100_000)
	}
	if a.method == codec.MethodHead {
		h.NoBody = true
	}
	r.chunked = maybe(rng, 1, 3)
	if maybe(rng, w.trickle, 100) {
		r.pieces, r.gap = 1+rng.IntN(6), time.Duration(rng.IntN(40))*ms
	}
	if maybe(rng, w.cut, 100) {
		r.cutAfter, r.reset = rng.IntN(r.pieces+1), maybe(rng, 1, 2)
	}
	r.toClose = s.h2 == nil && !r.chunked && maybe(rng, 1, 8)
	r.end = maybe(rng, 1, 15) || r.toClose
	h.AddString("x-id", strconv.FormatUint(a.id, 10))
	h.AddString("x-from", s.i.cluster)
	h.AddString("x-at", s.i.addr.String())
	if !r.toClose || r.cutAfter < 0 || r.reset { // else nobody can know where it should have ended
		h.AddString("x-len", strconv.Itoa(r.length))
	}
	s.keptAnswer(a, r)
	h.BodyLength = int64(r.length)
	if r.chunked || r.toClose {
		h.BodyLength = codec.BodyChunked
	}
	if r.toClose {
		h.BodyLength = codec.BodyToClose
	}
	if r.chunked && !h.NoBody && maybe(rng, 1, 3) {
		r.trailer = new(codec.Header)
		r.trailer.AddString("x-end", strconv.FormatUint(a.id, 10))
	}
	return r
}

// answer begins the response.
func (s *dayServer) answer(id uint32, a *dayAsked) {
	if a.answered {
		return
	}
	a.answered = true
	d := s.i.d
	rng, w := d.rng, &d.hard
	if maybe(rng, w.garbage, 100) {
		s.p.Write([]byte("%$&\r\n\r\n"))
		return
	}
	r := s.draw(a)
	if s.h2 != nil {
		s.answerStream(id, a, r)
		return
	}
	s.busy = true
	if maybe(rng, 1, 10) {
		s.p.Write([]byte("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"))
	}
	b := http1.AppendResponse(nil, &r.head, codec.HTTP11, !r.end)
	if !r.head.NoBody {
		for at := 0; at < r.length; {
			to := min(r.length, at+1+rng.IntN(r.length))
			if r.chunked {
				b = http1.AppendChunk(b, a.text.appendTo(nil, at, to))
			} else {
				b = a.text.appendTo(b, at, to)
			}
			at = to
		}
		if r.chunked {
			b = http1.AppendLastChunk(b, r.trailer)
		}
	}
	s.write(b, r, 0, func() {
		s.busy = false
		switch {
		case r.end:
			s.p.CloseWrite()
			return
		case !a.whole: // nobody can tell where the next request begins
			s.later(ms, func() { s.cut(false) })
			return
		}
		s.decode()
		if maybe(rng, w.closeIdle, 100) {
			s.later(time.Duration(rng.IntN(200))*ms, func() { s.cut(maybe(rng, 1, 3)) })
		}
	})
}

// write sends b in pieces, as r says, and calls done behind the last.
func (s *dayServer) write(b []byte, r *dayAnswer, i int, done func()) {
	if i == r.cutAfter {
		if len(b) > 0 { // at any byte
			s.p.Write(b[:s.i.d.rng.IntN(len(b))])
		}
		s.later(one(s.i.d.rng, 0, 5*ms), func() { s.cut(r.reset) })
		return
	}
	n := len(b)
	if i+1 < r.pieces {
		n = min(n, 1+s.i.d.rng.IntN(max(n, 1)))
	}
	s.p.Write(b[:n])
	if b = b[n:]; len(b) == 0 {
		done()
		return
	}
	s.later(r.gap, func() { s.write(b, r, i+1, done) })
}

// answerStream answers by HTTP/2.
func (s *dayServer) answerStream(id uint32, a *dayAsked, r *dayAnswer) {
	rng, w := s.i.d.rng, &s.i.d.hard
	if maybe(rng, w.goAway, 100) {
		s.h2.GoAway(maybe(rng, 1, 2), http2.NoError)
		s.flush()
		if maybe(rng, 1, 3) {
			s.later(time.Duration(rng.IntN(20))*ms, func() { s.cut(maybe(rng, 1, 2)) })
		}
	}
	if r.head.BodyLength == codec.BodyToClose {
		r.head.BodyLength = codec.BodyChunked
	}
	bare := r.head.NoBody || r.length == 0 && r.trailer == nil
	s.p.Write(s.h2.AppendResponse(nil, id, &r.head, bare))
	if bare {
		s.streamOver(id)
		return
	}
	at, i := 0, 0
	var piece func()
	piece = func() {
		switch {
		case s.asks[id] != a: // reset
			return
		case s.h2.Queued(id) > 0:
			s.flush()
			s.later(3*ms, piece)
			return
		case i == r.cutAfter && r.reset:
			s.h2.Reset(id, one(rng, http2.Cancel, http2.InternalError, http2.NoError))
			delete(s.asks, id)
			s.flush()
			return
		case i == r.cutAfter:
			s.cut(maybe(rng, 1, 2))
			return
		}
		to := r.length
		if i++; i < r.pieces {
			to = min(r.length, at+1+rng.IntN(max(r.length-at, 1)))
		}
		last := to == r.length && r.trailer == nil
		s.p.Write(s.h2.AppendData(nil, id, a.text.appendTo(nil, at, to), last))
		switch at = to; {
		case last:
			s.streamOver(id)
		case to == r.length:
			s.p.Write(s.h2.AppendTrailer(nil, id, r.trailer))
			s.streamOver(id)
		default:
			s.later(r.gap, piece)
		}
	}
	piece()
}

func (s *dayServer) streamOver(id uint32) {
	if a := s.asks[id]; a != nil && a.whole {
		delete(s.asks, id)
	}
	s.flush()
}

func (s *dayServer) String() string { return fmt.Sprintf("%s of %s", s.i.addr, s.i.cluster) }
