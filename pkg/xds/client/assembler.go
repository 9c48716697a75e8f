// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// assembler decides which version of each resource is in use: the latest one
// once all that it needs is there, the one before until then. Nothing waits for
// ever: what a source does not deliver within its initial fetch timeout is taken
// as not existing.
type assembler struct {
	store *store
	// active is what the last snapshot was made of.
	active [decode.KindCount]map[string]*entry
	// waits are missing resources that something is held for, and since when.
	waits map[need]wait
	// gone are deleted resources that others in use still need, and since when.
	gone map[need]time.Time
	// merged are route configurations with their virtual hosts of VHDS.
	merged map[string]*mergedRoute
	// listening are listeners with their filters of ECDS.
	listening map[string]*mergedListener
	// extensions counts what becomes of configurations of ECDS.
	extensions extensionCounts
	// expired are the waits that a round has given up.
	expired []need
	// empty are the assignments of clusters whose endpoints never came.
	empty map[string]*resource.Assignment
	// waiting are the clusters whose latest version is not in use.
	waiting map[string]bool
	// users are the clusters in use by the endpoints of another name that they use.
	users map[string]map[string]bool
	// news are the clusters that may differ from the last snapshot that was published, or
	// their endpoints.
	news map[string]bool

	now  time.Time
	next time.Time // the first deadline
	held int       // resources whose latest version is not in use
	// started says that every source of the bootstrap has answered or timed out.
	started bool
	// moved says that other resources than endpoints have come into use or gone.
	moved bool
	mark  uint64 // counts rounds, to find waits that are over
}

// need is a resource by kind and name.
type need struct {
	kind decode.Kind
	name string
}

type wait struct {
	since time.Time
	limit time.Duration
	over  bool // the time was up
	mark  uint64
}

// mergedRoute remembers what a merged route configuration was made of, so that
// it keeps its pointer while nothing has changed.
type mergedRoute struct {
	base  *entry
	hosts []*entry
	out   *resource.RouteConfig
}

func newAssembler(s *store) *assembler {
	a := &assembler{
		store: s, waits: map[need]wait{}, gone: map[need]time.Time{},
		merged: map[string]*mergedRoute{}, listening: map[string]*mergedListener{}, empty: map[string]*resource.Assignment{}, extensions: extensionCounts{},
		waiting: map[string]bool{}, users: map[string]map[string]bool{}, news: map[string]bool{},
	}
	for k := range a.active {
		a.active[k] = map[string]*entry{}
	}
	return a
}

// defaultHold is how long something is held for a resource that no source of
// its own tells about (a cluster that a route names).
const defaultHold = 15 * time.Second

// round decides anew. It reports whether anything in use has changed; next and
// held are set.
func (a *assembler) round(now time.Time, sources fetches) bool {
	a.now, a.next, a.held, a.moved = now, time.Time{}, 0, false
	a.mark++
	var fresh [decode.KindCount]map[string]*entry
	fresh[decode.Runtime] = a.store.latest[decode.Runtime]
	fresh[decode.Endpoints] = a.store.latest[decode.Endpoints]
	fresh[decode.Secret] = a.store.latest[decode.Secret]
	fresh[decode.Extension] = a.store.latest[decode.Extension]
	before := a.clusters()
	fresh[decode.Cluster] = a.active[decode.Cluster]
	fresh[decode.VirtualHost] = a.dependents(decode.VirtualHost, fresh[decode.Cluster], nil)
	fresh[decode.Route] = a.dependents(decode.Route, fresh[decode.Cluster], fresh[decode.VirtualHost])
	fresh[decode.ScopedRoute] = a.scopes(fresh[decode.Cluster], fresh[decode.Route])
	fresh[decode.Listener] = a.listeners(&fresh, sources)
	a.prune(&fresh)
	a.retainHosts(&fresh)
	a.retain(&fresh, before)
	a.started = a.initial(sources)
	changed := a.note(before)
	for k := range fresh {
		if k == int(decode.Cluster) {
			continue
		}
		if k == int(decode.Endpoints) || k == int(decode.Runtime) || k == int(decode.Secret) || k == int(decode.Extension) {
			changed = changed || a.store.dirty[k]
			a.active[k] = fresh[k]
			continue
		}
		if !equalEntries(a.active[k], fresh[k]) {
			changed, a.moved = true, true
		}
		a.active[k] = fresh[k]
	}
	a.store.dirty = [decode.KindCount]bool{}
	a.store.touched = [decode.KindCount]map[string]bool{}
	for n := range a.gone {
		if a.active[n.kind][n.name] == nil {
			delete(a.gone, n)
		}
	}
	for n, w := range a.waits {
		if w.mark != a.mark {
			delete(a.waits, n)
		}
	}
	return changed
}

// fetches tells of first answers.
type fetches interface {
	// first lists what the bootstrap asks for.
	first() []decode.Ref
	// answered reports whether the source of a reference has ever answered.
	answered(ref *decode.Ref, from *entry) bool
	// limit is how long to wait for what a reference names.
	limit(ref *decode.Ref, from *entry) time.Duration
}

// initial reports whether the sources of the bootstrap have answered.
func (a *assembler) initial(sources fetches) bool {
	ok := true
	for _, ref := range sources.first() {
		if !sources.answered(&ref, nil) && a.missing(need{ref.Kind, ref.Name}, sources.limit(&ref, nil)) {
			ok = false
		}
	}
	return ok
}

// missing notes that something waits for a resource. It is false when the time
// is up: the resource then counts as not existing.
func (a *assembler) missing(n need, limit time.Duration) bool {
	w, ok := a.waits[n]
	if !ok {
		w = wait{since: a.now, limit: limit}
	}
	w.mark = a.mark
	end := w.since.Add(w.limit)
	over := w.limit > 0 && !a.now.Before(end)
	if over && !w.over {
		a.extensions.timedOut(n)
		a.expired = append(a.expired, n)
	}
	w.over = over
	a.waits[n] = w
	if !over && w.limit > 0 {
		a.deadline(end)
	}
	return !over
}

func (a *assembler) deadline(t time.Time) {
	if a.next.IsZero() || t.Before(a.next) {
		a.next = t
	}
}

func (a *assembler) warm(e *entry) bool {
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		if ref.Kind != decode.Endpoints && ref.Kind != decode.Secret || a.store.latest[ref.Kind][ref.Name] != nil {
			continue
		}
		if a.missing(need{ref.Kind, ref.Name}, ref.Source.InitialFetchTimeout) {
			return false
		}
	}
	return true
}

// dependents are routes or virtual hosts whose clusters are in use. Virtual
// hosts that a route configuration gets by VHDS must have come as well.
func (a *assembler) dependents(kind decode.Kind, clusters, hosts map[string]*entry) map[string]*entry {
	latest, active := a.store.latest[kind], a.active[kind]
	out := make(map[string]*entry, len(latest))
	for name, e := range latest {
		old := active[name]
		if old != nil && old.res == e.res || a.ready(e, clusters, hosts) {
			out[name] = e
			continue
		}
		a.held++
		if old != nil {
			out[name] = old
		}
	}
	return out
}

func (a *assembler) ready(e *entry, clusters, hosts map[string]*entry) bool {
	ok := true
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		switch ref.Kind {
		case decode.Cluster:
			if clusters[ref.Name] == nil && a.missing(need{decode.Cluster, ref.Name}, defaultHold) {
				ok = false
			}
		case decode.Secret:
			if a.store.latest[decode.Secret][ref.Name] == nil && a.missing(need{decode.Secret, ref.Name}, ref.Source.InitialFetchTimeout) {
				ok = false
			}
		case decode.Extension:
			if a.store.latest[decode.Extension][ref.Name] == nil && !ref.NoWait && a.missing(need{decode.Extension, ref.Name}, ref.Source.InitialFetchTimeout) {
				ok = false
			}
		case decode.VirtualHost:
			if !anyHost(hosts, e.name) && a.missing(need{decode.VirtualHost, e.name}, ref.Source.InitialFetchTimeout) {
				ok = false
			}
		}
	}
	return ok
}

func anyHost(hosts map[string]*entry, route string) bool {
	for name := range hosts {
		if hostOf(name) == route {
			return true
		}
	}
	return false
}

// hostOf is the route configuration that a virtual host of VHDS belongs to: it
// is named "route configuration/host".
func hostOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

// scopes are scoped routes whose route configurations are in use.
func (a *assembler) scopes(clusters, routes map[string]*entry) map[string]*entry {
	latest, active := a.store.latest[decode.ScopedRoute], a.active[decode.ScopedRoute]
	out := make(map[string]*entry, len(latest))
	for name, e := range latest {
		old := active[name]
		if old != nil && old.res == e.res || a.ready(e, clusters, nil) && a.routesReady(e, routes) {
			out[name] = e
			continue
		}
		a.held++
		if old != nil {
			out[name] = old
		}
	}
	return out
}

// routesReady reports whether the latest version of every route configuration
// that e names is in use.
func (a *assembler) routesReady(e *entry, routes map[string]*entry) bool {
	ok := true
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		if ref.Kind != decode.Route || ref.Name == "" {
			continue
		}
		latest := a.store.latest[decode.Route][ref.Name]
		if latest != nil && routes[ref.Name] != nil && routes[ref.Name].res == latest.res {
			continue
		}
		limit := ref.Source.InitialFetchTimeout
		if ref.Source.Kind == decode.NoSource || latest != nil {
			limit = defaultHold
		}
		if a.missing(need{decode.Route, ref.Name}, limit) {
			ok = false
		}
	}
	return ok
}

// listeners are those whose routes and clusters are in use.
func (a *assembler) listeners(fresh *[decode.KindCount]map[string]*entry, sources fetches) map[string]*entry {
	latest, active := a.store.latest[decode.Listener], a.active[decode.Listener]
	out := make(map[string]*entry, len(latest))
	for name, e := range latest {
		old := active[name]
		if old != nil && old.res == e.res {
			out[name] = e
			continue
		}
		ok := a.ready(e, fresh[decode.Cluster], nil)
		ok = a.routesReady(e, fresh[decode.Route]) && ok
		ok = a.scopesReady(e, fresh[decode.ScopedRoute], sources) && ok
		if ok {
			out[name] = e
			continue
		}
		a.held++
		if old != nil {
			out[name] = old
		}
	}
	return out
}

func (a *assembler) scopesReady(e *entry, scopes map[string]*entry, sources fetches) bool {
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		if ref.Kind != decode.ScopedRoute {
			continue
		}
		if !sources.answered(ref, e) && a.missing(need{decode.ScopedRoute, ""}, sources.limit(ref, e)) {
			return false
		}
		for name, s := range a.store.latest[decode.ScopedRoute] {
			if scopes[name] == nil || scopes[name].res != s.res {
				return false // the scope's own wait has a limit
			}
		}
	}
	return true
}

// prune keeps the old version of route configurations that listeners in use
// still name, and drops those that nobody names.
func (a *assembler) prune(fresh *[decode.KindCount]map[string]*entry) {
	named := map[string]bool{}
	for _, k := range []decode.Kind{decode.Listener, decode.ScopedRoute} {
		for _, e := range fresh[k] {
			for i := range e.res.Refs {
				if e.res.Refs[i].Kind == decode.Route {
					named[e.res.Refs[i].Name] = true
				}
			}
		}
	}
	for name := range fresh[decode.Route] {
		if !named[name] {
			delete(fresh[decode.Route], name)
		}
	}
	for name := range named {
		if old := a.active[decode.Route][name]; fresh[decode.Route][name] == nil && old != nil && name != "" {
			fresh[decode.Route][name] = old
		}
	}
}

// retainHosts keeps the virtual hosts of a route configuration in use whose
// last ones have been deleted, for the same reason.
func (a *assembler) retainHosts(fresh *[decode.KindCount]map[string]*entry) {
	if len(a.active[decode.VirtualHost]) == 0 {
		return
	}
	left := map[string]bool{}
	for name := range fresh[decode.VirtualHost] {
		left[hostOf(name)] = true
	}
	for name, old := range a.active[decode.VirtualHost] {
		rc := hostOf(name)
		if a.lingers(need{decode.VirtualHost, name}, !left[rc] && fresh[decode.Route][rc] != nil) {
			fresh[decode.VirtualHost][name] = old
		}
	}
}

// lingers reports whether a deleted resource that is still needed may stay: it
// may for a time.
func (a *assembler) lingers(n need, needed bool) bool {
	if !needed {
		delete(a.gone, n)
		return false
	}
	since, ok := a.gone[n]
	if !ok {
		since = a.now
		a.gone[n] = since
	}
	end := since.Add(defaultHold)
	if !a.now.Before(end) {
		return false // it stays in gone, so that its time does not start again
	}
	a.deadline(end)
	return true
}

func equalEntries(a, b map[string]*entry) bool {
	if len(a) != len(b) {
		return false
	}
	for name, e := range a {
		if o := b[name]; o == nil || o.res != e.res {
			return false
		}
	}
	return true
}
