// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The part of tunnels in the random walk of sim_test.go: requests that ask for
// one, and upstreams that agree and then do what they like.

// mayTunnel enables upgrades, and CONNECT, passed on or terminated.
func mayTunnel(rng *rand.Rand, s *resource.Snapshot) {
	s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: "websocket", Enabled: true}}
	vh := s.Routes["r"].VirtualHosts[0]
	r := *vh.Routes[0]
	r.Match = resource.RouteMatch{Kind: resource.PathConnect}
	a := *vh.Routes[0].Action
	a.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: rng.IntN(2) == 0}}
	r.Action = &a
	vh.Routes = append([]*resource.Route{&r}, vh.Routes...)
}

func asksForTunnel(head string) bool {
	return strings.Contains(head, "upgrade: websocket") || strings.HasPrefix(head, "CONNECT ")
}

// tunnelRequest asks for a tunnel; sometimes bytes follow that do not wait.
func tunnelRequest(rng *rand.Rand, id string) string {
	msg := "GET /" + id + " HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
	if rng.IntN(2) == 0 {
		msg = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n"
	}
	if rng.IntN(2) == 0 {
		msg += strings.Repeat("t", rng.IntN(200_000))
	}
	return msg
}

// runTunnel agrees, says something, echoes, and ends somehow or not at all.
func runTunnel(rng *rand.Rand, r *simRig, p *sim.Peer, id string) {
	p.OnData = func(p *sim.Peer, b []byte) { p.Write(b) }
	if id == "" { // CONNECT has no path
		p.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	} else {
		p.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"))
	}
	p.Write(fmt.Appendf(nil, "%s", strings.Repeat("u", rng.IntN(3)*rng.IntN(100_000))))
	at := time.Duration(rng.IntN(300)) * time.Millisecond
	switch rng.IntN(5) {
	case 0:
		r.world.At(at, p.Close)
	case 1:
		r.world.At(at, p.Reset)
	case 2:
		r.world.At(at, p.CloseWrite)
	case 3:
		p.Hold()
		r.world.At(at, p.Release)
	}
}
