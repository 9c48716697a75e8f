// SPDX-License-Identifier: Apache-2.0

package registry

import "github.com/outrigger-mesh/outrigger/pkg/mesh"

// storeHealth stores the reported health of instances, with those that could not be stored
// before. A journal that fails keeps nobody from being taken out, or back in.
func (r *Registry) storeHealth(keys []mesh.InstanceKey) {
	failing := len(r.unsaved) > 0
	for _, k := range keys {
		r.unsaved[k] = struct{}{}
	}
	var writes []Write
	for k := range r.unsaved {
		e := r.table.get(k)
		if e == nil {
			delete(r.unsaved, k)
			continue
		}
		i := *e.inst
		i.Health, i.Held = e.reported, false
		writes = append(writes, Write{Put: &i, Lease: e.lease})
	}
	if len(writes) == 0 {
		return
	}
	if err := r.config.Journal.CommitInstances(writes); err != nil {
		if !failing {
			r.log.Error("health cannot be stored now; it holds, and after a restart it would be what it was before", "instances", len(writes), "error", err)
		}
		return
	}
	clear(r.unsaved)
}
