// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// SubsetOutcome says how a request came to its subset.
type SubsetOutcome uint8

// The outcomes.
const (
	SubsetsOff      SubsetOutcome = iota // the cluster has none
	SubsetSelected                       // that of the request's criteria
	SubsetFellBack                       // the fallback's, of the cluster or of a selector
	SubsetFellToAny                      // panic_mode_any
	SubsetMissing                        // none, and no fallback has an endpoint
)

// subsetPicker picks within the subset of the request. It holds the loop's cursors
// in the policy's own picker: sets are numbered over all subsets.
// Source: Envoy, "Load balancer subsets".
type subsetPicker struct {
	inner   Picker
	scratch []byte
	last    *subsets
	found   [4]foundSubset // in last, of the last criteria that had to be searched for
	oldest  uint8          // of them
}

// foundSubset is what a search among subsets has come to.
type foundSubset struct {
	c *Criteria
	subset
	outcome SubsetOutcome
	final   bool
}

// Pick implements Picker.
func (p *subsetPicker) Pick(v *View, r *Request) *Host {
	s := v.subsets
	if s == nil {
		r.Subset = SubsetsOff
		return p.inner.Pick(v, r)
	}
	c := r.Criteria
	if c == nil || c.plain == nil || !s.cfg.FallbackList {
		return p.once(v, c, r)
	}
	if len(c.overrides) == 0 {
		return p.once(v, c.plain, r)
	}
	for _, o := range c.overrides {
		if h := p.once(v, o, r); h != nil {
			return h
		}
	}
	return nil
}

// once picks by criteria and all their fallbacks. A subset that has endpoints is
// final, also where none of them may be picked.
func (p *subsetPicker) once(v *View, c *Criteria, r *Request) *Host {
	s := v.subsets
	if c != nil && len(c.labels) > 0 {
		if h, final := p.byCriteria(v, c, r); final {
			return h
		}
	}
	if s.fallback == nil {
		r.Subset = SubsetMissing
		return nil
	}
	r.Subset = SubsetFellBack
	if h := p.inner.Pick(s.fallback, r); h != nil {
		return h
	}
	r.Subset = SubsetMissing
	if s.cfg.PanicModeAny {
		if h := p.inner.Pick(v, r); h != nil {
			r.Subset = SubsetFellToAny
			return h
		}
	}
	return nil
}

// byCriteria picks from the subset of the criteria. It is not final where the
// cluster's fallback is to decide.
func (p *subsetPicker) byCriteria(v *View, c *Criteria, r *Request) (h *Host, final bool) {
	f := p.lookUp(v, c)
	if !f.final {
		return nil, false
	}
	r.Subset = f.outcome
	if f.single != nil {
		return f.single, true
	}
	// Envoy counts only the cluster's fallback; its documentation makes no difference.
	if f.view != nil {
		h = p.inner.Pick(f.view, r)
	}
	if h == nil && f.outcome == SubsetFellBack {
		r.Subset = SubsetMissing
	}
	return h, true
}

// lookUp remembers the last searches: a route's criteria are the same for all its
// requests. What has a key made in advance needs none.
func (p *subsetPicker) lookUp(v *View, c *Criteria) foundSubset {
	s := v.subsets
	if p.last != s {
		p.last, p.found = s, [len(p.found)]foundSubset{}
	}
	for i := range p.found {
		if f := &p.found[i]; f.c == c {
			return *f
		}
	}
	if !s.cfg.RedundantKeys {
		if sub, ok := s.byKey[c.key]; ok {
			return foundSubset{subset: sub, outcome: SubsetSelected, final: true}
		}
	}
	f := p.search(v, c)
	p.found[p.oldest] = f
	p.oldest = (p.oldest + 1) % uint8(len(p.found))
	return f
}

// search looks for the subset of the criteria, and with fewer of them as far as
// selectors say so.
func (p *subsetPicker) search(v *View, c *Criteria) foundSubset {
	s, m := v.subsets, c.all()
	f := foundSubset{c: c}
	if s.cfg.RedundantKeys {
		m = c.sufficient(s.cfg.Selectors)
	}
	for m != 0 {
		if sub, ok := p.find(s, c, m); ok {
			f.subset, f.outcome, f.final = sub, SubsetSelected, true
			return f
		}
		sel := c.selector(s.cfg.Selectors, m)
		if sel == nil {
			return f
		}
		switch sel.Fallback {
		case resource.SubsetKeys:
			m, _ = c.only(m, sel.FallbackKeys)
			continue
		case resource.SubsetInherit:
			return f
		case resource.SubsetAny:
			f.view = v
		case resource.SubsetDefault:
			f.view = s.dflt
		}
		f.outcome, f.final = SubsetFellBack, true
		return f
	}
	return f
}

func (p *subsetPicker) find(s *subsets, c *Criteria, m mask) (sub subset, ok bool) {
	if m == c.all() {
		sub, ok = s.byKey[c.key]
		return sub, ok
	}
	p.scratch = c.appendKey(p.scratch[:0], m)
	sub, ok = s.byKey[string(p.scratch)]
	return sub, ok
}

// sufficient leaves out labels that the selector with the most keys that can be met
// does not ask for, the first of those (allow_redundant_keys).
func (c *Criteria) sufficient(list []resource.SubsetSelector) mask {
	best, most := c.all(), 0
	for i := range list {
		if n := len(list[i].Keys); n > most {
			if m, ok := c.only(c.all(), list[i].Keys); ok {
				best, most = m, n
			}
		}
	}
	return best
}

// SubsetStats counts a cluster's subsets.
type SubsetStats struct {
	Active           int
	Created, Removed uint64
	Omitted          int // endpoints' places in subsets that would be too many
	Duplicate        int // endpoints that single_host_per_subset leaves out
}

// SubsetStats returns the view's; ok reports whether the cluster has subsets.
func (v *View) SubsetStats() (st SubsetStats, ok bool) {
	if v.totals != nil {
		st.Created, st.Removed = v.totals.subsetsCreated, v.totals.subsetsRemoved
	}
	if v.subsets == nil {
		return st, st.Created > 0
	}
	st.Active, st.Omitted, st.Duplicate = len(v.subsets.byKey), v.subsets.omitted, v.subsets.duplicate
	return st, true
}

// InSubset lists the hosts that requests of the criteria may go to, and how that
// came about: for explanations, off the loops.
func (v *View) InSubset(c *Criteria) ([]*Host, SubsetOutcome) {
	r := Request{Criteria: c}
	var seen witness
	h := (&subsetPicker{inner: &seen}).Pick(v, &r)
	switch {
	case v.subsets == nil:
		return v.hosts, SubsetsOff
	case seen.v == nil && h != nil:
		return []*Host{h}, r.Subset
	case seen.v == nil:
		return nil, r.Subset
	}
	return seen.v.hosts, r.Subset
}

// witness notes the view that is picked from.
type witness struct{ v *View }

// Pick implements Picker.
func (w *witness) Pick(v *View, _ *Request) *Host {
	w.v = v
	if len(v.hosts) == 0 {
		return nil
	}
	return v.hosts[0]
}

var _ Picker = (*subsetPicker)(nil)
