// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math"
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
	rates    map[Host]*hostRates      // hosts that loops keep tallies of
	judged   [origins]ClusterRates
	waiting  int   // records with a multiplier
	interval int64 // end of the present interval
	random   uint64
	stats    OutlierStats
}

// MaxRetryAfter bounds what an endpoint's Retry-After or grpc-retry-pushback-ms can
// do: nobody is left out for longer because of it. A circuit heeds even less, see
// MaxAskedSleeps.
const MaxRetryAfter = 300 * time.Second

// ejectionRecord is what is remembered of a host while it is in the cluster.
type ejectionRecord struct {
	times  uint32 // multiplier of the base time; one less per interval without
	total  uint32
	until  int64 // while ejected
	since  int64 // last ejection or return
	reason EjectionType
	seen   bool
	spared int64 // when it was last told that the host is spared
}

// OutlierStats are a cluster's counters; Envoy's names are in the comments.
type OutlierStats struct {
	Active   uint32                // ejections_active
	Overflow uint64                // ejections_overflow: not ejected because of the percentage
	Enforced uint64                // ejections_enforced_total
	Total    uint64                // ejections_total: by 5xx or success rate, enforced or not
	Detected [ejectionTypes]uint64 // ejections_detected_consecutive_5xx, …
	ByType   [ejectionTypes]uint64 // ejections_enforced_consecutive_5xx, …
}

// NewOutlier makes detection for a cluster; a nil configuration detects nothing.
// The log may be nil. The seed is for enforcing percentages and jitter.
func NewOutlier(name string, cfg *resource.OutlierDetection, m Members, log *EventLog, seed uint64) *Outlier {
	o := new(Outlier)
	o.detector = detector{
		name: name, members: m, log: log, random: seed, records: map[Host]*ejectionRecord{}, rates: map[Host]*hostRates{},
		judged: [origins]ClusterRates{unjudged, unjudged},
	}
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
			o.log.note(o.event(h, o.records[h], Release, true, 0))
		}
	})
	clear(o.records)
	o.waiting, o.stats.Active, o.interval = 0, 0, 0
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
	if o.cfg == nil {
		return
	}
	o.meet()
	ends := (o.cfg.Rates() || len(o.rates) > 0) && now >= o.interval
	if !pending && o.waiting == 0 && !ends {
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
	if pending {
		o.members.Each(func(h Host) {
			if o.detect(h, hosts, now) {
				changed++
			}
		})
	}
	if newInterval {
		changed += o.endInterval(hosts, now)
	}
	if changed > 0 {
		o.members.Changed()
	}
}

// endInterval judges rates, and begins the next interval. What was counted before
// the first began is of no interval.
func (o *detector) endInterval(hosts int, now int64) (ejected int) {
	first := o.interval == 0
	o.interval = now + int64(o.cfg.Interval)
	o.count()
	if o.cfg.Rates() && !first {
		return o.judge(hosts, now)
	}
	return 0
}

// HealthCheckSucceeded takes an ejected host back where the settings say so: an
// active health check has found it healthy. Not for loops.
func (o *Outlier) HealthCheckSucceeded(h Host, now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cfg == nil || !o.cfg.UnejectChecked || !h.Ejected() {
		return
	}
	if r := o.records[h]; r != nil {
		o.uneject(h, r, true, now)
		o.members.Changed()
	}
}

// forget drops hosts that have left the cluster.
func (o *detector) forget() {
	for h, r := range o.records {
		if !r.seen {
			if h.Ejected() {
				o.stats.Active--
				o.log.note(o.event(h, r, Leave, true, 0))
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
		if now < max(r.until, min(o.retryAt(h), r.since+int64(MaxRetryAfter))) {
			return false
		}
		o.uneject(h, r, false, now)
		return true
	case newInterval && r.times > 0:
		if r.times--; r.times == 0 {
			o.waiting--
		}
	}
	return false
}

// uneject takes a host back; checked says that a health check was why.
func (o *detector) uneject(h Host, r *ejectionRecord, checked bool, now int64) {
	h.SetEjected(false)
	h.Consecutive().Store(0) // it starts anew
	o.stats.Active--
	e := o.event(h, r, Uneject, true, now)
	e.Checked = checked
	o.log.add(e)
	r.since = now
}

// detectOrder is Envoy's: a row of gateway failures is one of 5xx, too, and is found
// first.
var detectOrder = [consecutiveTypes]EjectionType{ConsecutiveGateway, Consecutive5xx, ConsecutiveLocal}

// detect ejects a host with pending bits.
func (o *detector) detect(h Host, hosts int, now int64) bool {
	word := h.Consecutive()
	bits := word.Load() >> pendingBit
	if bits == 0 {
		return false
	}
	word.And(^(bits << pendingBit))
	for _, t := range detectOrder {
		if bits>>t&1 == 0 || h.Ejected() {
			continue
		}
		o.stats.Detected[t]++
		if o.eject(h, t, -1, hosts, now) {
			return true
		}
	}
	return false
}

// eject ejects the host if the share of ejected hosts and the enforcing percentage
// allow it, asked in Envoy's order. percent is its success rate, -1 where that is
// not why.
func (o *detector) eject(h Host, t EjectionType, percent float64, hosts int, now int64) bool {
	share := uint64(o.stats.Active+1) * 100
	if share > uint64(o.cfg.MaxEjectionPercent)*uint64(hosts) && !(o.cfg.AlwaysEjectOne && o.stats.Active == 0) {
		o.stats.Overflow++
		o.spare(h, t, percent, hosts, now)
		return false
	}
	if t == Consecutive5xx || t == SuccessRate {
		o.stats.Total++
	}
	r := o.records[h]
	if r == nil {
		r = new(ejectionRecord)
	}
	r.reason = t
	enforced := o.draw(o.enforcing(t))
	if enforced {
		o.out(h, r, t, now)
	}
	e := o.event(h, r, Eject, enforced, now)
	e.Hosts = hosts
	o.reasons(&e, h, t, percent)
	o.log.add(e)
	if enforced {
		r.since = now
	}
	return enforced
}

// spare tells that a host stays because too many are ejected: a host that fails on is
// found again and again, and told of once an interval.
func (o *detector) spare(h Host, t EjectionType, percent float64, hosts int, now int64) {
	r := o.records[h]
	if r == nil {
		r = new(ejectionRecord)
		o.records[h] = r
	} else if r.spared != 0 && now-r.spared < max(int64(o.cfg.Interval), int64(time.Second)) {
		return
	}
	r.spared = now
	e := o.event(h, r, Spare, false, now)
	e.Type, e.Hosts = t, hosts
	o.reasons(&e, h, t, percent)
	o.log.note(e)
}

// out marks the host and remembers for how long.
func (o *detector) out(h Host, r *ejectionRecord, t EjectionType, now int64) {
	if r.times == 0 {
		o.waiting++
	}
	r.times++
	r.total++
	r.until = max(now+o.duration(r.times), min(o.retryAt(h), now+int64(MaxRetryAfter)))
	if base := int64(o.cfg.BaseEjection); base > 0 {
		// What goes beyond the maximum does not lengthen the way back.
		r.times = min(r.times, uint32(min((int64(o.cfg.MaxEjection)+base-1)/base+1, math.MaxUint32)))
	}
	o.records[h] = r
	h.SetEjected(true)
	o.stats.Active++
	o.stats.Enforced++
	o.stats.ByType[t]++
}

func (o *detector) enforcing(t EjectionType) uint32 {
	c := o.cfg
	return [...]uint32{
		c.Enforcing5xx, c.EnforcingGateway, c.EnforcingLocal, c.SuccessRate.Enforcing,
		c.SuccessRate.EnforcingLocal, c.Failure.Enforcing, c.Failure.EnforcingLocal,
	}[t]
}

// reasons adds the numbers that led to the ejection.
func (o *detector) reasons(e *Event, h Host, t EjectionType, percent float64) {
	e.Percent, e.MaxPercent, e.Enforcing = percent, o.cfg.MaxEjectionPercent, o.enforcing(t)
	if r := o.rates[h]; r != nil && t >= consecutiveTypes {
		origin := external
		if t == SuccessRateLocal || t == FailurePercentageLocal {
			origin = localOrigin
		}
		e.Volume = r.sum[origin].volume()
	}
	switch t {
	case Consecutive5xx:
		e.Threshold = o.cfg.Consecutive5xx
	case ConsecutiveGateway:
		e.Threshold = o.cfg.ConsecutiveGateway
	case ConsecutiveLocal:
		e.Threshold = o.cfg.ConsecutiveLocal
	case SuccessRate:
		e.Rates = o.judged[external]
	case SuccessRateLocal:
		e.Rates = o.judged[localOrigin]
	case FailurePercentage, FailurePercentageLocal:
		e.FailureThreshold = o.cfg.Failure.Threshold
	}
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
	e := Event{Cluster: o.name, Upstream: h.String(), Action: action, Enforced: enforced, Active: o.stats.Active, SinceLast: -1}
	if r == nil {
		return e
	}
	e.Type, e.Ejections = r.reason, r.total
	if r.since != 0 {
		e.SinceLast = time.Duration(now - r.since)
	}
	if action == Eject && enforced {
		e.For = time.Duration(r.until - now)
	}
	return e
}
