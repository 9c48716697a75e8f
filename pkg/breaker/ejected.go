// SPDX-License-Identifier: Apache-2.0

package breaker

import "time"

// Ejection tells of a host that is ejected: what for, how often it was, and how long it
// stays so at the least; not ok: it is not ejected. Off the loops.
func (o *Outlier) Ejection(h Host, now int64) (why EjectionType, times uint32, left time.Duration, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.records[h]
	if r == nil || !h.Ejected() {
		return 0, 0, 0, false
	}
	return r.reason, r.total, max(0, time.Duration(r.until-now)), true
}
