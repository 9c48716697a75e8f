// SPDX-License-Identifier: Apache-2.0

package client

import (
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// There may be very many clusters, of which an update changes a few: those in use are
// brought up to date in place, and a round looks at what was touched since the last one,
// at what waits, and at what is kept though it was deleted.

// clusters takes those into use whose endpoints and secrets have come, and the clusters that
// they name, and those out of use that have been deleted. It returns the entry that was in use, nil for none, of each
// cluster that it has looked at.
func (a *assembler) clusters() (before map[string]*entry) {
	latest, active := a.store.latest[decode.Cluster], a.active[decode.Cluster]
	before = make(map[string]*entry, len(a.store.touched[decode.Cluster])+len(a.waiting))
	for name := range a.store.touched[decode.Cluster] {
		before[name] = active[name]
	}
	for name := range a.waiting {
		before[name] = active[name]
	}
	for n := range a.gone {
		if n.kind == decode.Cluster {
			before[n.name] = active[n.name]
		}
	}
	clear(a.waiting)
	var joined []*entry
	for name, old := range before {
		e := latest[name]
		switch {
		case e == nil:
			delete(active, name)
		case old != nil && old.res == e.res:
			active[name] = e
		case joins(e):
			joined = append(joined, e)
		case a.warm(e):
			active[name] = e
		default:
			a.hold(name)
		}
	}
	a.join(joined, before)
	return before
}

func (a *assembler) hold(name string) {
	a.held++
	a.waiting[name] = true
}

// retain keeps deleted clusters while routes or clusters in use name them, for a time:
// what replaces those is on its way.
func (a *assembler) retain(fresh *[decode.KindCount]map[string]*entry, before map[string]*entry) {
	var named map[string]bool
	for name, old := range before {
		deleted := a.store.latest[decode.Cluster][name] == nil
		if deleted && named == nil {
			named = namedClusters(fresh)
		}
		if old != nil && a.lingers(need{decode.Cluster, name}, deleted && named[name]) {
			fresh[decode.Cluster][name] = old
		}
	}
}

func namedClusters(fresh *[decode.KindCount]map[string]*entry) map[string]bool {
	named := map[string]bool{}
	for _, k := range []decode.Kind{decode.Listener, decode.ScopedRoute, decode.Route, decode.VirtualHost, decode.Cluster} {
		for _, e := range fresh[k] {
			for i := range e.res.Refs {
				if e.res.Refs[i].Kind == decode.Cluster {
					named[e.res.Refs[i].Name] = true
				}
			}
		}
	}
	return named
}

// note takes down what a round has changed of the clusters that it has looked at, and
// whose endpoints have changed. It reports whether there are changed clusters.
func (a *assembler) note(before map[string]*entry) (changed bool) {
	for name, old := range before {
		now := a.active[decode.Cluster][name]
		if old == now || old != nil && now != nil && old.res == now.res {
			continue
		}
		changed = true
		a.moved = a.moved || !sameNeeds(old, now)
		a.news[name] = true
		if from := discovered(old); from != "" && from != name {
			delete(a.users[from], name)
			if len(a.users[from]) == 0 {
				delete(a.users, from)
			}
		}
		if from := discovered(now); from != "" && from != name {
			if a.users[from] == nil {
				a.users[from] = map[string]bool{}
			}
			a.users[from][name] = true
		}
	}
	for from := range a.store.touched[decode.Endpoints] {
		if discovered(a.active[decode.Cluster][from]) == from {
			a.news[from] = true
		}
		for name := range a.users[from] {
			a.news[name] = true
		}
	}
	return changed
}

// discovered is the name of the endpoints of a cluster, empty where it has its own. e may
// be nil.
func discovered(e *entry) string {
	if e == nil {
		return ""
	}
	return e.res.Value.(*resource.Cluster).Discovered()
}

// bringClusters puts the clusters in use and their endpoints into s, and says which differ
// from those of prev. Maps that have not changed are those of prev.
func (a *assembler) bringClusters(s, prev *resource.Snapshot) {
	names := slices.Sorted(maps.Keys(a.news))
	a.news = map[string]bool{}
	if prev == nil {
		s.Clusters = collect[resource.Cluster](a.active[decode.Cluster])
		s.Assignments = make(map[string]*resource.Assignment, len(s.Clusters))
		for name, c := range s.Clusters {
			s.Assignments[name] = a.assignment(name, c)
		}
		return
	}
	clusters, assignments := edited[resource.Cluster]{m: prev.Clusters}, edited[resource.Assignment]{m: prev.Assignments}
	s.Changes = &resource.Changes{Since: prev.Version}
	for _, name := range names {
		var c *resource.Cluster
		var eps *resource.Assignment
		e := a.active[decode.Cluster][name]
		if e != nil {
			c = e.res.Value.(*resource.Cluster)
			eps = a.assignment(name, c)
		} else {
			delete(a.empty, name)
		}
		changed := clusters.set(name, c, e != nil)
		if assignments.set(name, eps, e != nil) || changed {
			s.Changes.Clusters = append(s.Changes.Clusters, name)
		}
	}
	s.Clusters, s.Assignments = clusters.m, assignments.m
}

// edited is a map that is copied for its first change.
type edited[T any] struct {
	m   map[string]*T
	own bool
}

func (e *edited[T]) set(name string, v *T, there bool) (changed bool) {
	if old, was := e.m[name]; was == there && old == v {
		return false
	}
	if !e.own {
		e.m, e.own = maps.Clone(e.m), true
	}
	if there {
		e.m[name] = v
	} else {
		delete(e.m, name)
	}
	return true
}

// assignment is the endpoints of a cluster in use.
func (a *assembler) assignment(name string, c *resource.Cluster) *resource.Assignment {
	from := c.Discovered()
	if from == "" {
		return c.Static
	}
	if eps := a.active[decode.Endpoints][from]; eps != nil {
		delete(a.empty, name)
		return eps.res.Value.(*resource.Assignment)
	}
	if a.empty[name] == nil {
		a.empty[name] = &resource.Assignment{Cluster: name, Overprovisioning: 140}
	}
	return a.empty[name]
}
