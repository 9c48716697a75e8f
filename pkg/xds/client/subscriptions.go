// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"slices"
	"time"
	"unique"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Subscription is what has become of what one user of resources is subscribed to. The
// numbers are since the subscription began, or since its source was named.
type Subscription struct {
	// Kind is that of the resources: Cluster, Listener, Endpoints, Route, ScopedRoute,
	// VirtualHost, Secret, Extension or Runtime.
	Kind decode.Kind
	// User is whom statistics name: for Endpoints the cluster (its alt_stat_name where it
	// has one), for routes, scopes and virtual hosts the stat_prefix of a connection manager,
	// else empty.
	User string
	// Name is the route configuration, secret, filter or layer of runtime values, for
	// ScopedRoute that of the scopes, else empty.
	Name string

	Attempts uint64 // requests for something new, responses, failures and timeouts
	Accepted uint64 // responses
	Rejected uint64 // responses with something of it that was refused
	Failures uint64 // connections that could not be made or have gone, files that could not be read
	Timeouts uint64 // waits for a first response that were given up
	Empty    uint64 // accepted responses that had nothing
	Changed  uint64 // accepted responses that brought something new
	Version  string // accepted last; empty: none
	// Updated is when a response was accepted last, Reloaded one that brought something new;
	// zero: never.
	Updated, Reloaded time.Time

	// Warming says that a cluster is not in use yet in its latest version.
	Warming bool
	// Scopes are those of a ScopedRoute that are known, ActiveScopes those in use.
	Scopes, ActiveScopes int
}

// Subscriptions tells yield of each subscription, until it returns false. It may be called
// at any time by any goroutine, but not from Publish; yield must not call the client.
func (c *Client) Subscriptions(yield func(*Subscription) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := lister{c: c, yield: yield, told: map[told]bool{}}
	for _, ref := range c.first() {
		l.tell(&ref, nil, Subscription{Name: ref.Name}) // of runtime values; others have none
	}
	l.clusters()
	l.listeners()
	l.named()
}

// lister makes the list of subscriptions, each once.
type lister struct {
	c     *Client
	yield func(*Subscription) bool
	done  bool
	told  map[told]bool
}

// told is a subscription by what identifies it.
type told struct {
	kind       decode.Kind
	user, name string
}

// tell fills in what has become of the resource of a reference.
func (l *lister) tell(ref *decode.Ref, from *entry, out Subscription) {
	key, src, ok := l.c.locate(ref, from)
	s := l.c.sources[key]
	if !ok || s == nil || l.done {
		return
	}
	out.Kind = ref.Kind
	t, n := &s.stream.types[ref.Kind], &counts{}
	switch {
	case t.wildcard:
		n = &t.all
	case !t.asks(ref.Name):
		return
	case t.names[ref.Name] != nil:
		n = t.names[ref.Name]
	}
	failures := s.stream.failures - n.since
	out.Accepted, out.Rejected, out.Failures, out.Timeouts = uint64(n.accepted), uint64(n.rejected), uint64(failures), uint64(n.timeouts)
	out.Empty, out.Changed = uint64(n.empty), uint64(n.changed)
	if n.version != (unique.Handle[string]{}) {
		out.Version = n.version.Value()
	}
	out.Attempts = out.Accepted + out.Rejected + out.Failures + out.Timeouts
	if src.Kind != decode.SourcePath && src.Kind != decode.SourceREST {
		out.Attempts++ // on a stream, it is asked for once
	}
	if n.updated != 0 {
		out.Updated = time.UnixMilli(n.updated)
	}
	if n.reloaded != 0 {
		out.Reloaded = time.UnixMilli(n.reloaded)
	}
	l.done = !l.yield(&out)
}

// clusters tells of those with EDS, in their latest versions.
func (l *lister) clusters() {
	latest := l.c.store.latest[decode.Cluster]
	cluster := func(name string, e *entry) {
		for i := range e.res.Refs {
			if ref := &e.res.Refs[i]; ref.Kind == decode.Endpoints {
				l.tell(ref, e, Subscription{User: cmp.Or(e.res.Value.(*resource.Cluster).AltStatName, name), Warming: l.c.asm.waiting[name]})
			}
		}
	}
	for name, e := range latest {
		cluster(name, e)
	}
	for name, e := range l.c.asm.active[decode.Cluster] {
		if latest[name] == nil { // deleted, and still in use
			cluster(name, e)
		}
	}
}

// listeners tells of the routes of connection managers: of each name once for each
// stat_prefix.
func (l *lister) listeners() {
	for _, set := range []map[string]*entry{l.c.store.latest[decode.Listener], l.c.asm.active[decode.Listener]} {
		for _, e := range set {
			v := e.res.Value.(*resource.Listener)
			for _, chain := range append(slices.Clone(v.FilterChains), v.DefaultFilterChain) {
				if chain != nil && chain.HTTP != nil {
					l.manager(e, chain.HTTP)
				}
			}
		}
	}
}

func (l *lister) manager(e *entry, m *resource.HTTPManager) {
	switch {
	case m.RouteConfigName != "":
		l.route(e, m.StatPrefix, m.RouteConfigName)
	case m.Scoped != nil && m.Scoped.FromSRDS:
		scopes, active := l.c.store.latest[decode.ScopedRoute], l.c.asm.active[decode.ScopedRoute]
		l.once(e, decode.ScopedRoute, "", Subscription{User: m.StatPrefix, Name: m.Scoped.Name, Scopes: len(scopes), ActiveScopes: len(active)})
		for _, scope := range scopes {
			l.route(scope, m.StatPrefix, scope.res.Value.(*resource.ScopedRoute).RouteConfigName)
		}
	case m.Scoped != nil:
		for _, scope := range m.Scoped.Inline {
			l.route(e, m.StatPrefix, scope.RouteConfigName)
		}
	}
}

// named tells of secrets and of configurations of filters: of each name once, whoever uses
// it, as its subscription is one.
func (l *lister) named() {
	for _, kind := range []decode.Kind{decode.Listener, decode.Cluster, decode.Route} {
		for _, set := range []map[string]*entry{l.c.store.latest[kind], l.c.asm.active[kind]} {
			for _, e := range set {
				for i := range e.res.Refs {
					ref := &e.res.Refs[i]
					key := told{kind: ref.Kind, name: ref.Name}
					if (ref.Kind == decode.Secret || ref.Kind == decode.Extension) && !l.told[key] {
						l.told[key] = true
						l.tell(ref, e, Subscription{Name: ref.Name})
					}
				}
			}
		}
	}
}

// route tells of a route configuration that e refers to, and of its virtual hosts.
func (l *lister) route(e *entry, prefix, name string) {
	if name == "" {
		return
	}
	out := Subscription{User: prefix, Name: name}
	l.once(e, decode.Route, name, out)
	if rc := l.c.store.latest[decode.Route][name]; rc != nil {
		l.once(rc, decode.VirtualHost, "", out)
	}
}

// once tells of what e refers to by this kind and name, unless it has been told.
func (l *lister) once(e *entry, kind decode.Kind, name string, out Subscription) {
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		key := told{kind, out.User, out.Name}
		if ref.Kind == kind && ref.Name == name && !l.told[key] {
			l.told[key] = true
			l.tell(ref, e, out)
		}
	}
}
