// SPDX-License-Identifier: Apache-2.0

package client

import (
	"reflect"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// entry is one version of a resource. It is not changed after it was made.
type entry struct {
	kind    decode.Kind
	name    string
	version string
	bytes   []byte // as received, for config dumps and the copy on disk; nil for static ones
	res     *decode.Resource
	updated time.Time
	source  *source // nil for static ones and those of the last good copy
	static  bool
	stale   bool // from the last good copy, not confirmed since
}

// rejected is the last refusal of a resource.
type rejected struct {
	reason  string
	version string
	at      time.Time
}

// store holds the latest accepted version of every resource.
type store struct {
	latest [decode.KindCount]map[string]*entry
	bad    [decode.KindCount]map[string]rejected
	// dirty says of which kinds something has changed since the last assembly.
	dirty [decode.KindCount]bool
	// touched are the names of clusters and endpoints whose entry has changed since the last
	// assembly.
	touched [decode.KindCount]map[string]bool
	// rewire says that clusters may need other resources than they did.
	rewire bool
}

// maxRejected bounds the refusals that are remembered by kind.
const maxRejected = 1000

func newStore() *store {
	s := &store{}
	for k := range s.latest {
		s.latest[k], s.bad[k] = map[string]*entry{}, map[string]rejected{}
	}
	return s
}

// put makes e the latest of its name.
func (s *store) put(e *entry) {
	s.replace(e)
	s.dirty[e.kind] = true
	delete(s.bad[e.kind], e.name)
}

func (s *store) replace(e *entry) {
	s.touch(e.kind, e.name, e)
	s.latest[e.kind][e.name] = e
}

// touch is called before the entry of that name becomes next, nil where it goes.
func (s *store) touch(kind decode.Kind, name string, next *entry) {
	if kind != decode.Cluster && kind != decode.Endpoints {
		return
	}
	if s.touched[kind] == nil {
		s.touched[kind] = map[string]bool{}
	}
	s.touched[kind][name] = true
	s.rewire = s.rewire || kind == decode.Cluster && !sameNeeds(s.latest[kind][name], next)
}

// sameNeeds reports whether two versions of a cluster, nil for none, need the same
// resources of the same sources.
func sameNeeds(a, b *entry) bool {
	needs := func(e *entry) (refs []decode.Ref, source *source, key string) {
		if e == nil {
			return nil, nil, ""
		}
		if c := e.res.Value.(*resource.Cluster); c.IsDNS() {
			key = c.DNS.Key
		}
		if len(e.res.Refs) > 0 {
			source = e.source
		}
		return e.res.Refs, source, key
	}
	refsA, sourceA, keyA := needs(a)
	refsB, sourceB, keyB := needs(b)
	same := func(x, y decode.Ref) bool {
		return x.Kind == y.Kind && x.Name == y.Name && reflect.DeepEqual(x.Source, y.Source)
	}
	return sourceA == sourceB && keyA == keyB && slices.EqualFunc(refsA, refsB, same)
}

// drop forgets a resource.
func (s *store) drop(kind decode.Kind, name string) {
	if _, ok := s.latest[kind][name]; ok {
		s.touch(kind, name, nil)
		delete(s.latest[kind], name)
		s.dirty[kind] = true
	}
	delete(s.bad[kind], name)
}

// apply takes an update of a source in. Names of static resources cannot be
// taken; they are returned.
func (s *store) apply(u *Update, from *source, now time.Time) (taken []string) {
	for i := range u.Set {
		it := &u.Set[i]
		old := s.latest[u.Kind][it.Name]
		switch {
		case old != nil && old.static:
			taken = append(taken, it.Name)
			continue
		case it.Resource == nil && old != nil:
			// The same bytes: the decoded resource keeps its pointer.
			if old.stale || old.version != it.Version || old.source != from {
				e := *old
				e.version, e.source, e.stale = it.Version, from, false
				s.replace(&e)
			}
			delete(s.bad[u.Kind], it.Name)
			continue
		case it.Resource == nil:
			continue
		}
		s.put(&entry{
			kind: u.Kind, name: it.Resource.Name, version: it.Version, bytes: it.Bytes,
			res: it.Resource, updated: now, source: from,
		})
	}
	for _, name := range u.Removed {
		s.remove(u.Kind, name)
	}
	s.sweep(u, from)
	for _, r := range u.Rejected {
		if len(s.bad[u.Kind]) < maxRejected {
			s.bad[u.Kind][r.Name] = rejected{reason: r.Reason, version: u.Version, at: now}
		}
	}
	if u.Accepted {
		delete(s.bad[u.Kind], "")
	}
	return taken
}

// remove follows a server that removed a resource. Endpoints, routes and secrets that
// somebody still refers to keep their last state: only the resource that needs
// them can end that.
func (s *store) remove(kind decode.Kind, name string) {
	e := s.latest[kind][name]
	if e == nil || e.static || kind == decode.Endpoints || kind == decode.Route || kind == decode.Secret {
		return
	}
	s.drop(kind, name)
}

// sweep drops what a full update no longer has. The first delta response of a
// type is full as regards what the last good copy brought.
func (s *store) sweep(u *Update, from *source) {
	if !u.Full && !(u.First && decode.TypeOf(u.Kind).Full) {
		return
	}
	set := make(map[string]bool, len(u.Set))
	for i := range u.Set {
		set[u.Set[i].Name] = true
	}
	for name, e := range s.latest[u.Kind] {
		if e.static || set[name] || u.Kept[name] {
			continue
		}
		if e.stale || u.Full && e.source == from {
			s.drop(u.Kind, name)
		}
	}
	for name := range s.bad[u.Kind] {
		if name != "" && !u.Kept[name] && !set[name] && s.latest[u.Kind][name] == nil {
			delete(s.bad[u.Kind], name)
		}
	}
}
