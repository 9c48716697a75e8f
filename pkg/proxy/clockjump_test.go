// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TestJumpsOfTheWallClockTimeNobodyOut sets the clock ahead and back by hours and years
// while requests are under way, connections idle and an endpoint is ejected: all of that
// is measured by a clock that cannot be set.
func TestJumpsOfTheWallClockTimeNobodyOut(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour back": -time.Hour, "a year ahead": year, "a year back": -year,
	} {
		t.Run(name, func(t *testing.T) {
			const timeout = 2 * time.Second
			r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.2:80")
				s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = timeout
			})
			r.serve("10.0.0.2:80", func(p *sim.Peer, head string) {
				if strings.Contains(head, "/never") {
					return
				}
				r.world.At(time.Second, func() { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) })
			})
			type client struct {
				*sim.Peer
				got    string
				closed bool
				at     time.Duration
			}
			dial := func(request string) *client {
				c := &client{Peer: r.dial()}
				c.OnData = func(_ *sim.Peer, b []byte) { c.got, c.at = c.got+string(b), r.world.Now() }
				c.OnEOF = func(*sim.Peer) { c.closed = true }
				c.Write([]byte(request))
				return c
			}
			get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }
			began := r.world.Now()
			slow, never, idle := dial(get("/slow")), dial(get("/never")), dial("")
			r.world.At(500*time.Millisecond, func() { r.world.SetWall(jump) })
			r.until("the answers", 10*time.Second, func() bool { return slow.got != "" && never.got != "" })
			if !strings.HasPrefix(slow.got, "HTTP/1.1 200") {
				t.Errorf("an answer after a second: %q", slow.got)
			}
			if took := never.at - began; !strings.HasPrefix(never.got, "HTTP/1.1 504") || took < timeout || took > timeout+200*time.Millisecond {
				t.Errorf("a request with a timeout of %v: %q after %v", timeout, never.got, took)
			}
			if idle.closed {
				t.Error("an idle connection was closed")
			}
			slow.got = ""
			slow.Write([]byte(get("/again")))
			r.until("an answer on a connection of before", 10*time.Second, func() bool { return strings.HasPrefix(slow.got, "HTTP/1.1 200") })
		})
	}
}

// TestAnswersOfAStandstillAreNoTimeouts lets the loop stand still for longer than the
// timeouts of many requests, which are answered meanwhile.
func TestAnswersOfAStandstillAreNoTimeouts(t *testing.T) {
	const n = 300 // more than a tick takes
	r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.2:80")
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = time.Second
	})
	asked := 0
	r.serve("10.0.0.2:80", func(p *sim.Peer, _ string) {
		asked++
		r.world.At(500*time.Millisecond, func() { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) })
	})
	var clients []*sim.Peer
	for range n {
		c := r.dial()
		c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		clients = append(clients, c)
	}
	r.until("the requests at the upstream", 400*time.Millisecond, func() bool { return asked == n })
	r.world.Stall(30 * time.Second)
	late := 0
	r.until("the answers", time.Minute, func() bool {
		for _, c := range clients {
			if len(c.Received) == 0 {
				return false
			}
		}
		return true
	})
	for _, c := range clients {
		if !strings.HasPrefix(string(c.Received), "HTTP/1.1 200") {
			late++
		}
	}
	if late > 0 {
		t.Errorf("%d of %d requests that were answered in time failed", late, n)
	}
}
