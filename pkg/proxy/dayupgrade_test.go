// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The tunnels of a day that requests ask for: by Upgrade and CONNECT over HTTP/1.1, by
// CONNECT and extended CONNECT over HTTP/2, in each direction.

const dayProtocol = "day"

// drawUpgrades enables them. CONNECT is passed on, or terminated before instances that
// speak no protocol where there are any.
func (d *day) drawUpgrades(m *resource.HTTPManager) {
	rng, p := d.rng, &d.plan
	p.upgrades = true
	m.HTTP2.AllowConnect = maybe(rng, 3, 4)
	vh := d.snap.Routes["r"].VirtualHosts[0]
	route := func(match resource.RouteMatch, cluster string, u resource.Upgrade) *resource.Route {
		return &resource.Route{Name: string(u.Type), Match: match, Action: &resource.RouteAction{
			TotalWeight: 1, Clusters: []resource.WeightedCluster{{Name: cluster, Weight: 1}}, Timeout: one(rng, 300*ms, 3*time.Second),
			HasIdleTimeout: true, IdleTimeout: one(rng, 300*ms, 3*time.Second), Upgrades: []resource.Upgrade{u},
		}}
	}
	connect, to := resource.Upgrade{Type: resource.UpgradeConnect, Enabled: true}, one(rng, p.clusters...)
	if len(p.tcp.clusters) > 0 && maybe(rng, 1, 2) {
		connect.Terminate, to = true, one(rng, p.tcp.clusters...)
	}
	vh.Routes = append([]*resource.Route{
		route(resource.RouteMatch{Kind: resource.PathPrefix, Path: "/up/"}, one(rng, p.clusters...), resource.Upgrade{Type: dayProtocol, Enabled: true}),
		route(resource.RouteMatch{Kind: resource.PathConnect}, to, connect),
		route(resource.RouteMatch{Kind: resource.PathPrefix, Path: "/ws/"}, one(rng, p.clusters...), resource.Upgrade{Type: dayWebSocket, Enabled: true}),
	}, vh.Routes...)
}

// dayAsker is a connection whose requests ask for tunnels: one by HTTP/1.1.
type dayAsker struct {
	d    *day
	p    *sim.Peer
	buf  []byte
	dec  http1.ResponseDecoder
	head codec.ResponseHead
	h2   *http2.Conn
	ends map[uint32]*dayEnd
	todo int
	over bool
}

func (d *day) connectAsker() {
	p, err := d.world.Dial(dayAddr)
	if err != nil {
		d.fail("%v", err)
	}
	rng := d.rng
	a := &dayAsker{d: d, p: p, ends: map[uint32]*dayEnd{}, todo: 1, dec: http1.NewResponseDecoder(http1.Limits{})}
	p.OnData = a.onData
	p.OnEOF = func(*sim.Peer) {
		if e := a.ends[0]; a.h2 == nil && e != nil && e.open {
			e.ended()
		} else {
			a.close()
		}
	}
	p.OnError = func(*sim.Peer, error) { a.close() }
	if maybe(rng, 1, 2) {
		a.todo = 1 + rng.IntN(3)
		a.h2 = http2.New(http2.Client, http2.Limits{InitialStreamWindow: one[uint32](rng, 0, 3000)})
		a.flush()
		a.later(time.Duration(10+rng.IntN(20))*ms, a.ask)
		return
	}
	e := d.newEnd(false, peerWire{p})
	a.ends[0] = e
	d.pipes[p.LocalAddr()] = e
	h := a.request(e, !d.lasting && maybe(rng, 1, 2))
	if h.Upgrade {
		a.dec.ExpectUpgrade(h.Method)
	} else {
		a.dec.Expect(h.Method)
	}
	p.Write(http1.AppendRequest(nil, h))
}

// request is the head of one that asks for e's tunnel.
func (a *dayAsker) request(e *dayEnd, connect bool) *codec.RequestHead {
	h := &codec.RequestHead{Method: codec.MethodGet, Protocol: codec.HTTP11, KeepAlive: true}
	h.SetMethod([]byte("GET"))
	h.SetScheme([]byte("http"))
	h.SetAuthority([]byte("day:1"))
	if e.kind = byUpgrade; connect {
		e.kind, h.Method = byConnect, codec.MethodConnect
		h.SetMethod([]byte("CONNECT"))
	} else {
		h.SetPath([]byte("/up/" + strconv.FormatUint(e.id(), 10)))
		h.Upgrade = true
		h.SetUpgrade([]byte(dayProtocol))
		if a.d.lasting || maybe(a.d.rng, 1, 2) {
			e.speaksWeb()
			webHead(h, strconv.FormatUint(e.id(), 10), a.h2 == nil)
		}
	}
	h.AddString("x-id", strconv.FormatUint(e.id(), 10))
	return h
}

// ask opens the next stream.
func (a *dayAsker) ask() {
	rng := a.d.rng
	if a.todo == 0 || a.h2.Draining() {
		return
	}
	connect := !a.h2.ExtendedConnect()
	id, ok := a.h2.NewStream()
	if !ok || connect && len(a.ends) > 0 {
		a.todo = 0
		return
	}
	a.todo--
	if connect {
		a.todo = 0
	}
	e := a.d.newEnd(false, &streamWire{p: a.p, h2: a.h2, id: id, flush: a.flush})
	if connect {
		a.d.pipes[a.p.LocalAddr()] = e
	}
	a.ends[id] = e
	a.p.Write(a.h2.AppendRequest(nil, id, a.request(e, connect), false))
	a.later(time.Duration(rng.IntN(50))*ms, a.ask)
}

func (a *dayAsker) later(after time.Duration, f func()) {
	a.d.world.At(after, func() {
		if !a.over {
			f()
		}
	})
}

func (a *dayAsker) flush() {
	for a.h2.HasPending() && !a.over {
		a.p.Write(a.h2.AppendPending(nil))
	}
	if a.h2.Closed() {
		a.close()
	}
}

// close is the connection's end.
func (a *dayAsker) close() {
	if !a.over {
		a.over = true
		for _, e := range inOrder(a.ends) {
			e.broken()
		}
		a.p.Close()
	}
}

// endOver closes a connection of HTTP/2 behind its last tunnel.
func (a *dayAsker) endOver() {
	for _, e := range a.ends {
		if !e.over {
			return
		}
	}
	if a.todo == 0 {
		a.close()
	}
}

func (a *dayAsker) onData(_ *sim.Peer, b []byte) {
	a.d.traffic = a.d.world.Now()
	a.buf = append(a.buf, b...)
	for len(a.buf) > 0 && !a.over {
		var n int
		var err error
		if a.h2 != nil {
			n, err = a.h2.Decode(a.buf, int64(a.d.world.Now()), a)
			a.flush()
		} else {
			n, err = a.dec.Decode(a.buf, &a.head, a)
		}
		if err != nil {
			a.d.fail("who asked for %s got %q: %v", a.ends[0], a.buf[:min(len(a.buf), 300)], err)
		}
		a.buf = append(a.buf[:0:0], a.buf[n:]...)
		if a.h2 == nil && a.dec.Done() {
			a.close()
		} else if n == 0 {
			return
		}
	}
}

// ResponseHead implements codec.Sink.
func (a *dayAsker) ResponseHead(stream uint32, h *codec.ResponseHead, last bool) error {
	e := a.ends[stream]
	switch {
	case e == nil:
	case h.Status == 101 || h.Status/100 == 2 && (a.h2 != nil || e.kind == byConnect):
		e.begin()
		if last && a.h2 != nil { // over HTTP/1.1 it says that no body of HTTP follows
			e.ended()
		}
	case a.h2 != nil:
		a.h2.Reset(stream, http2.Cancel)
		e.broken()
	}
	return nil
}

// Data implements codec.Sink.
func (a *dayAsker) Data(stream uint32, chunk []byte, last bool) error {
	e := a.ends[stream]
	if a.h2 != nil {
		heardStream(a.h2, stream, e, len(chunk), a.flush)
	}
	if e == nil || !e.open {
		return nil // the body of a refusal
	}
	if len(chunk) > 0 {
		e.hears(chunk)
	}
	if last {
		e.ended()
	}
	return nil
}

// Reset implements http2.Sink.
func (a *dayAsker) Reset(stream uint32, code http2.ErrorCode, local bool) {
	e := a.ends[stream]
	if local {
		a.d.fail("the proxy broke a rule on the stream of %v: %v", e, a.h2.ResetCause())
	}
	if e != nil && !(code == http2.NoError && e.eof) {
		e.broken()
	}
	a.later(0, a.endOver)
}

// Trailer implements codec.Sink.
func (a *dayAsker) Trailer(uint32, *codec.Header) error { return nil }

// RequestHead is not what a client gets.
func (a *dayAsker) RequestHead(uint32, *codec.RequestHead, bool) error { return nil }

// Informational implements codec.Sink.
func (a *dayAsker) Informational(uint32, *codec.ResponseHead) error { return nil }

// Tunnel implements codec.Sink.
func (a *dayAsker) Tunnel(uint32) error { return nil }

// Drained implements http2.Sink.
func (a *dayAsker) Drained(uint32) {}

// GoAway implements http2.Sink.
func (a *dayAsker) GoAway(uint32, http2.ErrorCode) {}

// streamWire is a stream that carries a tunnel.
type streamWire struct {
	p     *sim.Peer
	h2    *http2.Conn
	id    uint32
	flush func()
	held  bool
	owed  int // bytes to be credited
}

func (w *streamWire) write(b []byte) {
	w.p.Write(w.h2.AppendData(nil, w.id, b, false))
	w.flush()
}
func (w *streamWire) unsent() int { return w.h2.Queued(w.id) + w.p.Unsent() }
func (w *streamWire) closeWrite() {
	w.p.Write(w.h2.AppendData(nil, w.id, nil, true))
	w.flush()
}

// cut is a reset, unless both directions have ended.
func (w *streamWire) cut(bool) {
	w.h2.Reset(w.id, http2.Cancel)
	w.flush()
}

func (w *streamWire) hold(on bool) {
	if w.held = on; !on && w.owed > 0 {
		n := w.owed
		w.owed = 0
		w.h2.Consumed(w.id, n)
		w.flush()
	}
}

// heardStream credits what came by a stream, unless its end does not read.
func heardStream(h2 *http2.Conn, id uint32, e *dayEnd, n int, flush func()) {
	if e != nil {
		if w := e.wire.(*streamWire); w.held {
			w.owed += n
			return
		}
	}
	h2.Consumed(id, n)
}

// asksTunnel is a request for a tunnel at an instance.
func (s *dayServer) asksTunnel(id uint32, h *codec.RequestHead) {
	d := s.i.d
	rng, w := d.rng, &d.hard
	connect := !h.Upgrade
	web := h.Upgrade && codec.EqualFold(h.UpgradeProtocol(), dayWebSocket)
	key := append([]byte(nil), h.Get(webSocketKey)...)
	if s.h2 == nil {
		s.busy = true
	} else {
		s.asks[id] = &dayAsked{}
	}
	after := time.Duration(rng.IntN(3)) * ms
	switch {
	case maybe(rng, w.hang, 100):
		return
	case maybe(rng, w.cut, 100):
		s.later(after, func() { s.cut(maybe(rng, 1, 2)) })
		return
	case maybe(rng, w.fail, 100):
		s.later(after, func() {
			if s.h2 == nil {
				s.p.Write([]byte("HTTP/1.1 503 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"))
				s.p.CloseWrite()
			} else if s.asks[id] != nil {
				s.p.Write(s.h2.AppendResponse(nil, id, &codec.ResponseHead{Status: 503, Protocol: codec.HTTP11}, true))
				s.streamOver(id)
			}
		})
		return
	}
	s.later(after, func() {
		if s.h2 == nil {
			s.end = d.newEnd(true, peerWire{s.p})
			s.i.ends = append(s.i.ends, s.end)
			if web {
				s.end.speaksWeb()
				accept := ""
				if len(key) > 0 {
					accept = webSocketAccept + ": " + acceptWeb(key) + "\r\n"
				}
				s.p.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: " + dayWebSocket + "\r\n" + accept + "\r\n"))
			} else if connect {
				s.p.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			} else {
				s.p.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: " + dayProtocol + "\r\n\r\n"))
			}
			s.end.begin()
			if b := s.buf; len(b) > 0 {
				s.buf = nil
				s.end.hears(b)
			}
			return
		}
		if s.asks[id] == nil {
			return
		}
		delete(s.asks, id)
		e := d.newEnd(true, &streamWire{p: s.p, h2: s.h2, id: id, flush: s.flush})
		s.streams[id] = e
		s.i.ends = append(s.i.ends, e)
		if web {
			e.speaksWeb()
		}
		s.p.Write(s.h2.AppendResponse(nil, id, &codec.ResponseHead{Status: 200, Protocol: codec.HTTP11, BodyLength: codec.BodyChunked}, false))
		e.begin()
	})
}

// endsBroken ends what the connection carries.
func (s *dayServer) endsBroken() {
	if s.end != nil {
		s.end.broken()
	}
	for _, e := range inOrder(s.streams) {
		e.broken()
	}
}
