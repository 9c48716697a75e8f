// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A snapshot that says what it changed costs that, and not all the clusters there are:
// whatever goes through all of them is for the first snapshot, for one that does not
// follow the one in service, and for what is rare (new secrets, a cluster that goes).

// changedClusters are the names of the clusters that Apply has to look at, those that
// have gone among them: what s has changed where it follows the snapshot in service, else
// all. It is called while p.snapshot is that one.
func (p *Proxy) changedClusters(s *resource.Snapshot) []string {
	if c := s.Changes; c != nil && p.snapshot != nil && p.snapshot.Version == c.Since && !p.recompile {
		return c.Clusters
	}
	names := slices.Sorted(maps.Keys(s.Clusters)) // a simulation repeats the order
	for name, c := range inOrder(p.slots) {
		if s.Clusters[name] == nil && c.spec.Load() != nil {
			names = append(names, name)
		}
	}
	return names
}

// appliedClusters is what an Apply has done to clusters.
type appliedClusters struct {
	changed  []*cluster
	joined   []*cluster // those of changed that were not in service
	outdated []*cluster // those of changed whose connections may be outdated
}

// applyClusters puts those of names into service that have changed, and notes those that
// the snapshot does not have for removeClusters.
func (p *Proxy) applyClusters(s *resource.Snapshot, names []string) (done appliedClusters) {
	for _, name := range names {
		res := s.Clusters[name]
		if res == nil {
			p.leaving[name] = struct{}{}
			continue
		}
		c := p.slot(name)
		a := s.Assignments[name]
		if a == nil {
			a = res.Static
		}
		if a == nil {
			a = &resource.Assignment{Cluster: name}
		}
		prev := c.spec.Load()
		keyed := res.LB.BiasKey != "" || res.LB.SlowStart.AggressionKey != ""
		if prev != nil && prev.given == res && prev.assigned == a && !(keyed && p.recompile) {
			continue
		}
		was := c.spokenTo()
		if err := p.secureCluster(c, res); err != nil { // before there is a way to dial it
			p.log.Warn("cluster cannot be secured yet: it is not connected to", "cluster", name, "error", err)
		}
		spec := newSpec(prev, p.byRuntime(res), a, p.ejections, p.options.Seed^hashOf(name))
		spec.given = res
		if spec.circuit != nil && (prev == nil || prev.circuit != spec.circuit) {
			spec.circuit.Tell(func(e breaker.CircuitEvent) { p.tellCircuit(c, &e) })
		}
		p.prepareHealth(c, spec)
		c.spec.Store(spec)
		spec.checkHealth()
		p.awake.wake(c)
		p.counts.cluster(prev, res)
		done.changed = append(done.changed, c) // one that is new may have had connections before
		if prev == nil {
			done.joined = append(done.joined, c)
		}
		if was.changed(c) {
			done.outdated = append(done.outdated, c)
		}
	}
	return done
}

// removeClusters takes out of service what has left.
func (p *Proxy) removeClusters(s *resource.Snapshot) (gone []*cluster) {
	for name := range inOrder(p.leaving) {
		c := p.slots[name]
		if s.Clusters[name] != nil || c == nil {
			continue
		}
		if s := c.spec.Load(); s != nil {
			c.spec.Store(nil)
			s.lb.Retire() // if the cluster comes back, it has other hosts
			if s.health != nil {
				s.health.Close()
			}
			p.counts.clusterRemoved++
			gone = append(gone, c)
		}
	}
	clear(p.leaving)
	return gone
}

// publishClusters makes the list that maintenance and cluster headers look at, of the one
// before. joined are not in that; gone are.
func (p *Proxy) publishClusters(joined, gone []*cluster) {
	if len(joined)+len(gone) == 0 {
		return
	}
	list, byName := *p.clusters.Load(), maps.Clone(*p.workers[0].byName.Load())
	if len(gone) > 0 {
		left := make(map[*cluster]bool, len(gone))
		for _, c := range gone {
			left[c] = true
			delete(byName, c.name)
		}
		list = slices.DeleteFunc(slices.Clone(list), func(c *cluster) bool { return left[c] })
	}
	list = append(list, joined...) // behind what readers of the list before see
	for _, c := range joined {
		byName[c.name] = c
	}
	p.clusters.Store(&list)
	for _, w := range p.workers {
		w.byName.Store(&byName)
	}
}
