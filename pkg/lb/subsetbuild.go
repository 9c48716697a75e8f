// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What the subsets of one cluster may take. Beyond it endpoints are left out of
// further subsets, and requests for those take their fallback.
const (
	maxSubsets     = 16 << 10
	maxSubsetBytes = 64 << 20 // tables, and lists of endpoints
	subsetBytes    = 640      // a view of a few endpoints
	// maxCombinations is what lists in the metadata of an endpoint may make of one
	// selector.
	maxCombinations = 256
)

// subsets are the views by labels of one cluster's view.
type subsets struct {
	cfg       *resource.Subsets
	byKey     map[string]subset
	groups    []subsetGroup
	dflt      *View // of default_subset; nil where nothing falls back to it
	fallback  *View // the cluster's; nil: none
	omitted   int
	duplicate int
}

// subset is either a view or, of single_host_per_subset, a host whatever its
// health.
type subset struct {
	view   *View
	single *Host
}

// subsetGroup are the hosts that one subset has.
type subsetGroup struct {
	key    string
	hosts  []*Host // by priority, as in the view
	single bool
}

// addSubsets makes the subsets of a view. Who is in which subset changes only with
// the endpoints and the configuration; health alone only makes their views anew.
func (v *View) addSubsets(prev *View, sc scope) {
	sc.subset = true
	cfg := v.cfg.LB.Subsets
	var old *subsets
	if prev != nil {
		old = prev.subsets
	}
	if cfg == nil {
		if old != nil {
			v.totals.subsetsRemoved += uint64(len(old.byKey))
		}
		return
	}
	s := &subsets{cfg: cfg}
	v.subsets = s
	if old != nil && old.cfg == cfg && prev.assignment == v.assignment && slices.Equal(prev.hosts, v.hosts) {
		s.groups, s.omitted, s.duplicate = old.groups, old.omitted, old.duplicate
	} else {
		s.group(v)
	}
	next := v.first + len(v.sets) // the number of the next set
	view := func(before *View, hosts []*Host) *View {
		sub := buildLevel(before, hosts, v.cfg, v.assignment, sc)
		sub.first = next
		next += len(sub.sets)
		return sub
	}
	s.byKey = make(map[string]subset, len(s.groups))
	for i := range s.groups {
		g := &s.groups[i]
		before, had := old.find(g.key)
		if !had {
			v.totals.subsetsCreated++
		}
		if g.single {
			s.byKey[g.key] = subset{single: g.hosts[0]}
		} else {
			s.byKey[g.key] = subset{view: view(before.view, g.hosts)}
		}
	}
	if old != nil {
		for key := range old.byKey {
			if _, stays := s.byKey[key]; !stays {
				v.totals.subsetsRemoved++
			}
		}
	}
	if s.needsDefault() {
		var before *View
		if old != nil {
			before = old.dflt
		}
		s.dflt = view(before, s.defaultHosts(v.hosts))
	}
	switch cfg.Fallback {
	case resource.SubsetAny:
		s.fallback = v
	case resource.SubsetDefault:
		s.fallback = s.dflt
	}
}

func (s *subsets) find(key string) (sub subset, ok bool) {
	if s == nil {
		return sub, false
	}
	sub, ok = s.byKey[key]
	return sub, ok
}

func (s *subsets) needsDefault() bool {
	return s.cfg.Fallback == resource.SubsetDefault || slices.ContainsFunc(s.cfg.Selectors, func(sel resource.SubsetSelector) bool {
		return sel.Fallback == resource.SubsetDefault
	})
}

func (s *subsets) defaultHosts(hosts []*Host) []*Host {
	var out []*Host
	for _, h := range hosts {
		e := h.spec.Load()
		lacks := func(l resource.Label) bool { return !e.HasLabel(l, s.cfg.ListAsAny) }
		if !slices.ContainsFunc(s.cfg.Default, lacks) {
			out = append(out, h)
		}
	}
	return out
}

// grouper divides hosts into groups.
type grouper struct {
	s      *subsets
	at     map[string]int // place in s.groups
	bytes  int
	table  int // bytes of a table
	host   *Host
	spec   *resource.Endpoint
	budget int // of combinations
}

func (s *subsets) group(v *View) {
	g := grouper{s: s, at: map[string]int{}, table: tableBytes(&v.cfg.LB)}
	var key []byte
	for _, h := range v.hosts {
		g.host, g.spec = h, h.spec.Load()
		for i := range s.cfg.Selectors {
			g.budget = maxCombinations
			key = g.spread(&s.cfg.Selectors[i], 0, key[:0])
		}
	}
}

// spread puts the host into the groups of each combination of its values of the
// selector's keys from the i-th on.
func (g *grouper) spread(sel *resource.SubsetSelector, i int, key []byte) []byte {
	if i == len(sel.Keys) {
		g.put(sel, key)
		return key
	}
	whole, items, list, ok := g.spec.LBValue(sel.Keys[i])
	if !ok {
		return key
	}
	if !list || !g.s.cfg.ListAsAny {
		return g.spread(sel, i+1, appendLabel(key, sel.Keys[i], whole))
	}
	for _, item := range items {
		key = g.spread(sel, i+1, appendLabel(key, sel.Keys[i], item))[:len(key)]
	}
	return key
}

func (g *grouper) put(sel *resource.SubsetSelector, key []byte) {
	i, ok := g.at[string(key)]
	cost := 8
	if !ok {
		cost += subsetBytes + len(key)
		if !sel.SingleHost {
			cost += g.table
		}
	}
	groups := g.s.groups
	switch {
	case ok && groups[i].hosts[len(groups[i].hosts)-1] == g.host:
		return // a value is twice in its list
	case ok && sel.SingleHost:
		g.s.duplicate++
		return
	case g.budget == 0 || len(groups) >= maxSubsets && !ok || g.bytes+cost > maxSubsetBytes:
		g.s.omitted++
		return
	}
	g.budget--
	g.bytes += cost
	if !ok {
		i = len(groups)
		g.s.groups = append(groups, subsetGroup{key: string(key), single: sel.SingleHost})
		g.at[g.s.groups[i].key] = i
	}
	g.s.groups[i].hosts = append(g.s.groups[i].hosts, g.host)
}

// tableBytes is about what the policy's table for one set takes.
func tableBytes(cfg *resource.LoadBalancing) int {
	switch cfg.Policy {
	case resource.Maglev:
		if cfg.TableSize > 1 {
			return 2 * int(cfg.TableSize)
		}
		return 2 * defaultTableSize
	case resource.RingHash:
		size := int(cfg.MinRingSize)
		if size <= 0 {
			size = defaultMinRing
		}
		return 16 * size
	}
	return 0
}
