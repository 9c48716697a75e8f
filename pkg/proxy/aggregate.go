// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Bounds of aggregate clusters that are members of others.
const (
	maxAggregateDepth   = 8
	maxAggregateMembers = 64
)

// aggregateOn is a worker's side of an aggregate cluster.
type aggregateOn struct {
	joined lb.Joined
	ons    []*clusterOn // of members, in their order; scratch
	views  []*lb.View   // theirs; scratch
}

// applyAggregates says of each aggregate cluster who its members are. Members of
// members take their places. One that is a member of itself, or too much nested, gets
// none, and no request. names are the clusters that may have changed; as for aggregates,
// any of them changes with its members. Off the loops, under mu.
func (p *Proxy) applyAggregates(s *resource.Snapshot, names []string) error {
	for _, name := range names {
		switch res := s.Clusters[name]; {
		case res == nil:
			delete(p.aggregates, name)
		case res.Type == resource.Aggregate:
			p.aggregates[name] = struct{}{}
		default:
			delete(p.aggregates, name)
			p.slot(name).members.Store(nil)
		}
	}
	var errs []error
	for name := range p.aggregates {
		c, res := p.slot(name), s.Clusters[name]
		var list []*cluster
		if err := p.flatten(s, res, nil, make(map[string]bool), &list); err != nil {
			errs = append(errs, fmt.Errorf("cluster %q: aggregate: %w", name, err))
			list = nil
		}
		if was := c.members.Load(); was == nil || !slices.Equal(*was, list) {
			c.members.Store(&list)
		}
	}
	return errors.Join(errs...)
}

// flatten adds the members of an aggregate cluster, each once, at its first place. seen
// are the aggregates whose members are all in the list: the ways that lead to one may
// be more than can ever be walked.
func (p *Proxy) flatten(s *resource.Snapshot, res *resource.Cluster, above []string, seen map[string]bool, list *[]*cluster) error {
	if seen[res.Name] {
		return nil
	}
	if slices.Contains(above, res.Name) {
		return fmt.Errorf("%q is a member of itself, by way of %s", res.Name, strings.Join(above[slices.Index(above, res.Name):], " > "))
	}
	if len(above) >= maxAggregateDepth {
		return fmt.Errorf("members of members are nested more than %d deep, at %q", maxAggregateDepth, res.Name)
	}
	above = append(above, res.Name)
	for _, name := range res.Members {
		if m := s.Clusters[name]; m != nil && m.Type == resource.Aggregate {
			if err := p.flatten(s, m, above, seen, list); err != nil {
				return err
			}
			continue
		}
		c := p.slot(name)
		if slices.Contains(*list, c) {
			continue
		}
		if len(*list) >= maxAggregateMembers {
			return fmt.Errorf("has more than %d members, at %q", maxAggregateMembers, name)
		}
		*list = append(*list, c)
	}
	seen[res.Name] = true
	return nil
}

// itselfOrMembers are the clusters whose endpoints a cluster uses.
func (c *cluster) itselfOrMembers() []*cluster {
	if list := c.members.Load(); list != nil {
		return *list
	}
	return []*cluster{c}
}

// member chooses between the members of an aggregate cluster, for one attempt or
// connection: all that follows goes by the member's own settings. Other clusters are
// returned as they are, and so is one of whose members none has hosts. sound: the pick
// must not go to a host that is not healthy.
func (w *worker) member(on *clusterOn, key uint64) (chosen *clusterOn, sound bool) {
	list := on.c.members.Load()
	if list == nil {
		return on, false
	}
	if on.aggregate == nil {
		on.aggregate = new(aggregateOn)
	}
	g := on.aggregate
	g.ons, g.views = g.ons[:0], g.views[:0]
	for _, c := range *list {
		m := w.clusterOn(c)
		var v *lb.View
		if m != nil {
			v = m.spec.lb.View()
		}
		g.ons, g.views = append(g.ons, m), append(g.views, v)
	}
	i, inPanic := g.joined.Choose(g.views, on.spec.res, key)
	if i < 0 {
		return on, false
	}
	return g.ons[i], !inPanic
}

// chooseMember chooses the cluster of the exchange's next attempt, where the route's is
// an aggregate.
func (x *exchange) chooseMember() {
	x.sound = false
	if x.cluster == nil || x.cluster.members.Load() == nil {
		return
	}
	on := x.w.clusterOn(x.cluster)
	if on == nil {
		return
	}
	key := x.w.random.Uint64()
	if x.hasHash {
		key = x.hash
	}
	x.on, x.sound = x.w.member(on, key)
	if m := x.overridingMember(); m != nil {
		x.on = m
	}
}

// chooseMember chooses the cluster of a connection, where the chain's is an aggregate.
func (t *tunnel) chooseMember(r *lb.Request) {
	key := r.Random
	if r.HasHash {
		key = r.Hash
	}
	t.on, r.Sound = t.w.member(t.on, key)
}
