// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Joined chooses between the members of an aggregate cluster for one loop: their
// priorities, one member's behind the other's, are one list, over which requests
// spread by health as over the priorities of a single cluster. The zero Joined is
// ready.
type Joined struct {
	views []*View  // that the shares are of
	upTo  []uint32 // by member: the last draw that leads to it
	empty bool     // no member has hosts
	panic bool
}

// Choose returns the place of the member that a key leads to, and whether too few
// hosts of all members are healthy, so that health is ignored; -1 where none has
// hosts. A nil view is a member that is not there. It allocates only when a view has
// changed.
func (j *Joined) Choose(views []*View, cfg *resource.Cluster, key uint64) (member int, inPanic bool) {
	if !slices.Equal(views, j.views) {
		j.share(views, cfg)
	}
	if j.empty {
		return -1, false
	}
	draw := uint32(mix(key) >> 32)
	for i, last := range j.upTo {
		if draw <= last && j.views[i] != nil && (i == 0 || last > j.upTo[i-1]) {
			return i, j.panic
		}
	}
	return -1, false
}

// share computes the members' shares.
func (j *Joined) share(views []*View, cfg *resource.Cluster) {
	j.views = append(j.views[:0], views...)
	j.upTo = slices.Grow(j.upTo[:0], len(views))
	var all []Priority
	var healthy, degraded, of []int
	for i, v := range views {
		if v == nil {
			continue
		}
		overprovisioning := uint64(defaultOverprovisioning)
		if v.assignment != nil && v.assignment.Overprovisioning > 0 {
			overprovisioning = uint64(v.assignment.Overprovisioning)
		}
		for _, p := range v.priorities {
			p.HealthyLoad, p.DegradedLoad, p.Panic = 0, 0, false
			all, of = append(all, p), append(of, i)
			available := func(n uint32) int { return int(min(100, overprovisioning*uint64(n)/uint64(p.Total()))) }
			healthy, degraded = append(healthy, available(p.Healthy)), append(degraded, available(p.Degraded))
		}
	}
	j.empty, j.panic = len(all) == 0, false
	if j.empty {
		return
	}
	spreadLoad(all, &cfg.LB, healthy, degraded)
	percent := make([]int, len(views))
	last := 0
	for i := range all {
		percent[of[i]] += int(all[i].HealthyLoad) + int(all[i].DegradedLoad)
		j.panic = j.panic || all[i].Panic
		if percent[of[i]] > 0 {
			last = of[i]
		}
	}
	sum := 0
	for i := range views {
		sum += percent[i]
		end := uint32(0)
		if sum > 0 {
			end = upTo(float64(sum) / 100)
		}
		if i >= last {
			end = math.MaxUint32 // rounding must not lose draws
		}
		j.upTo = append(j.upTo, end)
	}
}

// sound returns a host that is picked, or where that one is unhealthy, another of the
// view or subset that is healthy, or degraded where none is, and was not tried. A member
// of an aggregate cluster may be in panic by itself while others have room: its share is
// for its sound hosts.
func (v *View) sound(h *Host, r *Request, hashed bool) *Host {
	if h.health() != stateUnhealthy {
		return h
	}
	n, second := len(v.hosts), h
	from := below(uint32(mix(r.key(hashed)+1)>>32), n)
	for i := range n {
		other := v.hosts[(from+i)%n]
		state := other.health()
		if state == stateUnhealthy || r.tried(other) {
			continue
		}
		if state == stateHealthy {
			return other
		}
		if second == h {
			second = other
		}
	}
	return second
}
