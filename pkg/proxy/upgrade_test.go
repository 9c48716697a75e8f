// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	ask    = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: WebSocket\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

// far is an upstream of one connection whose bytes are looked at as they come.
type far struct {
	r     *simRig
	peers []*sim.Peer
}

func (f *far) last() *sim.Peer {
	if len(f.peers) == 0 {
		return &sim.Peer{}
	}
	return f.peers[len(f.peers)-1]
}

func (f *far) got() string { return string(f.last().Received) }

// newFar is a rig whose requests may become tunnels to a bare upstream.
func newFar(t testing.TB, edit func(*resource.Snapshot)) *far {
	f := &far{r: newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.Upgrades = []resource.Upgrade{{Type: "websocket", Enabled: true}, {Type: resource.UpgradeConnect, Enabled: true}}
		vh := s.Routes["r"].VirtualHosts[0]
		connect := *vh.Routes[0]
		connect.Match = resource.RouteMatch{Kind: resource.PathConnect}
		connect.Action = &resource.RouteAction{Clusters: vh.Routes[0].Action.Clusters, TotalWeight: 1, Timeout: 5 * time.Second}
		vh.Routes = append([]*resource.Route{&connect}, vh.Routes...)
		edit(s)
	})}
	err := f.r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) { f.peers = append(f.peers, p) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func asIs(*resource.Snapshot) {}

// terminated makes tunnels of CONNECT end at the proxy.
func terminated(s *resource.Snapshot) {
	s.Routes["r"].VirtualHosts[0].Routes[0].Action.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}}
}

// open asks for a tunnel and has the upstream agree.
func (f *far) open() (client, server *sim.Peer) {
	f.r.t.Helper()
	client = f.r.dial()
	client.Write([]byte(ask))
	f.r.until("the request upstream", time.Second, func() bool { return strings.HasSuffix(f.got(), "\r\n\r\n") })
	server = f.last()
	server.Received = nil
	server.Write([]byte(agreed))
	f.r.until("the agreement", time.Second, func() bool { return bytes.HasSuffix(client.Received, []byte("\r\n\r\n")) })
	client.Received = nil
	return client, server
}

// upgrades is the manager's counters of tunnels.
func (f *far) upgrades() (total, active uint64) {
	s := f.r.p.managers["test"].on[0]
	return s.upgradesTotal, s.upgradesActive
}

// over checks that the tunnel has left nothing behind.
func (f *far) over() {
	f.r.t.Helper()
	f.r.until("all is given back", time.Minute, func() bool {
		return f.r.p.managers["test"].on[0].rqActive == 0 && f.r.p.slots["c"].spec.Load().limits.Use().Connections.Active == 0
	})
	if _, active := f.upgrades(); active != 0 {
		f.r.t.Errorf("%d tunnels are still counted", active)
	}
	f.r.settled()
}

func TestATunnelOpensWithTheAgreementOfTheUpstreamAndNotBefore(t *testing.T) {
	f := newFar(t, asIs)
	c := f.r.dial()
	c.Write([]byte(ask + "EARLY"))
	if err := f.r.world.Run(time.Second); err != nil {
		t.Fatal(err)
	}
	head := f.got()
	for _, want := range []string{"GET /chat HTTP/1.1\r\n", "upgrade: WebSocket\r\n", "connection: upgrade\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"} {
		if !strings.Contains(head, want) {
			t.Errorf("no %q in %q", want, head)
		}
	}
	for _, bad := range []string{"EARLY", "ettings", "keep-alive"} {
		if strings.Contains(head, bad) {
			t.Errorf("%q before the agreement in %q", bad, head)
		}
	}
	s := f.last()
	s.Received = nil
	s.Write([]byte(agreed + "HELLO"))
	f.r.until("what was sent ahead", time.Second, func() bool { return f.got() == "EARLY" })
	f.r.until("what came with the agreement", time.Second, func() bool { return bytes.HasSuffix(c.Received, []byte("\r\n\r\nHELLO")) })
	if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(got, "upgrade: websocket\r\nconnection: upgrade\r\n") {
		t.Errorf("the agreement came as %q", got)
	}
	c.Write([]byte("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"))
	s.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.r.until("bytes are bytes", time.Second, func() bool {
		return f.got() == "EARLYGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" && bytes.HasSuffix(c.Received, []byte("HTTP/1.1 200 OK\r\n\r\n"))
	})
	if total, active := f.upgrades(); total != 1 || active != 1 {
		t.Errorf("%d tunnels counted, %d active", total, active)
	}
	on := f.r.p.workers[0].clusterOn(f.r.p.slots["c"])
	if on.stats.rq1xx != 1 || on.stats.rqActive != 1 {
		t.Errorf("the cluster counted %d handshakes, %d active", on.stats.rq1xx, on.stats.rqActive)
	}
	s.CloseWrite()
	c.CloseWrite()
	f.over()
}

// CVE-2024-23326 took any answer for consent.
func TestAnAnswerThatDoesNotAgreeIsAResponse(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
	} {
		for _, ahead := range []string{"", "GET /ahead HTTP/1.1\r\nHost: x\r\n\r\n"} {
			f := newFar(t, asIs)
			c := f.r.dial()
			c.Write([]byte(ask + ahead))
			f.r.until("the request", time.Second, func() bool { return strings.HasSuffix(f.got(), "\r\n\r\n") })
			f.last().Received = nil
			f.last().Write([]byte(answer))
			f.r.until("the answer", time.Second, func() bool { return bytes.HasPrefix(c.Received, []byte(answer[:12])) })
			c.Write([]byte("GET /next HTTP/1.1\r\nHost: x\r\n\r\n"))
			if err := f.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			next := strings.HasPrefix(f.got(), "GET /next ")
			if next != (ahead == "") || strings.Contains(f.got(), "/ahead") {
				t.Errorf("%.12s, ahead %q: then the upstream got %q", answer, ahead, f.got())
			}
			if total, _ := f.upgrades(); total != 0 {
				t.Errorf("%.12s was counted as a tunnel", answer)
			}
		}
	}
}

func TestAnAgreementToSomethingElseIsAFault(t *testing.T) {
	for _, answer := range []string{
		strings.Replace(agreed, "websocket", "h2c", 1),
		strings.Replace(agreed, "websocket", "other", 1),
		strings.Replace(agreed, "Upgrade: websocket\r\n", "", 1),
	} {
		f := newFar(t, asIs)
		c := f.r.dial()
		c.Write([]byte(ask))
		f.r.until("the request", time.Second, func() bool { return strings.HasSuffix(f.got(), "\r\n\r\n") })
		f.last().Write([]byte(answer + "EVIL"))
		f.r.until("the refusal", time.Second, func() bool { return len(c.Received) > 0 })
		if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 502 ") || strings.Contains(got, "EVIL") {
			t.Errorf("%q became %q", answer, got)
		}
		f.over()
	}
}

func TestOnlyProtocolsThatAreEnabledArePassedOn(t *testing.T) {
	for _, c := range []struct {
		name    string
		manager []resource.Upgrade
		route   []resource.Upgrade
		ask     string
		passed  bool
	}{
		{"by the manager", []resource.Upgrade{{Type: "websocket", Enabled: true}}, nil, ask, true},
		{"by none", nil, nil, ask, false},
		{"by the route alone", nil, []resource.Upgrade{{Type: "websocket", Enabled: true}}, ask, true},
		{"by the manager and not the route", []resource.Upgrade{{Type: "websocket", Enabled: true}}, []resource.Upgrade{{Type: "websocket"}}, ask, false},
		{"another one", []resource.Upgrade{{Type: "spdy/3.1", Enabled: true}}, nil, ask, false},
		{"a list", []resource.Upgrade{{Type: "websocket", Enabled: true}}, nil, strings.Replace(ask, "WebSocket", "websocket, h2c", 1), false},
		{"h2c, whatever is enabled", []resource.Upgrade{{Type: "h2c", Enabled: true}}, nil, strings.Replace(ask, "WebSocket", "h2c", 1), false},
		{"not nominated", []resource.Upgrade{{Type: "websocket", Enabled: true}}, nil, strings.Replace(ask, "Upgrade, ", "", 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFar(t, func(s *resource.Snapshot) {
				s.Listeners["l"].FilterChains[0].HTTP.Upgrades = c.manager
				s.Routes["r"].VirtualHosts[0].Routes[1].Action.Upgrades = c.route
			})
			f.r.dial().Write([]byte(c.ask))
			f.r.until("the request", time.Second, func() bool { return strings.HasSuffix(f.got(), "\r\n\r\n") })
			if passed := strings.Contains(f.got(), "upgrade"); passed != c.passed {
				t.Errorf("passed on: %v in %q", passed, f.got())
			}
			f.last().Write([]byte(agreed))
			if err := f.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			if total, _ := f.upgrades(); (total == 1) != c.passed {
				t.Errorf("%d tunnels", total)
			}
		})
	}
}

func TestEachDirectionOfATunnelEndsByItself(t *testing.T) {
	for _, clientFirst := range []bool{true, false} {
		f := newFar(t, asIs)
		c, s := f.open()
		a, b := c, s
		if !clientFirst {
			a, b = s, c
		}
		a.Write([]byte("last words"))
		a.CloseWrite()
		f.r.until("the half-close", time.Second, func() bool { return b.EOF })
		if string(b.Received) != "last words" || a.EOF {
			t.Errorf("client first %v: got %q before the end, the other direction ended: %v", clientFirst, b.Received, a.EOF)
		}
		b.Write([]byte("a long answer"))
		f.r.until("the answer", time.Second, func() bool { return string(a.Received) == "a long answer" })
		b.CloseWrite()
		f.r.until("the end", time.Second, func() bool { return a.EOF })
		f.over()
	}
}

func TestAResetOfATunnelGoesAcross(t *testing.T) {
	f := newFar(t, asIs)
	c, s := f.open()
	s.Reset()
	f.r.until("the reset downstream", time.Second, func() bool { return c.Err != nil })
	f.over()

	c, s = f.open()
	c.Reset()
	f.r.until("the end upstream", time.Second, func() bool { return s.EOF || s.Err != nil })
	f.over()
}

func TestATunnelEndsWhenNothingMovesAndNotBefore(t *testing.T) {
	f := newFar(t, func(s *resource.Snapshot) {
		a := s.Routes["r"].VirtualHosts[0].Routes[1].Action
		a.IdleTimeout, a.HasIdleTimeout = time.Minute, true
		a.Timeout = 2 * time.Second // is for the handshake
	})
	c, s := f.open()
	for range 5 {
		if err := f.r.world.Run(50 * time.Second); err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("x"))
	}
	f.r.until("five bytes", time.Second, func() bool { return len(c.Received) == 5 })
	start := f.r.world.Now()
	f.r.until("the end", 2*time.Minute, func() bool { return c.EOF && s.EOF })
	if took := f.r.world.Now() - start; took < 59*time.Second || took > 61*time.Second {
		t.Errorf("ended after %v", took)
	}
	if n := f.r.p.managers["test"].on[0].rqIdleTimeout; n != 1 {
		t.Errorf("%d idle timeouts counted", n)
	}
	c.CloseWrite()
	f.over()
}

func TestATunnelOutlivesChangesAndEndsWithTheDrainTime(t *testing.T) {
	f := newFar(t, asIs)
	c, s := f.open()
	was := f.r.snap.Listeners["l"]
	changed := func(name, server string) {
		l, chain, m := *was, *was.FilterChains[0], *was.FilterChains[0].HTTP
		m.ServerName = server
		chain.Name, chain.HTTP = name, &m
		l.FilterChains = []*resource.FilterChain{&chain}
		f.r.snap.Listeners["l"] = &l
	}
	changed("main", "changed")
	f.r.snap.Assignments["c"] = assignment("c", "10.0.0.9:81")
	delete(f.r.snap.Routes, "r")
	f.r.apply()
	c.Write([]byte("still"))
	f.r.until("bytes", time.Second, func() bool { return string(s.Received) == "still" })
	changed("another", "changed") // the chain goes
	f.r.apply()
	start := f.r.world.Now()
	f.r.until("the end", time.Minute, func() bool { return c.EOF && s.EOF })
	if took := f.r.world.Now() - start; took < 8*time.Second || took > 11*time.Second {
		t.Errorf("drained after %v", took)
	}
	if n := f.r.p.workers[0].stats.upgradesDrained; n != 1 {
		t.Errorf("%d drained", n)
	}
	c.CloseWrite()
	f.r.until("all is given back", time.Minute, func() bool { return f.r.p.managers["test"].on[0].rqActive == 0 })
}
