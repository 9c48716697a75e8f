// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// smallView is a view of one priority and one set in one allocation: nearly all
// clusters have it, and there may be thousands of them.
type smallView struct {
	View
	priority [1]Priority
	set      [1]Set
	choice   [1]choice
}

// buildView makes the view of the hosts, which are sorted by priority, by their
// present health. Tables of prev are reused where hosts and weights are the same.
// now of the scope is 0 where nobody has read the clock: slow start goes by the time
// before.
func buildView(prev *View, hosts []*Host, cfg *resource.Cluster, a *resource.Assignment, sc scope) *View {
	v := buildLevel(prev, hosts, cfg, a, sc)
	v.addSubsets(prev, sc)
	v.indexAddresses(prev)
	return v
}

// scope says what the view is of, the cluster or a subset of it, and when.
type scope struct {
	subset bool
	now    int64
	zones  *Zones // nil: no local cluster
}

// buildLevel makes the view of the hosts without subsets.
func buildLevel(prev *View, hosts []*Host, cfg *resource.Cluster, a *resource.Assignment, sc scope) *View {
	s := new(smallView)
	v := &s.View
	v.hosts, v.cfg, v.assignment = hosts, cfg, a
	v.priorities, v.sets, v.choices = s.priority[:0], s.set[:0], s.choice[:0]
	overprovisioning := uint32(defaultOverprovisioning)
	if a != nil && a.Overprovisioning > 0 {
		overprovisioning = a.Overprovisioning
	}
	states := make([]healthState, len(hosts)) // read once: others flip them meanwhile
	for i, h := range hosts {
		states[i] = h.healthIn(&cfg.LB)
	}
	learn(hosts, cfg.LB.Policy)
	v.newWeight = newWeight(hosts, &cfg.LB)
	v.ramp = newRamp(prev, v, states, sc.now)
	v.priorities = listPriorities(v.priorities, hosts, states)
	for i := range v.priorities {
		v.healthy += int32(v.priorities[i].Healthy)
		v.degraded += int32(v.priorities[i].Degraded)
	}
	healthy, degraded := availabilities(v, states, overprovisioning, a != nil && a.WeightedPriority)
	spreadLoad(v.priorities, &cfg.LB, healthy, degraded)
	b := builder{v: v, prev: prev, states: states, overprovisioning: float64(overprovisioning) / 100}
	b.localityWeighted, b.zones = cfg.LB.LocalityWeighted, sc.zones
	if v.totals = totalsAfter(prev, sc.zones != nil || !sc.subset && cfg.LB.Subsets != nil); v.totals != nil {
		v.totals.zones.On = sc.zones != nil
	}
	if sub := cfg.LB.Subsets; sub != nil {
		b.localityWeighted = b.localityWeighted && sub.LocalityWeightAware
		b.scaled = sc.subset && sub.ScaleLocalityWeight
	}
	if p := findPolicy(cfg.LB.Policy); p != nil && p.table != nil {
		b.table = p.table
		v.keyed = slices.ContainsFunc(hosts, func(h *Host) bool { return metadataKey(h) != "" })
	}
	b.run()
	return v
}

func listPriorities(ps []Priority, hosts []*Host, states []healthState) []Priority {
	for i, h := range hosts {
		level := h.Locality().Priority
		if len(ps) == 0 || ps[len(ps)-1].Level != level {
			ps = append(ps, Priority{Level: level, lo: uint32(i)})
		}
		p := &ps[len(ps)-1]
		p.hi = uint32(i + 1)
		switch states[i] {
		case stateHealthy:
			p.Healthy++
		case stateDegraded:
			p.Degraded++
		case stateExcluded:
			p.excluded++
		}
	}
	return ps
}

// builder turns priorities into sets and choices.
type builder struct {
	v                *View
	prev             *View
	states           []healthState
	overprovisioning float64 // 1.4
	table            func(*Set, []float64, *resource.LoadBalancing) table
	percent          int // given away so far
	localityWeighted bool
	zones            *Zones
	scaled           bool // weights of localities count as far as the subset has their hosts
}

func (b *builder) run() {
	for i := range b.v.priorities {
		p := &b.v.priorities[i]
		if p.Panic {
			if b.v.cfg.LB.FailOnPanic {
				b.add(p, Set{}, nil, int(p.HealthyLoad+p.DegradedLoad))
				continue
			}
			b.addHosts(p, func(healthState) bool { return true }, int(p.HealthyLoad+p.DegradedLoad), false)
			continue
		}
		if !b.addZoned(p, int(p.HealthyLoad)) {
			b.addHosts(p, func(s healthState) bool { return s == stateHealthy }, int(p.HealthyLoad), true)
		}
		b.addHosts(p, func(s healthState) bool { return s == stateDegraded }, int(p.DegradedLoad), true)
	}
	if n := len(b.v.choices); n > 0 {
		b.v.choices[n-1].upTo = math.MaxUint32 // rounding must not lose draws
	}
}

// addHosts gives percent of the requests to the priority's hosts of a state.
func (b *builder) addHosts(p *Priority, take func(healthState) bool, percent int, byLocality bool) {
	if percent == 0 {
		return
	}
	groups := b.localities(p, take)
	if !b.localityWeighted || !byLocality || groups == nil {
		hosts := b.filter(p.lo, p.hi, take)
		b.add(p, Set{Hosts: hosts, weights: b.weightsOf(hosts)}, nil, percent)
		return
	}
	if b.table != nil {
		b.addFlattened(p, groups, percent)
		return
	}
	from, total := b.percent, 0.0
	for _, g := range groups {
		total += g.weight
	}
	part := 0.0
	for _, g := range groups {
		part += g.weight
		b.add(p, Set{Hosts: g.hosts, weights: b.weightsOf(g.hosts)}, nil, 0)
		share := (float64(from) + float64(percent)*part/total) / 100
		b.v.choices[len(b.v.choices)-1].upTo = upTo(share)
	}
	b.percent += percent
}

// addFlattened makes one set of all localities for policies with a table: a key
// must lead to its host whatever the locality, so locality weights become part of
// the hosts' weights.
func (b *builder) addFlattened(p *Priority, groups []localityGroup, percent int) {
	var set Set
	var shares []float64
	for _, g := range groups {
		sum := 0.0
		for _, h := range g.hosts {
			sum += float64(h.Weight())
		}
		for _, h := range g.hosts {
			set.Hosts = append(set.Hosts, h)
			shares = append(shares, g.weight*float64(h.Weight())/sum)
		}
	}
	b.add(p, set, shares, percent)
}

// add appends a set with a choice of percent of the requests. The shares are the
// hosts' for the table; nil means by weight.
func (b *builder) add(p *Priority, s Set, shares []float64, percent int) {
	s.lo, s.hi = p.lo, p.hi
	if b.table != nil && len(s.Hosts) > 0 {
		if shares == nil {
			shares = make([]float64, len(s.Hosts))
			for i := range shares {
				shares[i] = s.weight(i)
			}
		}
		if old := b.sameSet(&s); old != nil && !b.localityWeighted {
			s.table = old.table
		} else {
			s.table = b.table(&s, shares, &b.v.cfg.LB)
		}
	}
	if b.table == nil {
		s.schedule = scheduleOf(s.Hosts, s.weights)
	}
	b.percent += percent
	b.v.sets = append(b.v.sets, s)
	b.v.choices = append(b.v.choices, choice{
		upTo: upTo(float64(b.percent) / 100),
		set:  uint32(len(b.v.sets) - 1),
	})
}

// upTo is the last draw of the share [0, x) of all draws.
func upTo(x float64) uint32 {
	return uint32(min(max(math.Round(x*(1<<32))-1, 0), math.MaxUint32))
}

// sameSet finds a set of the previous view that would get the same table.
func (b *builder) sameSet(s *Set) *Set {
	if b.prev == nil || b.prev.cfg.LB != b.v.cfg.LB {
		return nil
	}
	if b.prev.assignment != b.v.assignment && (b.prev.keyed || b.v.keyed) {
		return nil // metadata that is hashed may have changed while the hosts stayed
	}
	for i := range b.prev.sets {
		old := &b.prev.sets[i]
		if old.table != nil && slices.Equal(old.Hosts, s.Hosts) && slices.Equal(old.weights, s.weights) {
			return old
		}
	}
	return nil
}

// filter lists the hosts [lo, hi) of a state; all of them share the view's array.
func (b *builder) filter(lo, hi uint32, take func(healthState) bool) []*Host {
	n := 0
	for _, s := range b.states[lo:hi] {
		if take(s) {
			n++
		}
	}
	if n == int(hi-lo) {
		return b.v.hosts[lo:hi:hi]
	}
	out := make([]*Host, 0, n)
	for i := lo; i < hi; i++ {
		if take(b.states[i]) {
			out = append(out, b.v.hosts[i])
		}
	}
	return out
}

// weightsOf lists the hosts' weights, or nil when they are equal.
func (b *builder) weightsOf(hosts []*Host) []float64 {
	if w := b.ramped(hosts); w != nil {
		if len(w) == 0 || !differ(w) {
			return nil
		}
		return w
	}
	if len(hosts) == 0 || !slices.ContainsFunc(hosts, func(h *Host) bool { return b.v.weight(h) != b.v.weight(hosts[0]) }) {
		return nil
	}
	w := make([]float64, len(hosts))
	for i, h := range hosts {
		w[i] = b.v.weight(h)
	}
	return w
}

type localityGroup struct {
	hosts  []*Host
	weight float64 // effective: by weight and health
}

// localities groups a priority's hosts by locality; nil where no locality with a
// weight has such hosts. Localities without a weight get no requests.
func (b *builder) localities(p *Priority, take func(healthState) bool) []localityGroup {
	if !b.localityWeighted {
		return nil
	}
	var out []localityGroup
	for lo := p.lo; lo < p.hi; {
		l, hi := b.v.hosts[lo].Locality(), lo+1
		for hi < p.hi && b.v.hosts[hi].Locality() == l {
			hi++
		}
		if hosts := b.filter(lo, hi, take); l.Weight > 0 && len(hosts) > 0 {
			fraction := float64(len(hosts)) / float64(hi-lo)
			weight := float64(l.Weight)
			if b.scaled {
				weight = math.Round(weight * float64(hi-lo) / float64(len(l.Endpoints)))
			}
			if weight > 0 {
				out = append(out, localityGroup{hosts, weight * min(1, b.overprovisioning*fraction)})
			}
		}
		lo = hi
	}
	return out
}
