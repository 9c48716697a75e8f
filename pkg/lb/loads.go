// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

const (
	defaultOverprovisioning = 140
	defaultPanicThreshold   = 50
)

// spreadLoad decides which share of the requests each priority gets. Levels give
// away what their health, overprovisioned, does not cover; panic is looked at
// only when all levels together do not cover 100 %. healthy and degraded are the
// levels' availabilities in percent.
// Source: Envoy, "Priority levels", "Degraded endpoints", "Panic threshold".
func spreadLoad(ps []Priority, cfg *resource.LoadBalancing, healthy, degraded []int) {
	norm := min(sumOf(healthy)+sumOf(degraded), 100)
	if norm < 100 && markPanic(ps, cfg) {
		spreadByHosts(ps)
		return
	}
	if norm == 0 {
		if len(ps) > 0 {
			ps[0].HealthyLoad = 100 // to nobody: panic is off
		}
		return
	}
	left := 100
	first := -1
	for i := range ps {
		l := min(left, healthy[i]*100/norm)
		ps[i].HealthyLoad, left = uint8(l), left-l
		if first < 0 && healthy[i] > 0 {
			first = i
		}
	}
	if first >= 0 && sumOf(degraded) == 0 {
		ps[first].HealthyLoad += uint8(left) // what rounding lost
		return
	}
	firstDegraded := -1
	for i := range ps {
		l := min(left, degraded[i]*100/norm)
		ps[i].DegradedLoad, left = uint8(l), left-l
		if firstDegraded < 0 && degraded[i] > 0 {
			firstDegraded = i
		}
	}
	if first >= 0 {
		ps[first].HealthyLoad += uint8(left)
	} else {
		ps[firstDegraded].DegradedLoad += uint8(left)
	}
}

// availabilities are the percentages of each level's load that its healthy and
// its degraded hosts can take: by their number, or with weighted_priority_health
// by their weight.
func availabilities(v *View, states []healthState, overprovisioning uint32, byWeight bool) (healthy, degraded []int) {
	healthy, degraded = make([]int, len(v.priorities)), make([]int, len(v.priorities))
	for i := range v.priorities {
		p := &v.priorities[i]
		var sum [stateExcluded + 1]uint64
		for j := p.lo; j < p.hi; j++ {
			w := uint64(1)
			if byWeight {
				w = uint64(v.hosts[j].Weight())
			}
			sum[states[j]] += w
		}
		total := max(sum[stateHealthy]+sum[stateDegraded]+sum[stateUnhealthy], 1)
		healthy[i] = int(min(100, uint64(overprovisioning)*sum[stateHealthy]/total))
		degraded[i] = int(min(100, uint64(overprovisioning)*sum[stateDegraded]/total))
	}
	return healthy, degraded
}

// markPanic flags levels whose available share is below the threshold and reports
// whether that is all of them.
func markPanic(ps []Priority, cfg *resource.LoadBalancing) bool {
	threshold := panicThreshold(cfg)
	all := len(ps) > 0
	for i := range ps {
		p := &ps[i]
		p.Panic = 100*float64(p.Healthy+p.Degraded) < threshold*float64(p.counted()) || p.counted() == 0
		all = all && p.Panic
	}
	return all
}

// spreadByHosts shares requests by the number of hosts: every level is in panic.
func spreadByHosts(ps []Priority) {
	total, left := 0, 100
	for i := range ps {
		total += ps[i].Total()
	}
	for i := range ps {
		l := 100 * ps[i].Total() / total
		ps[i].HealthyLoad, left = uint8(l), left-l
	}
	ps[0].HealthyLoad += uint8(left)
}

func sumOf(xs []int) int {
	n := 0
	for _, x := range xs {
		n += x
	}
	return n
}

// panicThreshold is the percentage of available hosts below which health is ignored.
func panicThreshold(cfg *resource.LoadBalancing) float64 {
	if cfg.HasPanic {
		return min(cfg.PanicThreshold, 100)
	}
	return defaultPanicThreshold
}
