// SPDX-License-Identifier: Apache-2.0

package registry

import "github.com/outrigger-mesh/outrigger/pkg/mesh"

// storeHealth stores the health that instances have reported, or remembers those that could
// not be stored: a journal that fails keeps nobody from being taken out, or back in. Others
// that wait are the next tick's: else each heartbeat would write all of them anew.
func (r *Registry) storeHealth(keys []mesh.InstanceKey) {
	writes := make([]Write, 0, len(keys))
	for _, k := range keys {
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
		if len(r.unsaved) == 0 {
			r.log.Error("health cannot be stored now; it holds, and after a restart it would be what it was before", "instances", len(writes), "error", err)
		}
		for _, k := range keys {
			r.unsaved[k] = struct{}{}
		}
		return
	}
	for _, k := range keys {
		delete(r.unsaved, k)
	}
}
