// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// routeSlot is the place of a route configuration that RDS names. Its table is
// replaced by one store; requests that began keep the table they pinned.
type routeSlot struct {
	name  string
	table atomic.Pointer[routeTable] // nil until it arrives
}

// routeTable is a compiled route configuration.
type routeTable struct {
	res    *resource.RouteConfig
	exact  map[string]*virtualHost
	suffix []wildcard // "*.example.com", longest first
	prefix []wildcard // "example.*", longest first
	any    *virtualHost
}

type wildcard struct {
	text string // without the star
	host *virtualHost
}

// virtualHost is a compiled virtual host.
type virtualHost struct {
	res    *resource.VirtualHost
	routes []*route
}

// route is a compiled route: a match and exactly one of action, redirect, direct.
type route struct {
	res    *resource.Route
	vhost  *virtualHost
	table  *routeTable
	action *action
	// edits are the header edits of all levels below the weighted cluster in the
	// order of their application; empty levels are left out.
	edits []*resource.HeaderEdits
}

// action is a compiled route action.
type action struct {
	res      *resource.RouteAction
	clusters []weighted
	total    uint32
	retry    *resource.RetryPolicy
	hash     []resource.HashPolicy
	mirrors  []mirrorTarget
	buffer   int // replay buffer limit
	criteria criteria
	hedge    bool
}

type weighted struct {
	cluster *cluster // nil: by header
	res     *resource.WeightedCluster
	upTo    uint32 // cumulated weight

	criteria criteria // for subsets, with the action's
}

type mirrorTarget struct {
	res     *resource.Mirror
	cluster *cluster // nil: by header
}

// defaultReplayBuffer is how much of a request's body is kept for a retry.
const defaultReplayBuffer = 64 << 10

// compileTable builds the table of a route configuration. slot gives the place
// of a cluster by name and makes it where it is new.
func compileTable(res *resource.RouteConfig, slot func(string) *cluster) *routeTable {
	t := &routeTable{res: res, exact: make(map[string]*virtualHost, len(res.VirtualHosts))}
	for _, vh := range res.VirtualHosts {
		v := compileHost(t, vh, slot)
		for _, d := range vh.Domains {
			switch {
			case d == "*":
				t.any = v
			case strings.HasPrefix(d, "*"):
				t.suffix = append(t.suffix, wildcard{d[1:], v})
			case strings.HasSuffix(d, "*"):
				t.prefix = append(t.prefix, wildcard{d[:len(d)-1], v})
			default:
				t.exact[d] = v
			}
		}
	}
	longest := func(a, b wildcard) int { return len(b.text) - len(a.text) }
	slices.SortStableFunc(t.suffix, longest)
	slices.SortStableFunc(t.prefix, longest)
	return t
}

func compileHost(t *routeTable, vh *resource.VirtualHost, slot func(string) *cluster) *virtualHost {
	v := &virtualHost{res: vh, routes: make([]*route, 0, len(vh.Routes))}
	for _, r := range vh.Routes {
		v.routes = append(v.routes, compileRoute(t, v, r, slot))
	}
	return v
}

func compileRoute(t *routeTable, v *virtualHost, r *resource.Route, slot func(string) *cluster) *route {
	c := &route{res: r, vhost: v, table: t}
	levels := []*resource.HeaderEdits{&r.HeaderEdits, &v.res.HeaderEdits, &t.res.HeaderEdits}
	if t.res.MostSpecificLast {
		slices.Reverse(levels)
	}
	for _, e := range levels {
		if !e.Empty() {
			c.edits = append(c.edits, e)
		}
	}
	if r.Action != nil {
		c.action = compileAction(v.res, r, slot)
	}
	return c
}

func compileAction(vh *resource.VirtualHost, r *resource.Route, slot func(string) *cluster) *action {
	a := &action{res: r.Action, retry: r.Action.Retry, hash: r.Action.Hash, buffer: defaultReplayBuffer, hedge: vh.Hedge.OnPerTryTimeout}
	if a.retry == nil {
		a.retry = vh.Retry
	}
	if len(a.hash) == 0 {
		a.hash = vh.Hash
	}
	if h := r.Action.Hedge; h != nil {
		a.hedge = h.OnPerTryTimeout
	}
	switch {
	case r.RetryBuffer > 0:
		a.buffer = r.RetryBuffer
	case vh.RetryBufferLimit > 0:
		a.buffer = vh.RetryBufferLimit
	}
	a.criteria = newCriteria(r.Action.MetadataMatch)
	for i := range r.Action.Clusters {
		w := &r.Action.Clusters[i]
		a.total += w.Weight
		e := weighted{res: w, upTo: a.total, criteria: newCriteria(w.MetadataMatch)}
		if w.Header == "" {
			e.cluster = slot(w.Name)
		}
		a.clusters = append(a.clusters, e)
	}
	mirrors := r.Action.Mirrors
	if len(mirrors) == 0 {
		mirrors = vh.Mirrors
	}
	for i := range mirrors {
		m := mirrorTarget{res: &mirrors[i]}
		if m.res.ClusterHeader == "" {
			m.cluster = slot(m.res.Cluster)
		}
		a.mirrors = append(a.mirrors, m)
	}
	return a
}

// host finds the virtual host of an authority in lower case (RFC 9110 §4.2.3):
// exact, then the longest suffix, then the longest prefix, then any.
func (t *routeTable) host(authority []byte) *virtualHost {
	if t.res.IgnorePortInHost {
		authority = withoutPort(authority)
	}
	if v, ok := t.exact[string(authority)]; ok {
		return v
	}
	for i := range t.suffix {
		s := t.suffix[i].text
		if len(authority) > len(s) && string(authority[len(authority)-len(s):]) == s {
			return t.suffix[i].host
		}
	}
	for i := range t.prefix {
		s := t.prefix[i].text
		if len(authority) > len(s) && string(authority[:len(s)]) == s {
			return t.prefix[i].host
		}
	}
	return t.any
}

// withoutPort cuts ":port" off an authority; IPv6 literals keep their brackets.
func withoutPort(a []byte) []byte {
	for i := len(a) - 1; i >= 0; i-- {
		switch c := a[i]; {
		case c == ':':
			return a[:i]
		case c < '0' || c > '9':
			return a
		}
	}
	return a
}

// clusterNames adds every cluster name that the table's routes name.
func (t *routeTable) clusterNames(add func(string)) {
	mirrors := func(list []resource.Mirror) {
		for i := range list {
			add(list[i].Cluster)
		}
	}
	for _, vh := range t.res.VirtualHosts {
		mirrors(vh.Mirrors)
		for _, r := range vh.Routes {
			if r.Action == nil {
				continue
			}
			mirrors(r.Action.Mirrors)
			for i := range r.Action.Clusters {
				add(r.Action.Clusters[i].Name)
			}
		}
	}
}
