// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// instant is a time on the process's monotonic clock, counted from its start.
type instant = time.Duration

// entry is one instance with its lease. Entries are replaced, not changed, when
// what they publish changes.
type entry struct {
	inst    *mesh.Instance // as published
	lease   time.Duration
	expires instant
	// reported is the health that the instance said last, to go back to after a hold.
	reported  mesh.Health
	heldSince instant
}

// service is what the table knows of one service beside its instances.
type service struct {
	entries map[string]*entry
	// expired are the times of recent expiries, held ones included, oldest first.
	expired []instant
	// emptySince is when the last instance left, meaningful while there is none.
	emptySince instant
}

// Guard says when expiries are held back.
type Guard struct {
	// Share of a service's instances that may expire within Window; more are held. 0 means one half.
	Share float64
	// Window over which expiries are counted. 0 means 10 s.
	Window time.Duration
	// Least instances for the guard to apply. 0 means 2: a single one just expires.
	Least int
	// HoldFor ends a hold. 0 means 10 minutes.
	HoldFor time.Duration
	// Off lets every expiry through.
	Off bool
}

func (g Guard) withDefaults() Guard {
	if g.Share <= 0 {
		g.Share = 0.5
	}
	if g.Window <= 0 {
		g.Window = 10 * time.Second
	}
	if g.Least <= 0 {
		g.Least = 2
	}
	if g.HoldFor <= 0 {
		g.HoldFor = 10 * time.Minute
	}
	return g
}

// emptyGrace keeps an implicit service without instances known, so that clients
// see "no healthy upstream" and not "no such service" across a redeployment.
const emptyGrace = time.Hour

// table is the registry's state machine. It does no I/O and reads no clock.
type table struct {
	services map[string]*service
	size     int
	guard    Guard
	lastTick instant
}

func newTable(g Guard, now instant) *table {
	return &table{services: map[string]*service{}, guard: g.withDefaults(), lastTick: now}
}

func (t *table) get(k mesh.InstanceKey) *entry {
	if s := t.services[k.Service]; s != nil {
		return s.entries[k.ID]
	}
	return nil
}

// put replaces an entry and returns the one before it; nil removes.
func (t *table) put(k mesh.InstanceKey, e *entry, now instant) (old *entry) {
	s := t.services[k.Service]
	if s == nil {
		if e == nil {
			return nil
		}
		s = &service{entries: map[string]*entry{}}
		t.services[k.Service] = s
	}
	old = s.entries[k.ID]
	switch {
	case e == nil && old != nil:
		delete(s.entries, k.ID)
		t.size--
	case e != nil && old == nil:
		t.size++
		fallthrough
	case e != nil:
		s.entries[k.ID] = e
	}
	if len(s.entries) == 0 {
		s.emptySince = now
	}
	return old
}

// renew extends a lease. The change is empty when nothing that is published changed.
func (t *table) renew(k mesh.InstanceKey, health mesh.Health, now instant) (lease time.Duration, c mesh.Change, ok bool) {
	e := t.get(k)
	if e == nil {
		return 0, mesh.Change{}, false
	}
	e.expires = now + e.lease
	if health != mesh.HealthUnknown {
		e.reported = health
	}
	return e.lease, t.republish(e), true
}

// setHealth changes the health without touching the lease.
func (t *table) setHealth(k mesh.InstanceKey, health mesh.Health) (c mesh.Change, ok bool) {
	e := t.get(k)
	if e == nil {
		return mesh.Change{}, false
	}
	e.reported = health
	if e.inst.Held {
		return mesh.Change{}, true
	}
	return t.republish(e), true
}

// republish ends a hold and makes the reported health the published one.
func (t *table) republish(e *entry) mesh.Change {
	if e.inst.Health == e.reported && !e.inst.Held {
		return mesh.Change{}
	}
	next := *e.inst
	next.Health, next.Held = e.reported, false
	e.inst = &next
	return mesh.Change{PutInstance: &next}
}

// outcome is what a tick changed.
type outcome struct {
	changes []mesh.Change
	gone    []mesh.InstanceKey // to forget in the journal
	held    map[string]int     // instances newly held, by service
}

// tick ends leases. Services are walked in order so that its result is the same each time.
func (t *table) tick(now instant, interval time.Duration) outcome {
	if gap := now - t.lastTick; gap > 4*interval {
		t.extend(gap - interval)
	}
	t.lastTick = now
	var out outcome
	for _, name := range slices.Sorted(maps.Keys(t.services)) {
		t.tickService(name, t.services[name], now, &out)
	}
	return out
}

// extend gives every lease the time that this process did not run.
func (t *table) extend(gap time.Duration) {
	for _, s := range t.services {
		for _, e := range s.entries {
			e.expires += gap
		}
	}
}

func (t *table) tickService(name string, s *service, now instant, out *outcome) {
	if len(s.entries) == 0 {
		if now-s.emptySince > emptyGrace {
			delete(t.services, name)
			out.changes = append(out.changes, mesh.Change{DropService: name})
		}
		return
	}
	var due, over []*entry
	for _, e := range s.entries {
		switch {
		case e.inst.Held && now-e.heldSince >= t.guard.HoldFor:
			over = append(over, e)
		case !e.inst.Held && e.expires <= now:
			due = append(due, e)
		}
	}
	sortByID(due)
	sortByID(over)
	for _, e := range over {
		t.remove(e, now, out)
	}
	s.expired = slices.DeleteFunc(s.expired, func(at instant) bool { return now-at > t.guard.Window })
	if len(due) == 0 {
		return
	}
	hold := t.tooMany(s, len(due))
	for _, e := range due {
		s.expired = append(s.expired, now)
		if !hold {
			t.remove(e, now, out)
			continue
		}
		next := *e.inst
		next.Health, next.Held = mesh.HealthUnhealthy, true
		e.inst, e.heldSince = &next, now
		out.changes = append(out.changes, mesh.Change{PutInstance: &next})
		if out.held == nil {
			out.held = map[string]int{}
		}
		out.held[name]++
	}
}

func sortByID(list []*entry) {
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.inst.ID, b.inst.ID) })
}

// tooMany compares the expiries of the window with the instances there were at its start.
func (t *table) tooMany(s *service, due int) bool {
	alive := 0
	for _, e := range s.entries {
		if !e.inst.Held {
			alive++
		}
	}
	before, lost := alive+len(s.expired), due+len(s.expired)
	return !t.guard.Off && before >= t.guard.Least && float64(lost) > t.guard.Share*float64(before)
}

func (t *table) remove(e *entry, now instant, out *outcome) {
	k := mesh.InstanceKey{Service: e.inst.Service, ID: e.inst.ID}
	t.put(k, nil, now)
	out.gone = append(out.gone, k)
	out.changes = append(out.changes, mesh.Change{DeleteInstance: k})
}

// release takes out every held instance of a service.
func (t *table) release(name string, now instant) outcome {
	var out outcome
	if s := t.services[name]; s != nil {
		for _, id := range slices.Sorted(maps.Keys(s.entries)) {
			if e := s.entries[id]; e.inst.Held {
				t.remove(e, now, &out)
			}
		}
	}
	return out
}
