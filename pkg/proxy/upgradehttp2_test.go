// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// wireEnd is an end of a connection as a test sees it: HTTP/1.1 or one stream of
// HTTP/2, in the same words.
type wireEnd struct {
	t     testing.TB
	peer  *sim.Peer
	codec *http2.Conn // nil: HTTP/1.1
	id    uint32

	head  string // of the peer's message: first line, then "name: value" lines
	data  []byte // behind the head
	ended bool   // the peer's direction
	reset string // how the peer broke off
	slow  bool   // nothing is credited
	owed  int
}

// script hears an HTTP/2 connection.
type script struct{ *wireEnd }

func (s *script) RequestHead(id uint32, h *codec.RequestHead, last bool) error {
	s.id = id
	s.head = fmt.Sprintf("%s %s %s :protocol=%s :scheme=%s\n", h.MethodBytes(), h.Authority(), h.Path(), h.UpgradeProtocol(), h.Scheme())
	s.fields(&h.Header)
	s.ended = last
	return nil
}

func (s *script) ResponseHead(_ uint32, h *codec.ResponseHead, last bool) error {
	s.head = fmt.Sprintf("%d\n", h.Status)
	s.fields(&h.Header)
	s.ended = last
	return nil
}

func (e *wireEnd) fields(h *codec.Header) {
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			e.head += strings.ToLower(string(name)) + ": " + string(value) + "\n"
		}
	}
}

func (s *script) Data(id uint32, b []byte, last bool) error {
	s.data = append(s.data, b...)
	s.ended = s.ended || last
	if s.slow {
		s.owed += len(b)
	} else {
		s.codec.Consumed(id, len(b))
	}
	return nil
}

func (s *script) Informational(uint32, *codec.ResponseHead) error { return nil }
func (s *script) Trailer(uint32, *codec.Header) error             { return nil }
func (s *script) Tunnel(uint32) error                             { return nil }
func (s *script) Drained(uint32)                                  {}
func (s *script) GoAway(uint32, http2.ErrorCode)                  {}
func (s *script) Reset(_ uint32, code http2.ErrorCode, _ bool)    { s.reset = code.String() }

// attach has a codec read the peer's bytes.
func (e *wireEnd) attach(role http2.Role, l http2.Limits) {
	e.codec = http2.New(role, l)
	s := &script{wireEnd: e}
	var in []byte
	e.peer.OnData = func(_ *sim.Peer, b []byte) {
		in = append(in, b...)
		n, err := e.codec.Decode(in, 1, s)
		in = in[n:]
		if err != nil {
			e.reset = err.Error()
		}
		e.flush()
	}
	e.flush()
}

func (e *wireEnd) flush() {
	for e.codec.HasPending() {
		e.peer.Write(e.codec.AppendPending(nil))
	}
}

// plain has HTTP/1.1 messages read.
func (e *wireEnd) plain() {
	var in []byte
	e.peer.OnData = func(_ *sim.Peer, b []byte) {
		if e.head != "" {
			e.data = append(e.data, b...)
			return
		}
		in = append(in, b...)
		if head, rest, whole := strings.Cut(string(in), "\r\n\r\n"); whole {
			e.head = strings.ReplaceAll(head, "\r\n", "\n") + "\n"
			e.data = append(e.data, rest...)
		}
	}
}

// over reports whether the peer's direction has ended.
func (e *wireEnd) over() bool { return e.ended || e.codec == nil && e.peer.EOF }

// broken reports whether the peer broke off.
func (e *wireEnd) broken() bool { return e.reset != "" || e.peer.Err != nil }

func (e *wireEnd) has(line string) bool { return strings.Contains(e.head, line) }

func (e *wireEnd) write(b []byte, last bool) {
	if e.codec == nil {
		e.peer.Write(b)
		if last {
			e.peer.CloseWrite()
		}
		return
	}
	e.peer.Write(e.codec.AppendData(nil, e.id, b, last))
}

// breakOff ends the tunnel without an end of its bytes.
func (e *wireEnd) breakOff() {
	if e.codec == nil {
		e.peer.Reset()
		return
	}
	e.codec.Reset(e.id, http2.Cancel)
	e.flush()
}

// stall reads no more, or again.
func (e *wireEnd) stall(on bool) {
	switch e.slow = on; {
	case e.codec != nil && !on:
		e.codec.Consumed(e.id, e.owed)
		e.owed = 0
		e.flush()
	case e.codec != nil:
	case on:
		e.peer.Hold()
	default:
		e.peer.Release()
	}
}

// span is a proxy between a client and a server, each of HTTP/1.1 or HTTP/2.
type span struct {
	r          *simRig
	downH2     bool
	upH2       bool
	connect    bool // by CONNECT, else as a WebSocket
	terminates bool
	agree      bool // the server announces extended CONNECT
	servers    []*wireEnd
}

func newSpan(t testing.TB, s *span, edit func(*resource.Snapshot)) *span {
	t.Helper()
	s.r = newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(snap *resource.Snapshot) {
		withCluster(snap, "c", "10.0.0.9:80").HTTP2 = s.upH2
		m := snap.Listeners["l"].FilterChains[0].HTTP
		m.Upgrades = []resource.Upgrade{{Type: webSocket, Enabled: true}, {Type: resource.UpgradeConnect, Enabled: true}}
		m.HTTP2.AllowConnect = true
		vh := snap.Routes["r"].VirtualHosts[0]
		connect := *vh.Routes[0]
		connect.Match = resource.RouteMatch{Kind: resource.PathConnect}
		connect.Action = &resource.RouteAction{Clusters: vh.Routes[0].Action.Clusters, TotalWeight: 1, Timeout: 5 * time.Second}
		if s.terminates {
			connect.Action.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}}
		}
		vh.Routes = append([]*resource.Route{&connect}, vh.Routes...)
		edit(snap)
	})
	err := s.r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) {
		e := &wireEnd{t: t, peer: p}
		s.servers = append(s.servers, e)
		switch {
		case s.terminates:
			e.head = "none"
			e.plain()
		case s.upH2:
			e.attach(http2.Server, http2.Limits{AllowConnect: s.agree})
		default:
			e.plain()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *span) server() *wireEnd {
	if len(s.servers) == 0 {
		return &wireEnd{peer: &sim.Peer{}}
	}
	return s.servers[len(s.servers)-1]
}

// ask sends a request for a tunnel, with bytes that do not wait for the answer.
func (s *span) ask(ahead string, fields ...string) *wireEnd {
	s.r.t.Helper()
	e := &wireEnd{t: s.r.t, peer: s.r.dial()}
	if !s.downH2 {
		e.plain()
		head := "GET /chat HTTP/1.1\r\nHost: x:1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		if s.connect {
			head = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n"
		}
		e.peer.Write([]byte(head + strings.Join(append(fields, ""), "\r\n") + "\r\n" + ahead))
		return e
	}
	e.attach(http2.Client, http2.Limits{})
	s.r.until("the SETTINGS", time.Second, e.codec.PeerSettled)
	var h codec.RequestHead
	h.SetMethod([]byte("CONNECT"))
	h.SetAuthority([]byte("x:1"))
	h.BodyLength = codec.BodyChunked
	if !s.connect {
		h.SetScheme([]byte("http"))
		h.SetPath([]byte("/chat"))
		h.SetUpgrade([]byte(webSocket))
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add([]byte(name), []byte(value))
	}
	e.id, _ = e.codec.NewStream()
	e.peer.Write(e.codec.AppendRequest(nil, e.id, &h, false))
	if ahead != "" {
		e.write([]byte(ahead), false)
	}
	return e
}

// answer is the server's head: that of the status, in its protocol.
func (s *span) answer(e *wireEnd, status int, fields ...string) {
	if e.codec == nil {
		head := fmt.Sprintf("HTTP/1.1 %d X\r\n", status)
		for _, f := range fields {
			head += f + "\r\n"
		}
		e.peer.Write([]byte(head + "\r\n"))
		return
	}
	h := codec.ResponseHead{Status: status, BodyLength: codec.BodyChunked}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add([]byte(name), []byte(value))
	}
	e.peer.Write(e.codec.AppendResponse(nil, e.id, &h, false))
}

// accepts has the server agree as its protocol does.
func (s *span) accepts(e *wireEnd) {
	switch {
	case s.terminates:
	case e.codec != nil || s.connect:
		s.answer(e, 200)
	default:
		digest := "Sec-WebSocket-Accept: " + digestOf(e.head)
		s.answer(e, 101, "Connection: Upgrade", "Upgrade: websocket", digest)
	}
}

// digestOf finds the key in a head.
func digestOf(head string) string {
	for line := range strings.Lines(head) {
		if name, key, _ := strings.Cut(strings.TrimSpace(line), ": "); strings.EqualFold(name, webSocketKey) {
			x := &exchange{}
			x.Request.Set(webSocketKey, []byte(key))
			return string(x.appendAccept(nil))
		}
	}
	return "none"
}

// open asks and agrees.
func (s *span) open(ahead string) (client, server *wireEnd) {
	s.r.t.Helper()
	n := len(s.servers)
	client = s.ask(ahead)
	s.r.until("the request", time.Second, func() bool { return len(s.servers) > 0 && s.server().head != "" && (len(s.servers) > n || s.upH2) })
	server = s.server()
	s.accepts(server)
	s.r.until("the agreement", time.Second, func() bool { return client.head != "" })
	return client, server
}

// closed checks that nothing is left.
func (s *span) closed(client *wireEnd) {
	s.r.t.Helper()
	s.r.until("all is given back", time.Minute, func() bool { return s.r.p.managers["test"].on[0].rqActive == 0 })
	client.peer.Close()
	for _, e := range s.servers {
		e.peer.Close()
	}
	if err := s.r.world.Run(time.Second); err != nil {
		s.r.t.Fatal(err)
	}
	if n := s.r.p.managers["test"].on[0].upgradesActive; n != 0 {
		s.r.t.Errorf("%d tunnels are still counted", n)
	}
	s.r.settled()
}

// spans runs a test for each way in which a tunnel goes through the proxy.
func spans(t *testing.T, edit func(*resource.Snapshot), test func(t *testing.T, s *span)) {
	protocol := map[bool]string{false: "h1", true: "h2"}
	for _, down := range []bool{false, true} {
		for _, kind := range []string{"websocket", "connect", "terminated"} {
			for _, up := range []bool{false, true} {
				if kind == "terminated" && up {
					continue
				}
				name := kind + " " + protocol[down] + " to " + protocol[up]
				if kind == "terminated" {
					name = kind + " connect of " + protocol[down]
				}
				t.Run(name, func(t *testing.T) {
					test(t, newSpan(t, &span{downH2: down, upH2: up, connect: kind != "websocket", terminates: kind == "terminated", agree: true}, edit))
				})
			}
		}
	}
}

func TestATunnelOpensInEveryProtocolAndNotBeforeTheUpstreamAgrees(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		c := s.ask("EARLY")
		if err := s.r.world.Run(time.Second); err != nil {
			t.Fatal(err)
		}
		up := s.server()
		switch {
		case s.terminates:
		case len(up.data) != 0 || c.head != "":
			t.Fatalf("before the agreement %q went up and %q down", up.data, c.head)
		case s.connect && s.upH2:
			if !up.has("CONNECT x:1  :protocol= :scheme=\n") {
				t.Errorf("asked %q", up.head)
			}
		case s.connect:
			if !up.has("CONNECT x:1 HTTP/1.1\n") {
				t.Errorf("asked %q", up.head)
			}
		case s.upH2:
			if !up.has("CONNECT x:1 /chat :protocol=websocket :scheme=http\n") || up.has("\nupgrade") || up.has("\nconnection") {
				t.Errorf("asked %q", up.head)
			}
		default:
			if !up.has("GET /chat HTTP/1.1\n") || !up.has("\nupgrade: websocket\nconnection: upgrade") || !up.has("ec-") || up.has("\ncontent-length") || up.has("\ntransfer-encoding") {
				t.Errorf("asked %q", up.head)
			}
		}
		s.accepts(up)
		up.write([]byte("HELLO"), false)
		s.r.until("both ways", time.Second, func() bool { return string(up.data) == "EARLY" && string(c.data) == "HELLO" })
		want := "HTTP/1.1 101 "
		switch {
		case s.downH2:
			want = "200\n"
		case s.connect:
			want = "HTTP/1.1 200 "
		}
		if !strings.HasPrefix(c.head, want) || c.has("\ncontent-length") || c.has("\ntransfer-encoding") {
			t.Errorf("agreed %q", c.head)
		}
		if !s.connect && !s.downH2 && !c.has("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n") && !c.has("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n") {
			t.Errorf("the client's key has no answer: %q", c.head)
		}
		if s.downH2 && c.has("sec-websocket-accept") {
			t.Errorf("an answer to a key that was not the client's: %q", c.head)
		}
		c.write([]byte("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"), true)
		s.r.until("bytes are bytes", time.Second, func() bool { return up.over() })
		if string(up.data) != "EARLYGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" {
			t.Errorf("the upstream got %q", up.data)
		}
		up.write(nil, true)
		s.r.until("the end", time.Second, c.over)
		s.closed(c)
	})
}

func TestEachDirectionEndsByItselfInEveryProtocol(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		for _, clientFirst := range []bool{true, false} {
			c, up := s.open("")
			up.data, c.data = nil, nil
			a, b := c, up
			if !clientFirst {
				a, b = up, c
			}
			a.write([]byte("last words"), true)
			s.r.until("the half-close", time.Second, b.over)
			if string(b.data) != "last words" || a.over() {
				t.Errorf("client first %v: got %q before the end, the other direction ended: %v", clientFirst, b.data, a.over())
			}
			b.write([]byte("a long answer"), false)
			s.r.until("the answer", time.Second, func() bool { return string(a.data) == "a long answer" })
			b.write(nil, true)
			s.r.until("the end", time.Second, a.over)
			if a.broken() || b.broken() {
				t.Errorf("client first %v: reset %q %q", clientFirst, a.reset, b.reset)
			}
			s.r.until("the exchange is over", time.Second, func() bool { return s.r.p.managers["test"].on[0].rqActive == 0 })
			up.head, up.ended = "", false
			if s.terminates {
				up.head = "none"
			}
			c.peer.Close()
		}
		c, up := s.open("")
		c.breakOff()
		s.r.until("the end upstream", time.Second, func() bool { return up.over() || up.broken() })
		s.closed(c)
	})
}

func TestWhatBreaksUpstreamIsAResetDownstreamInEveryProtocol(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		c, up := s.open("")
		up.write([]byte("last words"), false)
		if up.codec == nil {
			s.r.until("the bytes", time.Second, func() bool { return len(c.data) > 0 }) // a reset of TCP may overtake them
		}
		up.breakOff()
		s.r.until("the reset", time.Second, c.broken)
		if string(c.data) != "last words" {
			t.Errorf("before the reset came %q", c.data)
		}
		if s.downH2 && c.reset != http2.ConnectError.String() {
			t.Errorf("reset by %s", c.reset)
		}
		s.closed(c)
	})
	spans(t, asIs, func(t *testing.T, s *span) { // and the whole connection
		c, up := s.open("")
		up.peer.Reset()
		s.r.until("the reset", time.Second, c.broken)
		s.closed(c)
	})
}

func TestATunnelHoldsNoMoreThanItsBuffersInEveryProtocol(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		c, up := s.open("")
		const size = 4 << 20
		block := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		for _, dir := range []struct{ from, to *wireEnd }{{c, up}, {up, c}} {
			dir.to.data = nil
			dir.to.stall(true)
			sent := 0
			for range 40 { // pieces, as windows let them go
				if dir.from.codec != nil && dir.from.codec.Queued(dir.from.id) > 0 {
					break
				}
				n := min(size-sent, 128<<10)
				dir.from.write(block[sent:sent+n], false)
				sent += n
				if err := s.r.world.Run(50 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			waits := dir.from.peer.Unsent()
			if dir.from.codec != nil {
				waits += dir.from.codec.Queued(dir.from.id)
			}
			if taken := sent - waits; taken > 1<<20 {
				t.Errorf("%d bytes were taken for a reader that reads none", taken)
			}
			dir.to.stall(false)
			s.r.until("what was sent", time.Minute, func() bool { return len(dir.to.data) == sent })
			if !bytes.Equal(dir.to.data, block[:sent]) {
				t.Error("the bytes are not those that were sent")
			}
		}
		c.write(nil, true)
		up.write(nil, true)
		s.closed(c)
	})
}

func TestATunnelEndsWhenNothingMovesInEveryProtocol(t *testing.T) {
	spans(t, func(snap *resource.Snapshot) {
		for _, r := range snap.Routes["r"].VirtualHosts[0].Routes {
			r.Action.IdleTimeout, r.Action.HasIdleTimeout = time.Minute, true
			r.Action.Timeout = 2 * time.Second // is for the handshake
		}
	}, func(t *testing.T, s *span) {
		c, up := s.open("")
		for range 5 {
			if err := s.r.world.Run(50 * time.Second); err != nil {
				t.Fatal(err)
			}
			up.write([]byte("x"), false)
		}
		s.r.until("five bytes", time.Second, func() bool { return len(c.data) == 5 })
		start := s.r.world.Now()
		s.r.until("the end", 2*time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
		if took := s.r.world.Now() - start; took < 59*time.Second || took > 61*time.Second {
			t.Errorf("ended after %v", took)
		}
		if c.reset != "" && c.reset != http2.NoError.String() {
			t.Errorf("reset by %s", c.reset)
		}
		s.closed(c)
	})
}

func TestATunnelOutlivesChangesAndEndsWithTheDrainTimeInEveryProtocol(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		c, up := s.open("")
		was := s.r.snap.Listeners["l"]
		changed := func(name string) {
			l, chain, m := *was, *was.FilterChains[0], *was.FilterChains[0].HTTP
			m.ServerName = "changed"
			chain.Name, chain.HTTP = name, &m
			l.FilterChains = []*resource.FilterChain{&chain}
			s.r.snap.Listeners["l"] = &l
		}
		changed("main")
		delete(s.r.snap.Routes, "r")
		s.r.apply()
		c.write([]byte("still"), false)
		s.r.until("bytes", time.Second, func() bool { return string(up.data) == "still" })
		changed("another") // the chain goes
		s.r.apply()
		start := s.r.world.Now()
		s.r.until("the end", time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
		if took := s.r.world.Now() - start; took < 8*time.Second || took > 11*time.Second {
			t.Errorf("drained after %v", took)
		}
		if n := s.r.p.workers[0].stats.upgradesDrained; n != 1 {
			t.Errorf("%d drained", n)
		}
		c.peer.CloseWrite()
		s.r.until("all is given back", time.Minute, func() bool { return s.r.p.managers["test"].on[0].rqActive == 0 })
	})
}
