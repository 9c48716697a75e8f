// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/orca"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// reported is the weight that a host's load reports make. Times are monotonic
// nanoseconds.
type reported struct {
	value atomic.Uint32 // of the last report
	since atomic.Int64  // first report of an unbroken row; 0: none
	last  atomic.Int64
	used  atomic.Uint32 // what views are made with; 0: nothing yet
}

// learn makes room for load reports where the policy goes by them.
func learn(hosts []*Host, policy resource.LBPolicy) {
	if policy != resource.ClientWeighted {
		return
	}
	for _, h := range hosts {
		if h.report.Load() == nil {
			h.report.CompareAndSwap(nil, new(reported))
		}
	}
}

// leastUpdate bounds how often weights are calculated.
const leastUpdate = 100 * time.Millisecond

// ReportLoad takes a host's load report. A report without requests per second or
// without a utilization is none. now is monotonic, in nanoseconds. Any loop calls it.
func (h *Host) ReportLoad(cfg *resource.ClientWeights, r *orca.Report, now int64) {
	l := h.report.Load()
	if l == nil {
		return
	}
	w := reportedWeight(cfg, r)
	if w == 0 {
		return
	}
	l.value.Store(w)
	l.last.Store(now)
	l.since.CompareAndSwap(0, now)
}

// reportedWeight is Envoy's and gRPC's (gRFC A58); 0 is none.
func reportedWeight(cfg *resource.ClientWeights, r *orca.Report) uint32 {
	use := r.Wanted
	if use <= 0 {
		use = r.Application
	}
	if use <= 0 {
		use = r.CPU
	}
	if r.RPS <= 0 {
		return 0
	}
	if use += cfg.ErrorPenalty * r.EPS / r.RPS; !(use > 0) {
		return 0
	}
	return uint32(max(min(r.RPS/use, math.MaxUint32), 1))
}

// valid is the weight to use now, 0 if there is none: reports must have come for the
// blackout period, and the last must not have expired.
func (w *reported) valid(cfg *resource.ClientWeights, now int64) uint32 {
	since := w.since.Load()
	switch {
	case since == 0:
		return 0
	case now-w.last.Load() > int64(cfg.Expiration):
		w.since.CompareAndSwap(since, 0) // the blackout period begins again
		return 0
	case now-since < int64(cfg.Blackout):
		return 0
	}
	return w.value.Load()
}

// weigh makes load reports into weights, where it is time to, and reports whether
// some have changed.
func (c *Cluster) weigh(now int64) (changed bool) {
	v := c.view.Load()
	if v == nil || v.newWeight == 0 || v.cfg.LB.ClientWeights == nil {
		return false
	}
	cfg := v.cfg.LB.ClientWeights
	if last := c.weighed.Load(); last != 0 && now-last < int64(max(cfg.Update, leastUpdate)) {
		return false
	}
	c.weighed.Store(now)
	weights := make([]uint32, len(v.hosts))
	for i, h := range v.hosts {
		if l := h.report.Load(); l != nil {
			weights[i] = l.valid(cfg, now)
		}
	}
	usual := median(weights)
	for i, h := range v.hosts {
		l := h.report.Load()
		if l == nil {
			continue
		}
		if weights[i] == 0 {
			weights[i] = usual
		}
		changed = l.used.Swap(weights[i]) != weights[i] || changed
	}
	return changed
}

// median is that of the weights that are not 0; 1 where there is none.
func median(weights []uint32) uint32 {
	known := slices.DeleteFunc(slices.Clone(weights), func(w uint32) bool { return w == 0 })
	if len(known) == 0 {
		return 1
	}
	slices.Sort(known)
	m := len(known) / 2
	if len(known)%2 == 1 {
		return known[m]
	}
	return uint32((uint64(known[m-1]) + uint64(known[m])) / 2)
}

// newWeight is what hosts of the view weigh that have joined since weights were
// calculated: the median of the others; 0 where load reports do not make weights.
func newWeight(hosts []*Host, cfg *resource.LoadBalancing) uint32 {
	if cfg.Policy != resource.ClientWeighted {
		return 0
	}
	used := make([]uint32, len(hosts))
	for i, h := range hosts {
		used[i] = h.report.Load().used.Load()
	}
	return median(used)
}

// weight is a host's: by load reports where the policy goes by them, else the
// endpoint's own.
func (v *View) weight(h *Host) float64 {
	if v.newWeight == 0 {
		return float64(h.Weight())
	}
	if w := h.report.Load().used.Load(); w != 0 {
		return float64(w)
	}
	return float64(v.newWeight)
}
