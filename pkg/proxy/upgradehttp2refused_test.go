// SPDX-License-Identifier: Apache-2.0

package proxy

import (
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

// refused asks, has the server answer, and returns what the client was told, and
// whether it was the end.
func (s *span) refused(status int, fields ...string) *wireEnd {
	s.r.t.Helper()
	c := s.ask("EARLY")
	s.r.until("the request", time.Second, func() bool { return s.server().head != "" })
	s.answer(s.server(), status, fields...)
	if s.server().codec != nil {
		s.server().write(nil, true)
	}
	s.r.until("the answer", time.Second, func() bool { return c.head != "" })
	if err := s.r.world.Run(time.Second); err != nil {
		s.r.t.Fatal(err)
	}
	return c
}

func (s *span) none(c *wireEnd) {
	s.r.t.Helper()
	if len(s.server().data) != 0 {
		s.r.t.Errorf("%q went up", s.server().data)
	}
	if n := s.r.p.managers["test"].on[0].upgradesTotal; n != 0 {
		s.r.t.Error("it was counted as a tunnel")
	}
	s.closed(c)
}

func TestARefusedTunnelIsAResponseInEveryProtocol(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		if s.terminates {
			return
		}
		c := s.refused(403, "Content-Length: 0")
		if want := map[bool]string{true: "403\n", false: "HTTP/1.1 403 "}[s.downH2]; !strings.HasPrefix(c.head, want) || !c.over() && s.downH2 {
			t.Errorf("got %q", c.head)
		}
		s.none(c)
	})
}

// CVE-2024-23326: what is a mere response over HTTP/1.1 is consent over HTTP/2.
func TestASuccessThatIsNo101NeverBecomesConsent(t *testing.T) {
	for _, fields := range [][]string{
		{"Content-Length: 0"}, {"Content-Length: 0", "Connection: upgrade", "Upgrade: websocket"}, nil,
	} {
		for _, status := range []int{200, 204, 206, 299} {
			s := newSpan(t, &span{downH2: true}, asIs)
			if c := s.refused(status, fields...); !strings.HasPrefix(c.head, "502\n") {
				t.Errorf("%d with %q became %q", status, fields, c.head)
			}
			s.none(&wireEnd{peer: s.r.dial()})
		}
	}
	s := newSpan(t, &span{downH2: true}, func(snap *resource.Snapshot) {
		r := snap.Routes["r"].VirtualHosts[0].Routes[1]
		r.Action, r.Direct = nil, &resource.DirectResponse{Status: 200, Body: []byte("hello")}
	})
	c := s.ask("EARLY")
	s.r.until("the answer", time.Second, func() bool { return c.ended })
	if !strings.HasPrefix(c.head, "403\n") || len(c.data) != 0 {
		t.Errorf("a reply of our own: %q %q", c.head, c.data)
	}
	s.none(c)
}

func TestAServersAnswerToOurKeyIsChecked(t *testing.T) {
	for _, fields := range [][]string{nil, {"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}} {
		s := newSpan(t, &span{downH2: true}, asIs)
		c := s.refused(101, append(fields, "Connection: Upgrade", "Upgrade: websocket")...)
		if !strings.HasPrefix(c.head, "502\n") {
			t.Errorf("%q became %q", fields, c.head)
		}
		if !s.server().has("sec-websocket-version: 13\n") {
			t.Errorf("no version in %q", s.server().head)
		}
		s.none(c)
	}
}

// A client that has a key, as a proxy with an HTTP/1.1 client behind it has, gets
// the answer to that and no other.
func TestAKeyOfTheClientsPassesEveryHop(t *testing.T) {
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	for _, up := range []bool{false, true} {
		s := newSpan(t, &span{downH2: true, upH2: up, agree: true}, asIs)
		c := s.ask("", strings.ToLower(key[:17])+key[17:])
		s.r.until("the request", time.Second, func() bool { return s.server().head != "" })
		if !s.server().has("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\n") {
			t.Errorf("the key did not pass: %q", s.server().head)
		}
		s.accepts(s.server())
		s.r.until("the agreement", time.Second, func() bool { return c.head != "" })
		if !c.has("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n") {
			t.Errorf("no answer to the key in %q", c.head)
		}
		s.server().write(nil, true)
		c.write(nil, true)
		s.closed(c)
	}
}

func TestExtendedConnectIsSentOnlyToThoseWhoTakeIt(t *testing.T) {
	for _, down := range []bool{false, true} {
		s := newSpan(t, &span{downH2: down, upH2: true, agree: false}, asIs)
		c := s.ask("EARLY")
		s.r.until("the answer", time.Second, func() bool { return c.head != "" })
		if !strings.Contains(c.head, "502") || s.server().head != "" {
			t.Errorf("got %q, and the upstream %q", c.head, s.server().head)
		}
		s.none(c)
	}
}

// A server that speaks no HTTP/2 never says what it takes.
func TestATunnelDoesNotWaitForSETTINGSThatNeverCome(t *testing.T) {
	s := newSpan(t, &span{upH2: true}, asIs)
	n := 0
	err := s.r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:81")), func(p *sim.Peer) {
		n++
		p.OnData = func(p *sim.Peer, _ []byte) { p.Close() }
	})
	if err != nil {
		t.Fatal(err)
	}
	s.r.snap.Assignments["c"] = assignment("c", "10.0.0.9:81")
	s.r.apply()
	c := s.ask("")
	s.r.until("the answer", time.Second, func() bool { return c.head != "" })
	if !strings.HasPrefix(c.head, "HTTP/1.1 50") || n > 3 {
		t.Errorf("got %q after %d connections", c.head, n)
	}
	s.none(c)
}

func TestExtendedConnectThatIsNotEnabledIsRefused(t *testing.T) {
	for name, edit := range map[string]func(*resource.Snapshot){
		"by none": func(s *resource.Snapshot) { s.Listeners["l"].FilterChains[0].HTTP.Upgrades = nil },
		"by its route": func(s *resource.Snapshot) {
			s.Routes["r"].VirtualHosts[0].Routes[1].Action.Upgrades = []resource.Upgrade{{Type: webSocket}}
		},
		"for other protocols": func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: "spdy/3.1", Enabled: true}}
		},
		"for CONNECT alone": func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true}}
		},
	} {
		s := newSpan(t, &span{downH2: true}, edit)
		c := s.ask("EARLY")
		s.r.until("the answer", time.Second, func() bool { return c.head != "" })
		if !strings.HasPrefix(c.head, "403\n") || len(s.servers) != 0 {
			t.Errorf("enabled %s: %q, %d connections", name, c.head, len(s.servers))
		}
		s.none(c)
	}
	s := newSpan(t, &span{downH2: true}, func(s *resource.Snapshot) { s.Listeners["l"].FilterChains[0].HTTP.HTTP2.AllowConnect = false })
	c := s.ask("")
	s.r.until("the reset", time.Second, func() bool { return c.reset != "" })
	if c.reset != http2.ProtocolError.String() || c.codec.ExtendedConnect() {
		t.Errorf("not announced: %q", c.reset)
	}
	s.none(c)
}

// Trailers would end a tunnel with something that is no byte of it.
func TestFieldsInATunnelAreAFault(t *testing.T) {
	var trailer codec.Header
	trailer.Add([]byte("x"), []byte("y"))
	spans(t, asIs, func(t *testing.T, s *span) {
		c, up := s.open("")
		switch {
		case s.downH2:
			c.peer.Write(c.codec.AppendTrailer(nil, c.id, &trailer))
		case up.codec != nil:
			up.peer.Write(up.codec.AppendTrailer(nil, up.id, &trailer))
		default:
			c.write(nil, true)
			up.write(nil, true)
			s.closed(c)
			return
		}
		s.r.until("the end of both", time.Second, func() bool {
			return (c.over() || c.broken()) && (up.over() || up.broken())
		})
		s.closed(c)
	})
}

// An Upgrade that extended CONNECT cannot say is passed on as a request.
func TestAnUpgradeThatHTTP2CannotSayIsLeftOut(t *testing.T) {
	for _, head := range []string{
		"POST /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
	} {
		s := newSpan(t, &span{upH2: true, agree: true}, asIs)
		c := &wireEnd{t: t, peer: s.r.dial()}
		c.plain()
		c.peer.Write([]byte(head))
		s.r.until("the request", time.Second, func() bool { return s.server().ended })
		if up := s.server(); up.has("CONNECT") || up.has("websocket") {
			t.Errorf("%.20q became %q", head, up.head)
		}
		s.answer(s.server(), 200)
		s.server().write(nil, true)
		s.r.until("the answer", time.Second, func() bool { return strings.HasPrefix(c.head, "HTTP/1.1 200 ") })
		s.server().data = nil
		s.none(c)
	}
}

// Behind a cluster that follows downstream's protocol there may be any application.
func TestAWebSocketOfHTTP2GoesToAnApplicationByUpgrade(t *testing.T) {
	s := newSpan(t, &span{downH2: true}, func(snap *resource.Snapshot) { snap.Clusters["c"].DownstreamProtocol = true })
	c, up := s.open("EARLY")
	if !up.has("GET /chat HTTP/1.1\n") {
		t.Errorf("asked %q", up.head)
	}
	up.write(nil, true)
	c.write(nil, true)
	s.closed(c)
}

// The end of a direction that came with the head is not lost.
func TestATunnelMayBeHalfClosedFromTheBeginning(t *testing.T) {
	for _, down := range []bool{false, true} {
		s := newSpan(t, &span{downH2: down, upH2: true, agree: true}, asIs)
		c := s.ask("EARLY")
		if down {
			c.write(nil, true)
		}
		s.r.until("the request", time.Second, func() bool { return s.server().head != "" })
		up := s.server()
		h := codec.ResponseHead{Status: 200, BodyLength: codec.BodyNone}
		up.peer.Write(up.codec.AppendResponse(nil, up.id, &h, true))
		s.r.until("the end downstream", time.Second, c.over)
		s.r.until("what was sent ahead", time.Second, func() bool { return string(up.data) == "EARLY" && (up.ended || !down) })
		if !down {
			c.write(nil, true)
		}
		s.r.until("the end upstream", time.Second, func() bool { return up.ended })
		if c.broken() || up.broken() {
			t.Errorf("reset %q %q", c.reset, up.reset)
		}
		s.closed(c)
	}
}

// An endpoint that has nothing to say meets a client that has said all.
func TestATerminatedCONNECTMayEndAsItOpens(t *testing.T) {
	s := newSpan(t, &span{downH2: true, connect: true, terminates: true}, asIs)
	err := s.r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:81")), func(p *sim.Peer) { p.CloseWrite() })
	if err != nil {
		t.Fatal(err)
	}
	s.r.snap.Assignments["c"] = assignment("c", "10.0.0.9:81")
	s.r.apply()
	c := s.ask("EARLY")
	c.write(nil, true)
	s.r.until("answer and end", time.Second, func() bool { return c.has("200\n") && c.ended })
	s.closed(c)
	if n := s.r.p.workers[0].stats.panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}
