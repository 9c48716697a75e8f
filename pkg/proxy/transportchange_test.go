// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// slow gives time to change something while a connection is being dialled.
var slow = sim.Link{Latency: 50 * time.Millisecond}

// transportRig is a rig with one request under way to the endpoint of cluster c,
// whose connection is being dialled, and what the endpoint's connections are.
type transportRig struct {
	*simRig
	m      *mint
	client *sim.Peer
	ends   []*wireEnd
}

func newTransportRig(t *testing.T, m *mint, edit func(*resource.Snapshot), serve func(r *transportRig, e *wireEnd), ask string) *transportRig {
	t.Helper()
	r := &transportRig{m: m, simRig: newSim(t, 1, slow, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80").Outlier = &resource.OutlierDetection{
			Consecutive5xx: 1, Enforcing5xx: 100, Interval: 100 * time.Millisecond, BaseEjection: time.Minute, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
		edit(s)
	})}
	err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) {
		e := &wireEnd{t: t, peer: p}
		r.ends = append(r.ends, e)
		serve(r, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.client = r.dial()
	r.client.Write([]byte(ask))
	r.until("the endpoint has a connection, of which the proxy does not know yet", time.Minute, func() bool { return len(r.ends) == 1 })
	return r
}

// use changes what the cluster's connections are made with.
func (r *transportRig) use(secure *resource.UpstreamTLS) {
	r.t.Helper()
	c := *r.snap.Clusters["c"]
	c.TLS = secure
	r.snap.Clusters["c"] = &c
	r.apply()
}

func upstreamTLS(m *mint) *resource.UpstreamTLS {
	return &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{m.issue(webID, time.Now().Add(time.Hour))}, Validation: m.trust(shopID)}}
}

// unharmed checks that nothing was held against the endpoint.
func (r *transportRig) unharmed() {
	r.t.Helper()
	host := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
	if n := host.Stats.CxConnectFail.Load(); n != 0 || host.Ejected() {
		r.t.Errorf("%d failed connects, ejected: %t", n, host.Ejected())
	}
}

const plainGet = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// overEach runs a test for each kind of connection to an endpoint.
func overEach(t *testing.T, test func(t *testing.T, ask string, edit func(*resource.Snapshot))) {
	for _, c := range []struct {
		name, ask string
		edit      func(*resource.Snapshot)
	}{
		{"HTTP/1", plainGet, asIs},
		{"HTTP/2", plainGet, func(s *resource.Snapshot) { s.Clusters["c"].HTTP2 = true }},
		{"CONNECT that ends here", connect, func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true}}
			route := s.Routes["r"].VirtualHosts[0].Routes[0]
			route.Match = resource.RouteMatch{Kind: resource.PathConnect}
			route.Action.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}}
		}},
		{"TCP", plainGet, func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
				StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) { test(t, c.ask, c.edit) })
	}
}

// A request that waits for a connection is sent by what is configured when it leaves,
// not by what was when it came.
func TestAConnectionThatIsDialledWhenTLSComesCarriesNothingInTheClear(t *testing.T) {
	overEach(t, func(t *testing.T, ask string, edit func(*resource.Snapshot)) {
		m := newMint(t)
		r := newTransportRig(t, m, edit, func(r *transportRig, e *wireEnd) {
			if len(r.ends) == 1 && r.snap.Clusters["c"].HTTP2 {
				e.attach(http2.Server, http2.Limits{})
			}
		}, ask)
		r.use(upstreamTLS(m))
		// What is shaken there is work outside of the simulated time.
		r.until("another connection", time.Minute, func() bool { return len(r.ends) > 1 })
		for _, e := range r.ends {
			if e.head != "" || strings.Contains(string(e.peer.Received), "GET") {
				t.Errorf("in the clear: %q %q", e.head, e.peer.Received)
			}
		}
		if len(r.client.Received) != 0 {
			t.Errorf("the client was told %q", r.client.Received)
		}
		r.unharmed()
	})
}

// What fails because it was made in the old way is no failure of the endpoint.
func TestAHandshakeThatFailsBecauseTLSWasGivenUpIsNoFailure(t *testing.T) {
	overEach(t, func(t *testing.T, ask string, edit func(*resource.Snapshot)) {
		m := newMint(t)
		r := newTransportRig(t, m, func(s *resource.Snapshot) { edit(s); s.Clusters["c"].TLS = upstreamTLS(m) }, func(r *transportRig, e *wireEnd) {
			switch {
			case len(r.ends) == 1:
				e.peer.Reset()
			case r.snap.Clusters["c"].HTTP2:
				e.attach(http2.Server, http2.Limits{})
			}
		}, ask)
		r.use(nil)
		r.until("the request in the clear", time.Minute, func() bool {
			if len(r.ends) < 2 {
				return false
			}
			e := r.ends[1]
			return strings.HasPrefix(e.head, "GET") || strings.HasPrefix(string(e.peer.Received), "GET") || strings.HasPrefix(string(r.client.Received), "HTTP/1.1 200")
		})
		r.unharmed()
	})
}

// A TCP connection that is open does not stay in the clear for as long as it likes.
func TestTCPConnectionsMadeInAnotherWayEndWithTheDrainTime(t *testing.T) {
	overEach(t, func(t *testing.T, ask string, edit func(*resource.Snapshot)) {
		m := newMint(t)
		r := newTransportRig(t, m, edit, func(*transportRig, *wireEnd) {}, ask)
		if r.snap.Listeners["l"].FilterChains[0].TCP == nil {
			t.Skip("of TCP alone")
		}
		r.until("it is open", time.Minute, func() bool { return string(r.ends[0].peer.Received) == ask })
		r.use(nil)
		r.pass(2 * r.p.options.DrainTime)
		if r.client.EOF || r.ends[0].peer.EOF {
			t.Fatal("it ended though nothing has changed of it")
		}
		start := r.world.Now()
		r.use(upstreamTLS(m))
		r.until("both are told", time.Minute, func() bool { return r.client.EOF && r.ends[0].peer.EOF })
		if took, whole := r.world.Now()-start, r.p.options.DrainTime; took < whole-time.Second || took > whole+2*time.Second {
			t.Errorf("told after %v, want %v", took, whole)
		}
	})
}
