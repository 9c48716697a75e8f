// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// tcpSim is a TCP proxy before the cluster "c" of 10.0.0.9:80, where nobody listens.
func tcpSim(t *testing.T, edit func(*resource.Snapshot)) (*simRig, *lb.Host) {
	t.Helper()
	r := newSim(t, 3, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80").Outlier = &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100, Interval: 100 * time.Millisecond, BaseEjection: time.Minute, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
		edit(s)
	})
	return r, r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
}

// refused makes n connections whose upstream cannot be reached.
func (r *simRig) refused(n int) {
	r.t.Helper()
	for range n {
		c := r.dial()
		r.until("the connection's end", time.Minute, func() bool { return c.EOF || c.Err != nil })
	}
}

func TestAHostThatOnlyTCPProxiesUseIsEjected(t *testing.T) {
	r, host := tcpSim(t, asIs)
	r.refused(3)
	r.until("the ejection", 10*time.Second, host.Ejected)
	r.until("the host's return", 10*time.Minute, func() bool { return !host.Ejected() })
}

func TestATCPConnectionThatIsAcceptedInADrainIsToldOfItsEnd(t *testing.T) {
	r, _ := tcpSim(t, asIs)
	r.serve("10.0.0.9:80", func(*sim.Peer, string) {})
	whole := r.p.options.DrainTime
	drain := func() { // as Drain begins it, which waits by the real clock
		r.p.listeners["l"].drains.Store(true)
		r.p.workers[0].loop.PostOffLoop(r.p.workers[0].drainListeners)
	}
	start := r.world.Now()
	drain()
	r.pass(whole / 4)
	first := r.dial()
	r.until("the first one is told", whole, func() bool { return first.EOF })
	if took := r.world.Now() - start; took < whole/2 || took > whole-noticeTime/2 {
		t.Errorf("told %v after a drain of %v began, want some time before its end", took, whole)
	}
	// The process goes on, and another drain may come.
	r.pass(2 * whole)
	start = r.world.Now()
	later := r.dial()
	r.until("a later one is told", 2*whole, func() bool { return later.EOF })
	if took := r.world.Now() - start; took < whole/2 {
		t.Errorf("a connection behind the drain was told after %v", took)
	}
}

func TestATCPConnectionIsCountedThoughItsClusterGoesAndComesBack(t *testing.T) {
	r, _ := tcpSim(t, asIs)
	if err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) {
		p.OnData = func(p *sim.Peer, b []byte) { p.Write(b) }
		p.OnEOF = func(p *sim.Peer) { p.Close() }
	}); err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	c.Write([]byte("x"))
	r.until("an answer", time.Second, func() bool { return len(c.Received) > 0 })
	s := *r.p.snapshot
	for range 2 { // without it, and with it
		next := s
		next.Clusters = map[string]*resource.Cluster{}
		if next.Version = r.p.snapshot.Version + 1; r.p.slots["c"].spec.Load() == nil {
			next.Clusters = s.Clusters
		}
		if err := r.p.Apply(frozen(&next)); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
	}
	w := r.p.workers[0]
	if on := w.clusterOn(r.p.slots["c"]); on.stats.cxActive != 1 {
		t.Errorf("%d connections are counted, want the one", on.stats.cxActive)
	}
	c.Close()
	r.pass(time.Second)
	if on := w.clusterOn(r.p.slots["c"]); on.stats.cxActive != 0 || on.stats.cxDestroy != 1 {
		t.Errorf("%d connections are counted as open, %d as closed", on.stats.cxActive, on.stats.cxDestroy)
	}
}

// pass lets time go by.
func (r *simRig) pass(d time.Duration) {
	r.t.Helper()
	until := r.world.Now() + d
	r.until("time passes", d+time.Second, func() bool { return r.world.Now() >= until })
}
