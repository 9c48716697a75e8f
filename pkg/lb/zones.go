// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"maps"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Place is where something runs.
type Place struct{ Region, Zone, SubZone string }

func placeOf(l *resource.Locality) Place { return Place{l.Region, l.Zone, l.SubZone} }

// Zones are where this proxy runs, and where others like it do: the members of the
// local cluster, all of which are taken to send the same. They are immutable.
type Zones struct {
	here       Place
	healthy    map[Place]placed
	localities int    // that have members, healthy or not
	hereTotal  int    // members here
	available  placed // healthy and degraded ones
	total      placed
}

// placed counts hosts, and adds up their weights.
type placed struct{ hosts, weight uint64 }

func (p placed) plus(h *Host) placed {
	return placed{p.hosts + 1, p.weight + uint64(h.Weight())}
}

func (p placed) by(weight bool) uint64 {
	if weight {
		return p.weight
	}
	return p.hosts
}

// NewZones looks at the local cluster's hosts of priority 0.
func NewZones(here Place, local *View) *Zones {
	z := &Zones{here: here, healthy: map[Place]placed{}}
	seen := map[Place]bool{}
	for _, h := range local.hosts {
		if h.Locality().Priority != 0 {
			break
		}
		at := placeOf(h.Locality())
		seen[at] = true
		z.total = z.total.plus(h)
		if at == here {
			z.hereTotal++
		}
		switch h.health() {
		case stateHealthy:
			z.healthy[at] = z.healthy[at].plus(h)
			z.available = z.available.plus(h)
		case stateDegraded:
			z.available = z.available.plus(h)
		}
	}
	z.localities = len(seen)
	return z
}

// Equal reports whether requests would be spread in the same way.
func (z *Zones) Equal(o *Zones) bool {
	return z == o || z != nil && o != nil && z.here == o.here && z.localities == o.localities && z.hereTotal == o.hereTotal &&
		z.available == o.available && z.total == o.total && maps.Equal(z.healthy, o.healthy)
}

// panics reports whether too few members of the local cluster are healthy.
func (z *Zones) panics(cfg *resource.LoadBalancing) bool {
	return 100*float64(z.available.hosts) < panicThreshold(cfg)*float64(z.total.hosts)
}

// ZoneOutcome says how a request came to its zone.
type ZoneOutcome uint8

// The outcomes.
const (
	ZoneOff      ZoneOutcome = iota // by no zone
	ZoneDirect                      // all stay in the zone
	ZoneSampled                     // of a zone that has too little capacity for all, one that stays
	ZoneCross                       // one that leaves
	ZoneAnyhow                      // one that leaves, and none has capacity left
	zoneUnrouted                    // left out by routing_enabled
)

// ZoneStats count how often routes by zone were worked out, and why there are none.
type ZoneStats struct {
	Recalculated, TooSmall, LocalNotOK uint64
	On                                 bool // there is a local cluster
}

// ZoneStats returns the counts of the cluster so far.
func (v *View) ZoneStats() ZoneStats {
	if v.totals == nil {
		return ZoneStats{}
	}
	return v.totals.zones
}

// zoneRoute is a share of a priority's requests for the hosts of a zone.
type zoneRoute struct {
	hosts   []*Host
	share   float64
	outcome ZoneOutcome
}

// addZoned gives percent of the requests to the healthy hosts of priority 0 by
// zone, where that is to be; false where zones do not matter.
func (b *builder) addZoned(p *Priority, percent int) bool {
	if b.zones == nil || percent == 0 || p.Level != 0 || hashes(b.v.cfg.LB.Policy) {
		return false
	}
	healthy := func(s healthState) bool { return s == stateHealthy }
	if b.localityWeighted && b.localities(p, healthy) != nil {
		return false
	}
	routes := b.zoneRoutes(p, healthy)
	if routes == nil {
		return false
	}
	from, part := b.percent, 0.0
	for _, r := range routes {
		part += r.share
		b.add(p, Set{Hosts: r.hosts, weights: b.weightsOf(r.hosts), zone: r.outcome}, nil, 0)
		b.v.choices[len(b.v.choices)-1].upTo = upTo((float64(from) + float64(percent)*part) / 100)
	}
	b.percent += percent
	b.v.choices[len(b.v.choices)-1].upTo = upTo(float64(b.percent) / 100)
	return true
}

// hashes reports whether the policy keeps a key at its host whatever the zone.
func hashes(p resource.LBPolicy) bool { return p == resource.RingHash || p == resource.Maglev }

// zoneRoutes are the shares by zone; nil where there is no routing by zone.
// Source: Envoy, "Zone aware routing".
func (b *builder) zoneRoutes(p *Priority, healthy func(healthState) bool) []zoneRoute {
	cfg, z, st := b.v.cfg.LB.ZoneAware, b.zones, &b.v.totals.zones
	if cfg == nil {
		cfg = &resource.DefaultZoneAware
	}
	st.Recalculated++
	groups := b.zoneGroups(p, healthy)
	if len(groups) < 2 || z.localities < 2 && !cfg.ForceLocal {
		return nil
	}
	if z.hereTotal == 0 {
		st.LocalNotOK++
		return nil
	}
	if uint64(p.Healthy) < cfg.MinClusterSize {
		st.TooSmall++
		return nil
	}
	all := zoneRoute{hosts: b.filter(p.lo, p.hi, healthy), share: 1 - cfg.Enabled/100, outcome: zoneUnrouted}
	if z.panics(&b.v.cfg.LB) {
		st.LocalNotOK++
		if !b.v.cfg.LB.FailOnPanic {
			return nil
		}
		return withUnrouted([]zoneRoute{{share: cfg.Enabled / 100}}, all)
	}
	routes := shareZones(groups, z, cfg)
	for i := range routes {
		routes[i].share *= cfg.Enabled / 100
	}
	return withUnrouted(routes, all)
}

func withUnrouted(routes []zoneRoute, all zoneRoute) []zoneRoute {
	if all.share > 0 {
		routes = append(routes, all)
	}
	return routes
}

// zoneGroup are a priority's healthy hosts in one place, perhaps none.
type zoneGroup struct {
	at    Place
	hosts []*Host
}

func (b *builder) zoneGroups(p *Priority, healthy func(healthState) bool) []zoneGroup {
	var out []zoneGroup
	for lo := p.lo; lo < p.hi; {
		l, hi := b.v.hosts[lo].Locality(), lo+1
		for hi < p.hi && b.v.hosts[hi].Locality() == l {
			hi++
		}
		out = append(out, zoneGroup{placeOf(l), b.filter(lo, hi, healthy)})
		lo = hi
	}
	return out
}

// shareZones spreads requests so that every zone gets what it has capacity for,
// when all members of the local cluster do the same, and as many as can be stay in
// their zone. Shares are counted in parts of ten thousand, as Envoy does.
func shareZones(groups []zoneGroup, z *Zones, cfg *resource.ZoneAware) []zoneRoute {
	const whole = 10_000
	sum := func(hosts []*Host) (s placed) {
		for _, h := range hosts {
			s = s.plus(h)
		}
		return s
	}
	var upstreamTotal, localTotal uint64
	for _, g := range groups {
		upstreamTotal += sum(g.hosts).by(cfg.ByWeight)
	}
	for _, n := range z.healthy {
		localTotal += n.by(cfg.ByWeight)
	}
	var routes []zoneRoute
	stays, residual := uint64(0), uint64(0)
	for _, g := range groups {
		if len(g.hosts) == 0 {
			continue
		}
		local, upstream := uint64(0), whole*sum(g.hosts).by(cfg.ByWeight)/max(upstreamTotal, 1)
		if localTotal > 0 {
			local = whole * z.healthy[g.at].by(cfg.ByWeight) / localTotal
		}
		if g.at == z.here {
			if upstream > 0 && upstream >= local || cfg.ForceLocal && len(g.hosts) >= int(cfg.ForceMinSize) {
				return []zoneRoute{{g.hosts, 1, ZoneDirect}}
			}
			if local > 0 {
				stays = upstream * whole / local
				routes = append(routes, zoneRoute{g.hosts, float64(stays) / whole, ZoneSampled})
			}
			continue
		}
		if upstream > local {
			residual += upstream - local
			routes = append(routes, zoneRoute{g.hosts, float64(upstream - local), ZoneCross})
		}
	}
	leave := 1 - float64(stays)/whole
	for i := range routes {
		if routes[i].outcome == ZoneCross {
			routes[i].share *= leave / float64(residual)
		}
	}
	if residual > 0 {
		return routes
	}
	// Rounding has left no capacity anywhere: any zone.
	full := 0
	for _, g := range groups {
		if len(g.hosts) > 0 {
			full++
		}
	}
	for _, g := range groups {
		if len(g.hosts) > 0 {
			routes = append(routes, zoneRoute{g.hosts, leave / float64(full), ZoneAnyhow})
		}
	}
	return routes
}
