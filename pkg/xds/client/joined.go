// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Clusters name others: an aggregate its members, whose endpoints are its own, and any
// cluster that of its fallback. They come into use with those. What a fallback names may
// name in turn who names it, for the fallback of a fallback is not asked; members may not.

// joins reports whether a cluster names others.
func joins(e *entry) bool {
	return slices.ContainsFunc(e.res.Refs, func(r decode.Ref) bool { return r.Kind == decode.Cluster })
}

func isAggregate(e *entry) bool { return e.res.Value.(*resource.Cluster).Type == resource.Aggregate }

// join takes those of the clusters, all of which name others and none in its latest
// version in use, into use that have what they need. The others wait; of those the version
// before stays in use. Where clusters fall back to each other in a circle, all of them
// come together.
func (a *assembler) join(list []*entry, before map[string]*entry) {
	active := a.active[decode.Cluster]
	back := func(e *entry) {
		if old := before[e.name]; old != nil {
			active[e.name] = old
		} else {
			delete(active, e.name)
		}
	}
	slices.SortFunc(list, func(x, y *entry) int { return strings.Compare(x.name, y.name) })
	var aggregates, others []*entry
	for _, e := range list {
		switch {
		case isAggregate(e):
			aggregates = append(aggregates, e)
		case a.warm(e):
			active[e.name] = e // as if what it names were there
			others = append(others, e)
		default:
			a.hold(e.name)
		}
	}
	for {
		waiting := a.aggregates(aggregates)
		n := len(others)
		others = a.dropUnnamed(others, back)
		if len(others) == n {
			for _, e := range waiting {
				a.hold(e.name)
			}
			return
		}
		for _, e := range aggregates { // what they are made of may not be there after all
			back(e)
		}
	}
}

// dropUnnamed takes those out of use again, by back, that name a cluster which is not
// there, and then those that name these. It looks at each once for each cluster that it
// names: a server may send a chain of very many. It returns the others.
func (a *assembler) dropUnnamed(list []*entry, back func(*entry)) []*entry {
	in, users := make(map[*entry]bool, len(list)), make(map[string][]*entry, len(list))
	for _, e := range list {
		in[e] = true
		for i := range e.res.Refs {
			if ref := &e.res.Refs[i]; ref.Kind == decode.Cluster {
				users[ref.Name] = append(users[ref.Name], e)
			}
		}
	}
	for next := slices.Clone(list); len(next) > 0; {
		e := next[len(next)-1]
		next = next[:len(next)-1]
		if !in[e] || a.named(e) {
			continue
		}
		in[e] = false
		back(e)
		a.hold(e.name)
		if a.active[decode.Cluster][e.name] == nil {
			next = append(next, users[e.name]...)
		}
	}
	return slices.DeleteFunc(list, func(e *entry) bool { return !in[e] })
}

// aggregates takes those of the aggregates into use whose members are. Members may be
// aggregates of this list; those that wait for each other wait until the time is up, as
// for any cluster that never comes. It returns those that wait.
func (a *assembler) aggregates(list []*entry) []*entry {
	list = slices.Clone(list)
	for more := true; more; {
		more = false
		list = slices.DeleteFunc(list, func(e *entry) bool {
			if !a.warm(e) || !a.named(e) {
				return false
			}
			a.active[decode.Cluster][e.name], more = e, true
			return true
		})
	}
	return list
}

// named reports whether the clusters that e names are in use, or do not come.
func (a *assembler) named(e *entry) bool {
	ok := true
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		if ref.Kind == decode.Cluster && a.active[decode.Cluster][ref.Name] == nil && a.missing(need{decode.Cluster, ref.Name}, defaultHold) {
			ok = false
		}
	}
	return ok
}
