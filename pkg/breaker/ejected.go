// SPDX-License-Identifier: Apache-2.0

package breaker

// Ejection is a host that is left out now.
type Ejection struct {
	Host         Host
	Type         EjectionType
	Times        uint32 // ejections of the host so far
	Since, Until int64  // monotonic; Until is put off where the host asked for it
}

// Ejections lists the hosts that are left out. Not for loops.
func (o *Outlier) Ejections() (list []Ejection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stats.Active == 0 {
		return nil
	}
	o.members.Each(func(h Host) {
		if e, ok := o.ejection(h); ok {
			list = append(list, e)
		}
	})
	return list
}

// Ejection tells of one host; not ok: it is not left out. Not for loops.
func (o *Outlier) Ejection(h Host) (e Ejection, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ejection(h)
}

func (o *Outlier) ejection(h Host) (e Ejection, ok bool) {
	r := o.records[h]
	if r == nil || !h.Ejected() {
		return e, false
	}
	return Ejection{h, r.reason, r.total, r.since, max(r.until, min(o.retryAt(h), r.since+int64(MaxRetryAfter)))}, true
}
