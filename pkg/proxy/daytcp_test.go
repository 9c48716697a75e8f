// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The TCP proxy of a day: a listener of its own, before clusters whose instances speak no
// protocol. Routes that terminate CONNECT lead to the same.

var dayTCPAddr = reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.1:90"))

// dayTCP is what was drawn for it.
type dayTCP struct {
	clusters []string // none: there is no TCP proxy
	attempts int
}

// drawTCP draws a listener with its clusters.
func (d *day) drawTCP() {
	rng, p := d.rng, &d.plan.tcp
	for i := range 1 + rng.IntN(2) {
		name := fmt.Sprintf("t%d", i)
		p.clusters = append(p.clusters, name)
		c := withCluster(d.snap, name)
		for j := range 1 + rng.IntN(4) {
			d.addInstance(name, fmt.Sprintf("10.2.%d.%d:90", i, j+1))
		}
		c.ConnectTimeout = one(rng, 20*ms, 300*ms)
		c.BufferLimit = one(rng, 64<<10, 4<<10)
		c.LB = drawBalancing(rng)
		c.Default = drawLimits(rng)
		if maybe(rng, 1, 2) {
			c.Outlier = drawOutlier(rng)
		}
		d.assign(name)
	}
	p.attempts = 1 + rng.IntN(3)
	t := &resource.TCPProxy{
		StatPrefix: "t", MaxConnectAttempts: p.attempts, IdleTimeout: one(rng, 0, 300*ms, 5*time.Second), HashSourceIP: maybe(rng, 1, 2),
		AccessLog: []*resource.AccessLog{{GRPC: &resource.GRPCLog{}}},
	}
	for _, name := range p.clusters {
		t.Clusters = append(t.Clusters, resource.WeightedCluster{Name: name, Weight: uint32(1 + rng.IntN(3))})
	}
	if maybe(rng, 1, 4) {
		t.Clusters = append(t.Clusters, resource.WeightedCluster{Name: "gone", Weight: 1})
	}
	fc := &resource.FilterChain{Name: "tcp", TCP: t}
	if maybe(rng, 1, 4) {
		fc.ConnectionLimit = 2 + rng.IntN(6)
	}
	d.snap.Listeners["t"] = &resource.Listener{
		Name: "t", BindToPort: true, BufferLimit: one(rng, 64<<10, 4<<10),
		Addresses:    []resource.Address{{Host: dayTCPAddr.Addr().String(), Port: dayTCPAddr.Port()}},
		FilterChains: []*resource.FilterChain{fc},
	}
}

// connectTCP begins a connection to the TCP proxy.
func (d *day) connectTCP() {
	p, err := d.world.Dial(dayTCPAddr)
	if err != nil {
		d.fail("%v", err)
	}
	e := d.newEnd(false, peerWire{p})
	e.kind = byTCP
	d.pipes[p.LocalAddr()] = e
	e.takes(p)
	e.begin()
}

// takes has the end hear what comes by a connection of its own.
func (e *dayEnd) takes(p *sim.Peer) {
	p.OnData = func(_ *sim.Peer, b []byte) { e.hears(b) }
	p.OnEOF = func(*sim.Peer) { e.ended() }
	p.OnError = func(*sim.Peer, error) { e.broken() }
}

// acceptTCP is a connection to an instance that speaks no protocol.
func (i *dayInstance) acceptTCP(p *sim.Peer) {
	d := i.d
	e := d.newEnd(true, peerWire{p})
	i.ends = append(i.ends, e)
	e.takes(p)
	switch rng := d.rng; {
	case maybe(rng, d.hard.cut, 100):
		e.later(time.Duration(rng.IntN(30))*ms, func() { e.leave(maybe(rng, 1, 2)) })
	case maybe(rng, d.hard.hang, 100):
		e.silent, e.total = true, 0
	}
	e.begin()
}

// loggedTCP takes the record of a connection to the TCP proxy.
func (d *day) loggedTCP(r *record.Record) {
	d.sums.tcpRecords++
	if int(r.Attempts) > d.plan.tcp.attempts {
		d.fail("%d attempts to connect, want %d at most", r.Attempts, d.plan.tcp.attempts)
	}
	if e := d.pipes[r.Remote]; e != nil {
		e.logged(r)
	}
}

// auditTunnels looks for tunnels that should have ended for want of activity, and counts
// connections to endpoints that belong to tunnels.
func (d *day) auditTunnels(w *worker) map[*clusterOn]int64 {
	const late = int64(10 * ms)
	now, n, ups := w.loop.Now(), uint64(0), map[*clusterOn]int64{}
	for t := w.tunnels; t != nil; t = t.next {
		if n++; t.up.conn != nil && !t.up.conn.Closed() {
			ups[t.on]++
		}
		if idle := int64(t.proxy.res.IdleTimeout); t.open && idle > 0 && now > t.active+idle+late {
			d.fail("a TCP connection is silent for %v, its idle timeout is %v", time.Duration(now-t.active), time.Duration(idle))
		}
	}
	if n != w.stats.tcpActive {
		d.fail("%d connections of TCP proxies are counted, there are %d", w.stats.tcpActive, n)
	}
	return ups
}
