// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/record"
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
		tunnel := r.p.workers[0].tunnels
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
		if d, f := tunnel.rec.CloseDetails, tunnel.rec.Flags; d != "upstream_transport_security_changed" || f != record.LR {
			t.Errorf("logged %q and flags %v", d, f)
		}
	})
}

// A change that is taken back in time ends nothing, also where the settings come anew.
func TestTCPConnectionsStayWhenAChangeOfTheirTransportIsTakenBack(t *testing.T) {
	r, _ := tcpSim(t, asIs)
	var ends []*sim.Peer
	if err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) { ends = append(ends, p) }); err != nil {
		t.Fatal(err)
	}
	use := func(secure *resource.UpstreamTLS) {
		c := *r.snap.Clusters["c"]
		c.TLS = secure
		r.snap.Clusters["c"] = &c
		r.apply()
	}
	client, whole := r.dial(), r.p.options.DrainTime
	r.until("it is open", time.Minute, func() bool { return len(ends) == 1 && r.p.workers[0].tunnels != nil && r.p.workers[0].tunnels.open })
	m := newMint(t)
	secure := upstreamTLS(m)
	for range 2 {
		use(secure)
		r.pass(whole / 2)
		use(nil)
		r.pass(2 * whole)
	}
	client.Write([]byte("still here"))
	r.until("bytes", time.Minute, func() bool { return string(ends[0].Received) == "still here" })
	// In a drain that began before, it ends with that, and says so.
	use(secure)
	tunnel := r.p.workers[0].tunnels
	tunnel.retire = tunnel.leaves - int64(whole/2)
	tunnel.arm()
	start := r.world.Now()
	r.until("both are told", time.Minute, func() bool { return client.EOF && ends[0].EOF })
	if took := r.world.Now() - start; took > whole*3/4 {
		t.Errorf("told after %v", took)
	}
	if d := tunnel.rec.CloseDetails; d != "drain_time_over" || tunnel.rec.Flags != 0 {
		t.Errorf("logged %q and flags %v", d, tunnel.rec.Flags)
	}
}

// What a cluster goes back to is what its connections were made with.
func TestSettingsThatComeBackAreTheSame(t *testing.T) {
	r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80") })
	m := newMint(t)
	one, two := upstreamTLS(m), upstreamTLS(m)
	two.SNI = "other"
	var used []*resource.UpstreamTLS
	for _, secure := range []*resource.UpstreamTLS{one, two, nil, one} {
		c := *r.snap.Clusters["c"]
		if c.TLS = secure; secure != nil {
			anew := *secure
			c.TLS = &anew
		}
		r.snap.Clusters["c"] = &c
		r.apply()
		if list := r.p.slots["c"].transports(); len(list) > 0 {
			used = append(used, list[0].res)
		}
	}
	if used[0] != used[2] || used[0] == used[1] {
		t.Errorf("used %p, %p and again %p", used[0], used[1], used[2])
	}
	for range 100 {
		other := *one
		other.SNI = fmt.Sprint(len(r.p.slots["c"].settings), &other)
		r.p.slots["c"].known(&other)
	}
	if n := len(r.p.slots["c"].settings); n != maxSettings {
		t.Errorf("%d are kept", n)
	}
}

// Endpoints come and go all the time: connections are gone through only for what can
// outdate them.
func TestConnectionsAreLookedThroughOnlyWhenTheirTransportHasChanged(t *testing.T) {
	m := newMint(t)
	secure, other := upstreamTLS(m), upstreamTLS(m)
	other.SNI = "other"
	r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80", "10.0.0.9:81") })
	match := func(value string, tls *resource.UpstreamTLS) func(*resource.Cluster, *resource.Assignment) {
		return func(c *resource.Cluster, _ *resource.Assignment) {
			c.SocketMatches = []resource.SocketMatch{{Match: map[string]string{"k": value}, TLS: tls}}
		}
	}
	about := func(namespace, value string) func(*resource.Cluster, *resource.Assignment) {
		return func(_ *resource.Cluster, a *resource.Assignment) {
			a.Localities[0].Endpoints[0].Metadata = resource.Metadata{namespace: {"k": value}}
		}
	}
	for i, step := range []struct {
		what  string
		edit  func(*resource.Cluster, *resource.Assignment)
		looks bool
	}{
		{"an endpoint goes", func(_ *resource.Cluster, a *resource.Assignment) {
			a.Localities[0].Endpoints = a.Localities[0].Endpoints[:1]
		}, false},
		{"metadata, which nothing asks for", about(resource.MatchNamespace, "0"), false},
		{"a timeout", func(c *resource.Cluster, _ *resource.Assignment) { c.ConnectTimeout = time.Minute }, false},
		{"TLS", func(c *resource.Cluster, _ *resource.Assignment) { c.TLS = secure }, true},
		{"the same TLS anew", func(c *resource.Cluster, _ *resource.Assignment) { anew := *secure; c.TLS = &anew }, false},
		{"TLS with other settings", func(c *resource.Cluster, _ *resource.Assignment) { c.TLS = other }, true},
		{"a match", match("1", secure), true},
		{"an endpoint that comes to match", about(resource.MatchNamespace, "1"), true},
		{"the same metadata anew", about(resource.MatchNamespace, "1"), false},
		{"another match", match("2", secure), true},
		{"other metadata", func(_ *resource.Cluster, a *resource.Assignment) {
			a.Localities[0].Endpoints[0].Metadata = resource.Metadata{"envoy.lb": {"x": "y"}, resource.MatchNamespace: {"k": "1"}}
		}, false},
		{"no TLS, no match", func(c *resource.Cluster, _ *resource.Assignment) { c.TLS, c.SocketMatches = nil, nil }, true},
	} {
		c, a := *r.snap.Clusters["c"], *r.snap.Assignments["c"]
		a.Localities = slices.Clone(a.Localities)
		a.Localities[0].Endpoints = slices.Clone(a.Localities[0].Endpoints)
		step.edit(&c, &a)
		r.snap.Clusters["c"], r.snap.Assignments["c"] = &c, &a
		names := r.p.changedClusters(r.snap)
		done := r.p.applyClusters(frozen(r.snap), names)
		if len(done.changed) != 1 || (len(done.outdated) == 1) != step.looks {
			t.Errorf("%d, %s: %d changed, %d may be outdated, want %t", i, step.what, len(done.changed), len(done.outdated), step.looks)
		}
	}
}

// recorded keeps what access logs would say.
type recorded struct{ lines []string }

// Consume implements record.Consumer.
func (c *recorded) Consume(r *record.Record) {
	c.lines = append(c.lines, fmt.Sprintf("%d %s %s", r.Status, r.Flags, r.Details))
}

// logged has the exchanges of the first chain recorded.
func (r *simRig) logged() func() []string {
	c := &recorded{}
	r.p.listeners["l"].config.Load().chains[0].manager.Load().consumer = c
	return func() []string {
		r.p.workers[0].ring.Drain(1000)
		return c.lines
	}
}

// use is transportRig.use of a span.
func (s *span) use(secure *resource.UpstreamTLS) {
	s.r.t.Helper()
	c := *s.r.snap.Clusters["c"]
	c.TLS = secure
	s.r.snap.Clusters["c"] = &c
	s.r.apply()
}

// goesOn checks that bytes still come through.
func (s *span) goesOn(c, up *wireEnd, text string) {
	s.r.t.Helper()
	c.write([]byte(text), false)
	s.r.until("bytes", time.Second, func() bool { return strings.HasSuffix(string(up.data), text) })
}

// A tunnel survives what changes of its endpoint, but not in the clear where others
// are made over TLS, nor the other way round.
func TestTunnelsMadeInAnotherWayEndWithTheDrainTime(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		m := newMint(t)
		lines := s.r.logged()
		c, up := s.open("")
		whole := s.r.p.options.DrainTime
		pass := func(d time.Duration) {
			t.Helper()
			if err := s.r.world.Run(d); err != nil {
				t.Fatal(err)
			}
		}
		s.use(nil) // the same, decoded anew
		pass(2 * whole)
		s.goesOn(c, up, "one")
		s.use(upstreamTLS(m))
		pass(whole / 2)
		s.goesOn(c, up, "two")
		s.use(nil) // taken back in time
		pass(2 * whole)
		s.goesOn(c, up, "three")
		s.use(upstreamTLS(m))
		start := s.r.world.Now()
		s.r.until("both are told", time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
		if took := s.r.world.Now() - start; took < whole-time.Second || took > whole+2*time.Second {
			t.Errorf("told after %v, want %v", took, whole)
		}
		if n := s.r.p.workers[0].stats.upgradesDrained; n != 1 {
			t.Errorf("%d are counted", n)
		}
		status := "101"
		if s.connect {
			status = "200"
		}
		if got, want := lines(), []string{status + " LR upstream_transport_security_changed"}; !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
		s.closed(c)
	})
}

// A response that has no end is no better than a tunnel.
func TestResponsesOnConnectionsMadeInAnotherWayEndWithTheDrainTime(t *testing.T) {
	overEach(t, func(t *testing.T, ask string, edit func(*resource.Snapshot)) {
		m := newMint(t)
		r := newTransportRig(t, m, func(s *resource.Snapshot) {
			edit(s)
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 0
		}, func(r *transportRig, e *wireEnd) {
			if r.snap.Clusters["c"].HTTP2 {
				e.attach(http2.Server, http2.Limits{})
			} else {
				e.plain()
			}
		}, ask)
		if ask == connect || r.snap.Listeners["l"].FilterChains[0].TCP != nil {
			t.Skip("of requests alone")
		}
		lines := r.logged()
		end := r.ends[0]
		r.until("the request", time.Minute, func() bool { return end.head != "" })
		if end.codec != nil {
			end.peer.Write(end.codec.AppendResponse(nil, end.id, &codec.ResponseHead{Status: 200, BodyLength: codec.BodyChunked}, false))
		} else {
			end.peer.Write([]byte("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"))
		}
		r.until("it has begun", time.Minute, func() bool { return len(r.client.Received) > 0 })
		start := r.world.Now()
		r.use(upstreamTLS(m))
		r.until("both are told", time.Minute, func() bool { return r.client.EOF && end.peer.EOF })
		if took, whole := r.world.Now()-start, r.p.options.DrainTime; took < whole-time.Second || took > whole+2*time.Second {
			t.Errorf("told after %v, want %v", took, whole)
		}
		if strings.HasSuffix(string(r.client.Received), "0\r\n\r\n") {
			t.Error("the client takes it for whole")
		}
		if got, want := lines(), []string{"200 LR upstream_transport_security_changed"}; !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
		r.unharmed()
	})
}

// A listener that takes TLS from now on ends the tunnels that have come in the clear.
func TestTunnelsInTheClearEndWithTheDrainTimeOfAListenerThatTakesTLS(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		m := newMint(t)
		lines := s.r.logged()
		c, up := s.open("")
		l := *s.r.snap.Listeners["l"]
		chain := *l.FilterChains[0]
		chain.TLS = &resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{m.issue(shopID, time.Now().Add(time.Hour))}, Validation: m.trust(webID)}, RequireClientCertificate: true}
		l.FilterChains = []*resource.FilterChain{&chain}
		s.r.snap.Listeners["l"] = &l
		start := s.r.world.Now()
		s.r.apply()
		s.goesOn(c, up, "still")
		s.r.until("both are told", time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
		if took, whole := s.r.world.Now()-start, s.r.p.options.DrainTime; took < whole-time.Second || took > whole+2*time.Second {
			t.Errorf("told after %v, want %v", took, whole)
		}
		if n := s.r.p.workers[0].stats.upgradesDrained; n != 1 {
			t.Errorf("%d are counted", n)
		}
		if got := lines(); len(got) != 1 || !strings.HasSuffix(got[0], " drain_time_over") {
			t.Errorf("logged %q", got)
		}
		s.closed(c)
	})
}
