// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

type opKind uint8

const (
	opRegister opKind = iota
	opDeregister
	opRelease
	opRenew
	opHealth
	opLook
)

// durable says whether an operation is written before it is answered.
func (k opKind) durable() bool { return k <= opRelease }

// op is one request and its answer. The goroutine owns it until done is closed.
type op struct {
	kind   opKind
	key    mesh.InstanceKey
	inst   *mesh.Instance
	lease  time.Duration
	health mesh.Health
	match  Match

	done     chan struct{}
	revision uint64
	created  bool
	secure   bool
	count    int
	err      error
}

// run owns the table. It is started by New and ended by Close.
func (r *Registry) run() {
	defer close(r.done)
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	batch := make([]*op, 0, maxBatch)
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
			r.tick(time.Since(r.start))
		case o := <-r.ops:
			batch = r.drain(append(batch[:0], o))
			r.process(batch, time.Since(r.start))
			clear(batch)
		}
	}
}

// drain takes what waits, so that one commit serves all of it.
func (r *Registry) drain(batch []*op) []*op {
	for len(batch) < maxBatch {
		select {
		case o := <-r.ops:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// undo remembers an entry that a batch replaced.
type undo struct {
	key mesh.InstanceKey
	old *entry
}

// process answers a batch. Its callers do not wait for each other, so the order
// inside is free: durable steps first, under one commit, then the rest.
func (r *Registry) process(batch []*op, now instant) {
	var writes []Write
	var changes []mesh.Change
	var undos []undo
	for _, o := range batch {
		if o.kind.durable() {
			r.stage(o, now, &writes, &changes, &undos)
		}
	}
	if len(writes) > 0 {
		if err := r.config.Journal.CommitInstances(writes); err != nil {
			for i := len(undos) - 1; i >= 0; i-- {
				r.table.put(undos[i].key, undos[i].old, now)
			}
			changes = nil
			for _, o := range batch {
				if o.kind.durable() && o.err == nil {
					o.err = fmt.Errorf("registry: not stored: %w", err)
				}
			}
		}
	}
	var health []mesh.InstanceKey // whose reported health has changed
	for _, o := range batch {
		if o.kind.durable() {
			continue
		}
		var c mesh.Change
		var ok bool
		e := r.table.get(o.key)
		var before mesh.Health
		if e != nil {
			before = e.reported
		}
		switch o.kind {
		case opRenew:
			o.lease, c, ok = r.table.renew(o.key, o.health, now)
		case opLook:
			if e != nil {
				o.secure, ok = e.inst.MutualTLS, true
			}
		default:
			c, ok = r.table.setHealth(o.key, o.health)
		}
		if !ok {
			o.err = ErrNotFound
		} else if c.PutInstance != nil {
			changes = append(changes, c)
		}
		if e != nil && e.reported != before {
			health = append(health, o.key)
		}
	}
	if len(changes) > 0 {
		r.config.Publish(changes)
	}
	r.storeHealth(health)
	for _, o := range batch {
		close(o.done)
	}
}

// stage makes one durable step in the table and notes how to take it back.
func (r *Registry) stage(o *op, now instant, writes *[]Write, changes *[]mesh.Change, undos *[]undo) {
	current := r.table.get(o.key)
	var revision uint64
	if current != nil {
		revision = current.inst.Revision
	}
	if o.kind != opRelease {
		if o.err = o.match.Check(revision); o.err != nil {
			return
		}
	}
	switch o.kind {
	case opRegister:
		if o.match.KeepIdentity && current != nil && current.inst.MutualTLS && !o.inst.MutualTLS {
			o.err = ErrIdentity
			return
		}
		if current == nil && r.table.size >= r.config.MaxInstances {
			o.err = fmt.Errorf("%w: %d instances", ErrFull, r.table.size)
			return
		}
		o.created = current == nil
		o.revision = r.config.Journal.NextRevision()
		o.inst.Revision = o.revision
		e := &entry{inst: o.inst, lease: o.lease, expires: now + o.lease, reported: o.inst.Health}
		*undos = append(*undos, undo{o.key, r.table.put(o.key, e, now)})
		*writes = append(*writes, Write{Put: o.inst, Lease: o.lease})
		*changes = append(*changes, mesh.Change{PutInstance: o.inst})
	case opDeregister:
		if current == nil {
			o.err = ErrNotFound
			return
		}
		o.revision = r.config.Journal.NextRevision()
		*undos = append(*undos, undo{o.key, r.table.put(o.key, nil, now)})
		*writes = append(*writes, Write{Delete: o.key})
		*changes = append(*changes, mesh.Change{DeleteInstance: o.key})
	case opRelease:
		r.stageRelease(o, now, writes, changes, undos)
	}
}

func (r *Registry) stageRelease(o *op, now instant, writes *[]Write, changes *[]mesh.Change, undos *[]undo) {
	s := r.table.services[o.key.Service]
	if s == nil {
		return
	}
	before := make(map[string]*entry, len(s.entries))
	for id, e := range s.entries {
		before[id] = e
	}
	out := r.table.release(o.key.Service, now)
	o.count = len(out.gone)
	for _, k := range out.gone {
		*undos = append(*undos, undo{k, before[k.ID]})
		*writes = append(*writes, Write{Delete: k})
	}
	*changes = append(*changes, out.changes...)
}

// tick ends leases. When the journal cannot forget an instance, it is forgotten
// here all the same: at the next start it comes back with a new lease and ends again.
func (r *Registry) tick(now instant) {
	if len(r.unsaved) > 0 {
		r.storeHealth(slices.Collect(maps.Keys(r.unsaved)))
	}
	out := r.table.tick(now, tickInterval)
	for service, n := range out.held {
		r.log.Warn("shrink guard holds instances: most of a service would expire at once",
			"service", service, "held", n, "for", r.table.guard.HoldFor)
	}
	if len(out.changes) > 0 {
		r.config.Publish(out.changes)
	}
	if len(out.gone) == 0 {
		return
	}
	writes := make([]Write, len(out.gone))
	for i, k := range out.gone {
		writes[i] = Write{Delete: k}
		r.log.Info("lease ended", "service", k.Service, "instance", k.ID)
	}
	if err := r.config.Journal.CommitInstances(writes); err != nil {
		r.log.Error("expired instances stay in the store", "instances", len(writes), "error", err)
	}
}
