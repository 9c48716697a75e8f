// SPDX-License-Identifier: Apache-2.0

package lb

import "slices"

// PriorityOf is the priority that a host of the view is in; nil: it is none of them.
// It is a search, for those who explain.
func (v *View) PriorityOf(h *Host) *Priority {
	for i := range v.priorities {
		if slices.Contains(v.PriorityHosts(&v.priorities[i]), h) {
			return &v.priorities[i]
		}
	}
	return nil
}

// SlowStart is what slow start leaves of the weight of a host in this view, in percent;
// not ok: the host has its whole weight. It is a search, for those who explain.
func (v *View) SlowStart(h *Host) (percent float64, ok bool) {
	r, i := v.ramp, slices.Index(v.hosts, h)
	if r == nil || !r.under || i < 0 || !h.Healthy() {
		return 100, false
	}
	f := r.factor(&v.cfg.LB.SlowStart, r.since[i])
	return f * 100, f < 1
}
