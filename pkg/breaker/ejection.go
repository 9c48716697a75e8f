// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Members are the hosts of a cluster, as outlier detection needs them. Both
// functions are called off the loop, by Tick and Update only.
type Members struct {
	Each    func(func(Host)) // calls back for every host of the cluster
	Changed func()           // after hosts were ejected or taken back
}

// detector is the part of outlier detection that decides.
type detector struct {
	name    string
	members Members
	log     *EventLog

	mu       sync.Mutex
	cfg      *resource.OutlierDetection
	records  map[Host]*ejectionRecord // hosts that are or were ejected
	waiting  int                      // records with a multiplier
	interval int64                    // end of the present interval
	random   uint64
	stats    OutlierStats
}

// ejectionRecord is what is remembered of a host while it is in the cluster.
type ejectionRecord struct {
	times  uint32 // multiplier of the base time; one less per interval without
	total  uint32
	until  int64 // while ejected
	since  int64 // last ejection or return
	reason EjectionType
	seen   bool
}

// OutlierStats are a cluster's counters; Envoy's names are in the comments.
type OutlierStats struct {
	Active   uint32                // ejections_active
	Overflow uint64                // ejections_overflow: not ejected because of the percentage
	Enforced uint64                // ejections_enforced_total
	Detected [ejectionTypes]uint64 // ejections_detected_consecutive_5xx, …
	ByType   [ejectionTypes]uint64 // ejections_enforced_consecutive_5xx, …
}

// NewOutlier makes detection for a cluster; a nil configuration detects nothing.
// The log may be nil. The seed is for enforcing percentages and jitter.
func NewOutlier(name string, cfg *resource.OutlierDetection, m Members, log *EventLog, seed uint64) *Outlier {
	o := new(Outlier)
	o.detector = detector{name: name, members: m, log: log, random: seed, records: map[Host]*ejectionRecord{}}
	o.Update(cfg)
	return o
}

// Update changes the settings. Ejected hosts stay ejected for their time; a nil
// configuration takes all of them back at once.
func (o *Outlier) Update(cfg *resource.OutlierDetection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cfg = cfg
	o.config.Store(cfg)
	if cfg != nil {
		return
	}
	changed := false
	o.members.Each(func(h Host) {
		h.Consecutive().Store(0)
		if h.Ejected() {
			h.SetEjected(false)
			changed = true
		}
	})
	clear(o.records)
	o.waiting, o.stats.Active = 0, 0
	if changed {
		o.members.Changed()
	}
}

// Stats reads the counters.
func (o *Outlier) Stats() OutlierStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// Tick ejects hosts that have reached a threshold and takes back those whose time
// is over. It costs next to nothing while nothing fails. Call it every 50 to
// 100 ms.
func (o *Outlier) Tick(now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	pending := o.pending.Swap(false)
	if o.cfg == nil || !pending && o.waiting == 0 {
		return
	}
	var hosts, changed int
	o.members.Each(func(h Host) {
		hosts++
		if r := o.records[h]; r != nil {
			r.seen = true
		}
	})
	o.forget()
	newInterval := now >= o.interval
	o.members.Each(func(h Host) {
		if o.release(h, now, newInterval) {
			changed++
		}
	})
	if newInterval {
		o.interval = now + int64(o.cfg.Interval)
	}
	if pending {
		o.members.Each(func(h Host) {
			if o.detect(h, hosts, now) {
				changed++
			}
		})
	}
	if changed > 0 {
		o.members.Changed()
	}
}

// forget drops hosts that have left the cluster.
func (o *detector) forget() {
	for h, r := range o.records {
		if !r.seen {
			if h.Ejected() {
				o.stats.Active--
			}
			if r.times > 0 {
				o.waiting--
			}
			delete(o.records, h)
			continue
		}
		r.seen = false
	}
}

// release takes a host back whose time is over, and forgives one ejection per
// interval without another.
func (o *detector) release(h Host, now int64, newInterval bool) bool {
	r := o.records[h]
	switch {
	case r == nil:
	case h.Ejected():
		if now < r.until {
			return false
		}
		h.SetEjected(false)
		h.Consecutive().Store(0) // it starts anew
		o.stats.Active--
		o.log.add(o.event(h, r, "UNEJECT", true, now))
		r.since = now
		return true
	case newInterval && r.times > 0:
		if r.times--; r.times == 0 {
			o.waiting--
		}
	}
	return false
}

// detect ejects a host with pending bits.
func (o *detector) detect(h Host, hosts int, now int64) bool {
	word := h.Consecutive()
	bits := word.Load() >> pendingBit
	if bits == 0 {
		return false
	}
	word.And(^(bits << pendingBit))
	for t := range ejectionTypes {
		if bits>>t&1 == 0 || h.Ejected() {
			continue
		}
		o.stats.Detected[t]++
		if o.eject(h, t, hosts, now) {
			return true
		}
	}
	return false
}

// eject ejects the host if the enforcing percentage and the share of ejected
// hosts allow it.
func (o *detector) eject(h Host, t EjectionType, hosts int, now int64) bool {
	enforcing := [...]uint32{o.cfg.Enforcing5xx, o.cfg.EnforcingGateway, o.cfg.EnforcingLocal}[t]
	threshold := [...]uint32{o.cfg.Consecutive5xx, o.cfg.ConsecutiveGateway, o.cfg.ConsecutiveLocal}[t]
	r := o.records[h]
	if r == nil {
		r = new(ejectionRecord)
	}
	r.reason = t
	if !o.draw(enforcing) {
		o.log.add(o.event(h, r, "EJECT", false, now).count(threshold, hosts))
		return false
	}
	share := uint64(o.stats.Active+1) * 100
	if share > uint64(o.cfg.MaxEjectionPercent)*uint64(hosts) && !(o.cfg.AlwaysEjectOne && o.stats.Active == 0) {
		o.stats.Overflow++
		return false
	}
	if r.times++; r.times == 1 {
		o.waiting++
	}
	r.total++
	r.until = now + o.duration(r.times)
	o.records[h] = r
	h.SetEjected(true)
	o.stats.Active++
	o.stats.Enforced++
	o.stats.ByType[t]++
	o.log.add(o.event(h, r, "EJECT", true, now).count(threshold, hosts))
	r.since = now
	return true
}

// duration is the base time times the number of ejections, bounded, plus jitter.
func (o *detector) duration(times uint32) int64 {
	base, most := int64(o.cfg.BaseEjection), int64(max(o.cfg.MaxEjection, o.cfg.BaseEjection))
	d := most
	if int64(times) <= most/max(base, 1) {
		d = base * int64(times)
	}
	if j := int64(o.cfg.Jitter); j > 0 {
		d += int64(o.next() % uint64(j))
	}
	return d
}

func (o *detector) draw(percent uint32) bool {
	return percent >= 100 || percent > 0 && uint32(o.next()%100) < percent
}

// next is SplitMix64.
func (o *detector) next() uint64 {
	o.random += 0x9e3779b97f4a7c15
	x := o.random
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (o *detector) event(h Host, r *ejectionRecord, action string, enforced bool, now int64) Event {
	e := Event{
		Cluster: o.name, Upstream: h.String(), Action: action, Type: r.reason,
		Ejections: r.total, Enforced: enforced, Active: o.stats.Active, SinceLast: -1,
	}
	if r.since != 0 {
		e.SinceLast = time.Duration(now - r.since)
	}
	if action == "EJECT" && enforced {
		e.For = time.Duration(r.until - now)
	}
	return e
}
