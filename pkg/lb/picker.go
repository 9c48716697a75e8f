// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Request is what a pick may depend on.
type Request struct {
	Hash    uint64 // of the route's hash policies
	HasHash bool
	Random  uint64 // fresh for each pick; not read by hash policies that have a hash
	// Active are the cluster's requests in flight without this one, over all workers:
	// only for hash policies with bounded loads.
	Active int64
	// Now is the loop's time, monotonic in nanoseconds: only for peak_ewma.
	Now int64
	// Tried are hosts to avoid (retry_host_predicate previous_hosts). One that was
	// tried is picked only when all others of its priority that may be picked were
	// tried too.
	Tried []*Host
	// HostAttempts is how often the policy itself is asked again for another host
	// (host_selection_retry_max_attempts); after that any untried one is taken.
	HostAttempts int
	// PreviousPriorities is the update frequency of retry_priority
	// previous_priorities: after each so many tries, the priorities that were
	// tried are left out as long as there is another. 0: off.
	PreviousPriorities int
	// Sound makes a pick in panic look for a host that is not: see View.sound.
	Sound bool
	// Criteria are the labels that the route asks of endpoints; nil: none.
	Criteria *Criteria

	// Subset and Zone are set by the pick: how the request came to its subset, and to
	// the zone of its host.
	Subset SubsetOutcome
	Zone   ZoneOutcome
}

// key is what priorities and localities are drawn by.
func (r *Request) key(hashed bool) uint64 {
	if hashed && r.HasHash {
		return r.Hash
	}
	return r.Random
}

// Picker picks hosts for one loop; it holds only cursors.
type Picker interface {
	// Pick returns a host of the view, or nil when there is none that may get the
	// request: no healthy upstream.
	Pick(v *View, r *Request) *Host
}

// table is what a policy precomputes for a set: which host gets a key.
type table interface {
	find(key uint64, attempt int) int
}

// NewPicker makes a picker of the policy; an unknown name means the default one.
// The seed differs from worker to worker, so that they do not march in step.
func NewPicker(cfg *resource.LoadBalancing, seed uint64) Picker {
	p := findPolicy(cfg.Policy)
	if p == nil {
		p = &policies[0]
	}
	inner := p.picker(cfg, mix(seed+0x9e3779b97f4a7c15))
	if cfg.Subsets != nil {
		return &subsetPicker{inner: inner}
	}
	return inner
}

// Policies lists the names of all policies, the default first.
func Policies() []resource.LBPolicy {
	names := make([]resource.LBPolicy, len(policies))
	for i := range policies {
		names[i] = policies[i].name
	}
	return names
}

func findPolicy(name resource.LBPolicy) *policy {
	for i := range policies {
		if policies[i].name == name {
			return &policies[i]
		}
	}
	return nil
}

// chooser is a policy's own part of a pick: an index into s.Hosts, which is not
// empty. number is the set's in its view: the place of cursors.
type chooser interface {
	next(s *Set, number int, r *Request, attempt int) int
}

// plain is the set that a pick chooses from by the policy alone; its number is
// v.first. Nil where more has to be looked at, which pick does.
func (v *View) plain(r *Request) *Set {
	if len(v.sets) != 1 || len(r.Tried) != 0 || r.Sound {
		return nil
	}
	s := &v.sets[0]
	if len(s.Hosts) == 0 {
		return nil
	}
	r.Zone = s.zone
	return s
}

// pick is what all policies do around their own choice.
func pick(c chooser, v *View, r *Request, hashed bool) *Host {
	h := pickAny(c, v, r, hashed)
	if r.Sound && h != nil {
		return v.sound(h, r, hashed)
	}
	return h
}

func pickAny(c chooser, v *View, r *Request, hashed bool) *Host {
	r.Zone = ZoneOff
	if r.PreviousPriorities > 0 && len(r.Tried) >= r.PreviousPriorities {
		if h := v.otherPriority(r, hashed); h != nil {
			return h
		}
	}
	s, number := v.choose(r.key(hashed))
	if s == nil || len(s.Hosts) == 0 {
		return nil
	}
	r.Zone = s.zone
	h := s.Hosts[c.next(s, number, r, 0)]
	if len(r.Tried) == 0 || !r.tried(h) {
		return h
	}
	for i := 1; i <= r.HostAttempts; i++ {
		if h := s.Hosts[c.next(s, number, r, i)]; !r.tried(h) {
			return h
		}
	}
	if other := untried(s.Hosts, r, hashed); other != nil {
		return other
	}
	if other := untried(v.hosts[s.lo:s.hi], r, hashed); other != nil && other.Healthy() {
		return other
	}
	return h
}

// otherPriority picks a healthy host of the most preferred priority that was not
// tried yet; nil when there is none. Which host is left to chance: policies have
// cursors and tables only for priorities that get requests.
func (v *View) otherPriority(r *Request, hashed bool) *Host {
	tried := r.Tried[:len(r.Tried)/r.PreviousPriorities*r.PreviousPriorities]
	for i := range v.priorities {
		p := &v.priorities[i]
		hosts := v.hosts[p.lo:p.hi]
		if p.Healthy == 0 || slices.ContainsFunc(tried, func(h *Host) bool { return h.Locality().Priority == p.Level }) {
			continue
		}
		if h := untried(hosts, r, hashed); h != nil && h.Healthy() {
			return h
		}
	}
	return nil
}

// untried looks for a host that was not tried, from a random place on so that
// retries spread.
func untried(hosts []*Host, r *Request, hashed bool) *Host {
	n := len(hosts)
	from := below(uint32(mix(r.key(hashed)+1)), n)
	var fallback *Host
	for i := range n {
		h := hosts[(from+i)%n]
		if r.tried(h) {
			continue
		}
		if h.Healthy() {
			return h
		}
		if fallback == nil {
			fallback = h
		}
	}
	return fallback
}

func (r *Request) tried(h *Host) bool {
	for _, t := range r.Tried {
		if t == h {
			return true
		}
	}
	return false
}
