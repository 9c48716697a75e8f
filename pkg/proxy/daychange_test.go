// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What happens to a day beside its requests: updates, instances that go and come back,
// health, pressure, steps of the wall clock, weather on the network.

// disturb is one such thing.
func (d *day) disturb() {
	d.sums.faults++
	switch rng := d.rng; rng.IntN(15) {
	case 0, 1:
		name := one(rng, append(d.plan.all(), "m")...)
		d.assign(name)
		d.note("other endpoints of %s", name)
		d.apply()
	case 2:
		d.editCluster(one(rng, d.plan.all()...))
	case 3:
		d.removeCluster(one(rng, d.plan.all()...))
	case 4:
		d.retireChain()
	case 5, 6:
		one(rng, d.instances...).leave(rng.IntN(3))
	case 7:
		for _, i := range d.instances {
			i.comeBack()
		}
	case 8:
		d.note("health")
		d.judgeHealth()
	case 9:
		d.press(rng.Float64())
		d.note("pressure %v", d.pressure)
	case 10:
		d.note("a step of the wall clock")
		d.world.SetWall(time.Duration(rng.Int64N(int64(48*time.Hour))) - 24*time.Hour)
	case 11:
		l := d.link()
		d.note("the network: %+v", l)
		d.world.SetLink(l)
	case 12:
		d.hard = drawWeather(rng)
		d.note("weather %+v", d.hard)
	case 13:
		d.editRoutes()
	case 14:
		d.swapFilters()
	}
}

// calm ends what disturbs, as far as it would go on.
func (d *day) calm() {
	d.calming = true
	d.press(0)
	for _, i := range d.instances {
		i.comeBack()
	}
	for _, e := range inOrder(d.ends) {
		e.calmDown()
	}
	for _, name := range d.plan.all() {
		if d.snap.Clusters[name] == nil {
			d.removeCluster(name)
		}
	}
}

// assign draws which instances a cluster has, in what localities and states.
func (d *day) assign(name string) {
	rng := d.rng
	a := &resource.Assignment{Cluster: name, Overprovisioning: 140}
	if maybe(rng, 1, 8) {
		a.DropPerMillion, a.DropCategory = 100_000, "lb"
	}
	list := make([]resource.Locality, 1+rng.IntN(3))
	for i := range list {
		list[i] = resource.Locality{Region: "r", Zone: string(rune('a' + i)), Weight: uint32(1 + rng.IntN(3)), Priority: uint32(i % (1 + rng.IntN(2)))}
	}
	for _, i := range d.instances {
		if i.cluster != name || maybe(rng, 1, 4) {
			continue
		}
		l := &list[rng.IntN(len(list))]
		l.Endpoints = append(l.Endpoints, resource.Endpoint{
			Address: resource.Address{Host: i.addr.AddrPort.Addr().String(), Port: i.addr.Port()}, Weight: uint32(1 + rng.IntN(4)), Metadata: resource.Metadata{resource.LBNamespace: {subsetKey: one(rng, labelsOf...)}},
			Health: one(rng, resource.HealthUnknown, resource.Healthy, resource.Healthy, resource.Unhealthy, resource.Draining, resource.Degraded),
		})
	}
	for _, l := range list {
		if len(l.Endpoints) > 0 {
			a.Localities = append(a.Localities, l)
		}
	}
	for i := range a.Localities { // without a gap
		a.Localities[i].Priority = min(a.Localities[i].Priority, uint32(i))
	}
	if len(a.Localities) > 0 {
		a.Localities[0].Priority = 0
	}
	d.snap.Assignments[name] = a
}

// editCluster changes limits, policy and protocol of a cluster.
func (d *day) editCluster(name string) {
	old := d.snap.Clusters[name]
	if old == nil {
		return
	}
	c, rng := *old, d.rng
	switch rng.IntN(6) {
	case 0:
		c.Default, c.High = drawLimits(rng), drawLimits(rng)
	case 1:
		subsets := c.LB.Subsets
		c.LB = drawBalancing(rng)
		c.LB.Subsets = subsets
	case 2:
		c.HTTP2, c.DownstreamProtocol = maybe(rng, 1, 2), false
	case 3:
		c.Outlier, c.Breaker = nil, nil
	case 4:
		c.Outlier = drawOutlier(rng)
	case 5:
		if name[0] != 't' {
			c.LB.Subsets = drawSubsets(rng)
		}
	}
	d.snap.Clusters[name] = &c
	d.note("cluster %s changed", name)
	d.apply()
}

// removeCluster takes a cluster away, or gives it back.
func (d *day) removeCluster(name string) {
	if c := d.snap.Clusters[name]; c != nil {
		d.watch.removed[name] = c
		delete(d.snap.Clusters, name)
		d.note("cluster %s removed", name)
	} else {
		d.snap.Clusters[name] = d.watch.removed[name]
		d.note("cluster %s given back", name)
	}
	d.apply()
}

// retireChain gives the listener another chain, so that connections of the old one go.
func (d *day) retireChain() {
	name := one(d.rng, slices.Sorted(maps.Keys(d.snap.Listeners))...)
	old := d.snap.Listeners[name]
	l, fc := *old, *old.FilterChains[0]
	fc.Name += "'"
	if maybe(d.rng, 1, 3) { // the same chain with another manager
		fc.Name = old.FilterChains[0].Name
		if fc.HTTP != nil {
			m := *fc.HTTP
			fc.HTTP = &m
		} else {
			m := *fc.TCP
			fc.TCP = &m
		}
	}
	l.FilterChains = []*resource.FilterChain{&fc}
	d.snap.Listeners[name] = &l
	d.note("chain %q", fc.Name)
	d.apply()
}

// editRoutes puts the same routes into service anew.
func (d *day) editRoutes() {
	r := *d.snap.Routes["r"]
	vh := *r.VirtualHosts[0]
	r.VirtualHosts = []*resource.VirtualHost{&vh}
	d.snap.Routes["r"] = &r
	d.note("routes")
	d.apply()
}

// judgeHealth does what a health check's verdict does.
func (d *day) judgeHealth() {
	d.look()
	defer d.look()
	for _, c := range *d.p.clusters.Load() {
		s := c.spec.Load()
		for _, h := range s.lb.View().Hosts() {
			if maybe(d.rng, 1, 3) {
				h.SetFailed(!h.Failed())
				if h.Failed() {
					d.p.hostFailed(c, h)
				}
			}
		}
		s.lb.HealthChanged()
	}
}

// dayInstance is an endpoint's process.
type dayInstance struct {
	d       *day
	cluster string
	addr    reactor.Addr
	conns   map[*dayServer]struct{}
	order   []*dayServer // of conns, with some that have gone
	ends    []*dayEnd    // of tunnels, those that have ended among them
	away    bool

	marked               bool          // it has failed its checks, or is ejected
	markedAt, unmarkedAt time.Duration // when it was last
}

func (d *day) addInstance(cluster, addr string) {
	i := &dayInstance{d: d, cluster: cluster, addr: reactor.TCPAddr(netip.MustParseAddrPort(addr)), conns: map[*dayServer]struct{}{}}
	d.instances, d.at[i.addr.AddrPort] = append(d.instances, i), i
	i.away = true
	i.comeBack()
}

// leave ends an instance: killed (0), swallowed with its host (1), or deaf to new
// connections (2).
func (i *dayInstance) leave(how int) {
	if i.away {
		return
	}
	i.away = true
	i.d.note("%s leaves, by %d", i.addr, how)
	switch how {
	case 0:
		_ = i.d.world.Serve(i.addr, nil)
		for _, s := range i.order {
			if _, open := i.conns[s]; open {
				s.cut(maybe(i.d.rng, 1, 2))
			}
		}
		for _, e := range i.ends {
			e.leave(maybe(i.d.rng, 1, 2))
		}
	case 1:
		i.d.world.Blackhole(i.addr, true)
		for _, e := range i.ends {
			e.freeze()
		}
		for _, s := range i.order {
			s.mute = true
		}
	case 2:
		_ = i.d.world.Serve(i.addr, nil)
	}
}

func (i *dayInstance) comeBack() {
	if !i.away {
		return
	}
	i.away = false
	i.d.world.Blackhole(i.addr, false)
	_ = i.d.world.Serve(i.addr, nil)
	i.ends = slices.DeleteFunc(i.ends, func(e *dayEnd) bool { return e.over })
	serve := i.accept
	if i.cluster[0] == 't' {
		serve = i.acceptTCP
	}
	if err := i.d.world.Serve(i.addr, serve); err != nil {
		i.d.fail("%v", err)
	}
}

// dayWeather is how often, in a hundred requests, instances do what they should not.
type dayWeather struct {
	fail, hang, slow, cut, early, trickle, goAway, refuse, garbage int
	closeIdle                                                      int
}

func drawWeather(rng *rand.Rand) dayWeather {
	if maybe(rng, 1, 4) {
		return dayWeather{} // fine
	}
	n := func(most int) int { return rng.IntN(most) * rng.IntN(2) }
	return dayWeather{fail: n(60), hang: n(20), slow: n(50), cut: n(30), early: n(20), trickle: n(30), goAway: n(15), refuse: n(20), garbage: n(8), closeIdle: n(40)}
}
