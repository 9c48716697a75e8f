// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// View is an immutable picture of a cluster: who is in it, how healthy it is,
// and which share of the requests goes to which set of hosts.
type View struct {
	hosts      []*Host // by priority, then in the assignment's order
	priorities []Priority
	sets       []Set
	choices    []choice // ascending; the last covers the rest
	healthy    int32
	degraded   int32
	keyed      bool   // some host is hashed by its metadata
	ramp       *ramp  // of clusters with slow start
	newWeight  uint32 // of hosts without one, where load reports make weights; else 0
	first      int    // the number of the first set, over all subsets

	subsets *subsets // nil: none
	totals  *totals  // nil: nothing was counted

	addresses *addressIndex // nil where there are few hosts

	cfg        *resource.Cluster
	assignment *resource.Assignment
}

// totals are counts of a cluster's views so far. Few clusters have any.
type totals struct {
	subsetsCreated, subsetsRemoved uint64
	zones                          ZoneStats
}

// totalsAfter are those of the view that follows prev; nil where nothing is counted.
func totalsAfter(prev *View, counted bool) *totals {
	t := new(totals)
	if prev != nil && prev.totals != nil {
		*t, counted = *prev.totals, true
	}
	if !counted {
		return nil
	}
	return t
}

// Priority is one priority level as Envoy computes it.
type Priority struct {
	Level        uint32 // the number in the assignment
	lo, hi       uint32 // its hosts in View.hosts
	Healthy      uint32
	Degraded     uint32
	HealthyLoad  uint8  // percent of requests to healthy hosts
	DegradedLoad uint8  // percent of requests to degraded hosts
	Panic        bool   // health is ignored
	excluded     uint32 // hosts that count as absent, see healthIn
}

// Total is the number of hosts.
func (p *Priority) Total() int { return int(p.hi - p.lo) }

// Set is a list of hosts that one pick chooses from: the healthy or degraded ones
// of a priority, or of one of its localities.
type Set struct {
	Hosts    []*Host
	weights  []float64   // effective; nil when all are equal
	table    table       // of policies that have one
	schedule []scheduled // of policies that have no table; nil when all weigh the same
	lo, hi   uint32      // the priority's hosts in View.hosts
	zone     ZoneOutcome
}

// weight is host i's.
func (s *Set) weight(i int) float64 {
	if s.weights == nil {
		return 1
	}
	return s.weights[i]
}

// choice gives the set to all draws up to and including upTo.
type choice struct {
	upTo uint32
	set  uint32
}

// Hosts lists all hosts by priority; the caller must not change it.
func (v *View) Hosts() []*Host { return v.hosts }

// Len is the number of hosts.
func (v *View) Len() int { return len(v.hosts) }

// HealthyLen is the number of healthy hosts, without degraded ones.
func (v *View) HealthyLen() int { return int(v.healthy) }

// DegradedLen is the number of degraded hosts.
func (v *View) DegradedLen() int { return int(v.degraded) }

// Priorities lists the levels that have hosts, the most preferred first.
func (v *View) Priorities() []Priority { return v.priorities }

// InPanic reports whether some priority ignores its hosts' health.
func (v *View) InPanic() bool {
	return slices.ContainsFunc(v.priorities, func(p Priority) bool { return p.Panic })
}

// PanicThreshold is the share of healthy and degraded hosts, in percent, below which a
// priority ignores its hosts' health; 0: none does.
func (v *View) PanicThreshold() float64 {
	if v.cfg == nil {
		return 0
	}
	return panicThreshold(&v.cfg.LB)
}

// PriorityHosts lists one level's hosts.
func (v *View) PriorityHosts(p *Priority) []*Host { return v.hosts[p.lo:p.hi:p.hi] }

// Assignment is what the view was made of; nil where there was none.
func (v *View) Assignment() *resource.Assignment { return v.assignment }

// Config is the cluster that the view was made for.
func (v *View) Config() *resource.Cluster { return v.cfg }

// DropPerMillion is the share of requests that the control plane wants dropped.
func (v *View) DropPerMillion() uint32 {
	if v.assignment == nil {
		return 0
	}
	return v.assignment.DropPerMillion
}

// choose draws the set by the bits of key, and its number over all subsets. The key is mixed
// first: a hash decides about the place in a table too, and the two decisions
// must not depend on each other.
func (v *View) choose(key uint64) (*Set, int) {
	if len(v.choices) == 1 {
		i := v.choices[0].set
		return &v.sets[i], v.first + int(i)
	}
	draw := uint32(mix(key) >> 32)
	for i := range v.choices {
		if c := &v.choices[i]; draw <= c.upTo {
			return &v.sets[c.set], v.first + int(c.set)
		}
	}
	return nil, 0
}

// mix spreads every bit of x over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// below maps 32 random bits to [0, n).
func below(bits uint32, n int) int { return int(uint64(bits) * uint64(n) >> 32) }
