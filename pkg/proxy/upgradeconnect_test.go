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

const connect = "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"

func TestCONNECTIsRefusedWhereNothingEnablesIt(t *testing.T) {
	for _, c := range []struct {
		name, want string
		edit       func(*resource.Snapshot)
	}{
		{"without a route", "HTTP/1.1 404 ", func(s *resource.Snapshot) {
			vh := s.Routes["r"].VirtualHosts[0]
			vh.Routes = vh.Routes[1:]
		}},
		{"without an upgrade", "HTTP/1.1 403 ", func(s *resource.Snapshot) { s.Listeners["l"].FilterChains[0].HTTP.Upgrades = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFar(t, c.edit)
			client := f.r.dial()
			client.Write([]byte(connect + "GET /ahead HTTP/1.1\r\nHost: x\r\n\r\n"))
			f.r.until("the refusal", time.Second, func() bool { return client.EOF })
			got := string(client.Received)
			if !strings.HasPrefix(got, c.want) || strings.Count(got, "HTTP/1.1 ") != 1 || len(f.peers) != 0 {
				t.Errorf("got %q, %d connections upstream", got, len(f.peers))
			}
			client.CloseWrite()
			f.over()
		})
	}
}

// CVE-2025-64763: what came before the answer went through.
func TestCONNECTIsPassedOnAndOpensWithTheAnswer(t *testing.T) {
	for _, answer := range []string{"HTTP/1.1 200 Connection established\r\n\r\n", "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n"} {
		f := newFar(t, asIs)
		c := f.r.dial()
		c.Write([]byte(connect + "EARLY"))
		if err := f.r.world.Run(time.Second); err != nil {
			t.Fatal(err)
		}
		if got := f.got(); !strings.HasPrefix(got, "CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n") || strings.Contains(got, "EARLY") {
			t.Errorf("the upstream got %q", got)
		}
		f.last().Received = nil
		f.last().Write([]byte(answer + "server first"))
		f.r.until("the tunnel", time.Second, func() bool { return f.got() == "EARLY" && bytes.HasSuffix(c.Received, []byte("server first")) })
		head, _, _ := strings.Cut(string(c.Received), "\r\n\r\n")
		if !strings.HasPrefix(head, answer[:12]) || strings.Contains(head, "ontent-") || strings.Contains(head, "onnection:") {
			t.Errorf("the client got %q", head)
		}
		c.CloseWrite()
		f.last().CloseWrite()
		f.over()
	}
}

func TestCONNECTThatTheUpstreamRefusesEndsTheConnection(t *testing.T) {
	f := newFar(t, asIs)
	c := f.r.dial()
	c.Write([]byte(connect))
	f.r.until("the request", time.Second, func() bool { return f.got() != "" })
	f.last().Write([]byte("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"))
	f.r.until("the refusal", time.Second, func() bool { return c.EOF })
	if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 407 ") || !strings.Contains(got, "connection: close\r\n") {
		t.Errorf("got %q", got)
	}
	f.r.settled()
}

func TestATerminatedCONNECTCarriesRawBytes(t *testing.T) {
	f := newFar(t, terminated)
	c := f.r.dial()
	c.Write([]byte(connect + "EARLY"))
	f.r.until("what was sent ahead", time.Second, func() bool { return f.got() == "EARLY" })
	if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\n") || strings.Contains(got, "ontent-length") || strings.Contains(got, "chunked") {
		t.Errorf("answered %q", got)
	}
	c.Received = nil
	s := f.last()
	s.Write([]byte("pong"))
	s.CloseWrite()
	f.r.until("the half-close", time.Second, func() bool { return c.EOF })
	c.Write([]byte("more"))
	c.CloseWrite()
	f.r.until("the rest", time.Second, func() bool { return s.EOF })
	if string(c.Received) != "pong" || f.got() != "EARLYmore" {
		t.Errorf("got %q and %q", c.Received, f.got())
	}
	f.over()
}

// A database greets first, and may have ended before the client is told.
func TestAnEndpointThatSpeaksFirstIsHeardBehindTheAnswer(t *testing.T) {
	f := newFar(t, terminated)
	err := f.r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:81")), func(p *sim.Peer) {
		p.Write([]byte("greeting"))
		p.CloseWrite()
	})
	if err != nil {
		t.Fatal(err)
	}
	f.r.snap.Assignments["c"] = assignment("c", "10.0.0.9:81")
	f.r.apply()
	c := f.r.dial()
	c.Write([]byte(connect))
	f.r.until("greeting and end", time.Second, func() bool { return c.EOF })
	if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasSuffix(got, "\r\n\r\ngreeting") {
		t.Errorf("got %q", got)
	}
	c.CloseWrite()
	f.over()
}

func TestATerminatedCONNECTWithoutAnEndpointIsAnswered(t *testing.T) {
	for _, silent := range []bool{true, false} {
		f := newFar(t, terminated)
		f.r.snap.Assignments["c"] = assignment("c", "10.0.0.9:99")
		f.r.apply()
		f.r.world.Blackhole(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:99")), silent)
		c := f.r.dial()
		c.Write([]byte(connect))
		f.r.until("the answer", 10*time.Second, func() bool { return len(c.Received) > 0 })
		if got := string(c.Received); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
			t.Errorf("silent %v: got %q", silent, got)
		}
		c.Close()
		f.over()

		// And a client that goes away meanwhile.
		c = f.r.dial()
		c.Write([]byte(connect))
		f.r.world.At(20*time.Millisecond, c.Reset)
		if err := f.r.world.Run(time.Second); err != nil {
			t.Fatal(err)
		}
		f.over()
	}
}

// A reader that reads nothing stops the other side's sending: what waits in the
// proxy is bounded whatever is sent.
func TestATunnelHoldsNoMoreThanItsBuffers(t *testing.T) {
	for _, open := range []string{ask, connect} {
		f := newFar(t, asIs)
		c := f.r.dial()
		c.Write([]byte(open))
		f.r.until("the request", time.Second, func() bool { return strings.HasSuffix(f.got(), "\r\n\r\n") })
		s := f.last()
		s.Received = nil
		if open == ask {
			s.Write([]byte(agreed))
		} else {
			s.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		}
		f.r.until("the agreement", time.Second, func() bool { return bytes.HasSuffix(c.Received, []byte("\r\n\r\n")) })
		c.Received = nil
		const size = 8 << 20
		block := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		for _, dir := range []struct{ from, to *sim.Peer }{{c, s}, {s, c}} {
			dir.to.Hold()
			dir.from.Write(block)
			if err := f.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			if gone := size - dir.from.Unsent(); gone > 1<<20 {
				t.Errorf("%d bytes were taken for a reader that reads none", gone)
			}
			dir.to.Release()
			f.r.until("all of it", time.Minute, func() bool { return len(dir.to.Received) == size })
			if !bytes.Equal(dir.to.Received, block) {
				t.Error("the bytes are not those that were sent")
			}
		}
		c.CloseWrite()
		s.CloseWrite()
		f.over()
	}
}
