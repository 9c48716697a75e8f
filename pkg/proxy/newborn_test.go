// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Requests of an HTTP/2 client that does not read what it has asked for wait for that
// with their exchanges not begun. They end like others that do not move.
func TestStreamsThatWaitForTheirClientToReadEndInTime(t *testing.T) {
	const idle = 30 * time.Second
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond, Window: 4096}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		l := s.Listeners["l"]
		l.BufferLimit = 8 << 10
		l.FilterChains[0].HTTP.StreamIdleTimeout = idle
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 0
	})
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n%s", strings.Repeat("x", 50000)))
	})
	c := &wireEnd{t: t, peer: r.dial()}
	c.attach(http2.Client, http2.Limits{})
	ask := func() { c.peer.Write(c.appendGet(nil)) }
	r.pass(time.Second)
	c.peer.Hold()
	ask()
	m := r.p.managers["test"]
	r.until("the first answer to fill the connection", time.Minute, func() bool {
		return len(r.p.workers[0].http2s) > 0 && r.p.workers[0].http2s[0].conn.AboveWatermark()
	})
	for range 3 {
		ask()
	}
	r.until("the requests", time.Second, func() bool { return m.on[0].rqActive == 4 })
	r.until("the end of all", 2*idle, func() bool { return m.on[0].rqActive == 0 })
	c.peer.Release()
	r.pass(time.Minute)
	r.settled()
	if n := r.p.workers[0].stats.panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

// Streams that find no idle connection dial. However many a peer opens by a few bytes,
// a tick dials for a few of them only, and all get their answer.
func TestATickDialsForAFewStreamsOnly(t *testing.T) {
	const streams, few = 90, 12
	r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
	})
	asked := 0
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		asked++
		r.world.At(time.Second, func() { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) })
	})
	w, most, ticks := r.p.workers[0], 0, 0
	w.loop.OnTick(func() {
		if most = max(most, w.dials); w.dials > 0 {
			ticks++
		}
		w.beginTick()
	}, w.endTick)
	c := &wireEnd{t: t, peer: r.dial()}
	c.attach(http2.Client, http2.Limits{})
	r.pass(time.Second)
	var out []byte
	for range streams {
		out = c.appendGet(out)
	}
	c.peer.Write(out)
	m := r.p.managers["test"]
	r.until("all at the upstream", time.Second, func() bool { return asked == streams })
	if most > few || ticks < streams/few {
		t.Errorf("up to %d dials in a tick, in %d ticks; want no more than %d", most, ticks, few)
	}
	r.until("the answers", time.Minute, func() bool { return m.on[0].rqActive == 0 })
	if n := m.on[0].rq2xx; n != streams {
		t.Errorf("%d answers", n)
	}
	r.settled()
}

// appendGet appends a request of HTTP/2 on a stream of its own.
func (e *wireEnd) appendGet(b []byte) []byte {
	id, ok := e.codec.NewStream()
	if !ok {
		e.t.Fatal("no stream")
	}
	h := &codec.RequestHead{Method: codec.MethodGet, Protocol: codec.HTTP2}
	h.SetMethod([]byte("GET"))
	h.SetScheme([]byte("http"))
	h.SetAuthority([]byte("h"))
	h.SetPath([]byte("/"))
	return e.codec.AppendRequest(b, id, h, true)
}
