// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Update changes the resources of one type in one group.
type Update struct {
	Type    string
	Changed []*Resource // new ones, and new versions of known ones
	Removed []string    // names
	Full    bool        // Changed is everything: what it does not name is removed
}

type setKey struct{ typeURL, group string }

// resourceSet is what a group has of one type. Guarded by Server.mu.
type resourceSet struct {
	setKey
	published bool          // false: subscribers wait
	ready     chan struct{} // closed by the first publication; REST waits on it
	resources map[string]*Resource
	sum       uint64                     // of digests
	retiring  map[string]time.Time       // removed names that linger until then
	subs      map[*subscription]struct{} // of open streams
	idleSince time.Time                  // since nobody subscribes; zero while somebody does
}

func (t *resourceSet) version() string { return versionOf(t.sum) }

func (t *resourceSet) put(r *Resource) {
	t.drop(r.Name())
	t.resources[r.Name()] = r
	t.sum += r.digest()
}

func (t *resourceSet) drop(name string) {
	if old := t.resources[name]; old != nil {
		delete(t.resources, name)
		t.sum -= old.digest()
	}
}

// sortedNames of the set's resources.
func (t *resourceSet) sortedNames() []string { return slices.Sorted(maps.Keys(t.resources)) }

// setOf finds or makes a set.
func (s *Server) setOf(k setKey) *resourceSet {
	t := s.sets[k]
	if t == nil {
		t = &resourceSet{
			setKey:    k,
			ready:     make(chan struct{}),
			resources: map[string]*Resource{},
			retiring:  map[string]time.Time{},
			subs:      map[*subscription]struct{}{},
			idleSince: s.cfg.Clock(),
		}
		s.sets[k] = t
	}
	return t
}

// Publish applies updates to a group, all at once, and pushes what changed to
// whoever subscribes. Resources whose version is the published one cost
// nothing. It never blocks on a client.
func (s *Server) Publish(group string, updates ...Update) {
	updates = slices.Clone(updates)
	slices.SortStableFunc(updates, func(a, b Update) int { return cmp.Compare(rankOf(a.Type), rankOf(b.Type)) })

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Clock()
	touched := map[*stream]struct{}{}
	for _, u := range updates {
		s.apply(s.setOf(setKey{u.Type, group}), u, now, touched)
	}
	for st := range touched {
		s.flush(st, now)
	}
}

func (s *Server) apply(t *resourceSet, u Update, now time.Time, touched map[*stream]struct{}) {
	var changed []string
	for _, r := range u.Changed {
		delete(t.retiring, r.Name())
		if old := t.resources[r.Name()]; old == nil || old.Version() != r.Version() {
			t.put(r)
			changed = append(changed, r.Name())
		}
	}
	for _, name := range s.removals(t, u) {
		if !lingers(t.typeURL) || s.cfg.RemovalGrace <= 0 {
			t.drop(name)
			changed = append(changed, name)
		} else if _, already := t.retiring[name]; !already {
			until := now.Add(s.cfg.RemovalGrace)
			t.retiring[name] = until
			s.timers.at(until, func(now time.Time) { s.retire(t, name, now) })
		}
	}
	first := !t.published
	if first {
		t.published = true
		close(t.ready)
	}
	for sub := range t.subs {
		if first {
			sub.full = true
		} else if !sub.mark(changed) {
			continue
		}
		touched[sub.stream] = struct{}{}
	}
}

// removals lists what an update takes out of a set, sorted.
func (s *Server) removals(t *resourceSet, u Update) []string {
	var names []string
	for _, name := range u.Removed {
		if t.resources[name] != nil {
			names = append(names, name)
		}
	}
	if u.Full {
		keep := make(map[string]struct{}, len(u.Changed))
		for _, r := range u.Changed {
			keep[r.Name()] = struct{}{}
		}
		for name := range t.resources {
			if _, ok := keep[name]; !ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// retire takes a lingering resource out, unless it was published again.
func (s *Server) retire(t *resourceSet, name string, now time.Time) {
	until, ok := t.retiring[name]
	if !ok || now.Before(until) || s.sets[t.setKey] != t {
		return
	}
	delete(t.retiring, name)
	t.drop(name)
	for sub := range t.subs {
		if sub.mark([]string{name}) {
			s.flush(sub.stream, now)
		}
	}
}

// GroupStatus describes one set.
type GroupStatus struct {
	Type        string
	Group       string
	Published   bool
	Version     string
	Resources   int
	Subscribers int       // open streams
	IdleSince   time.Time // zero while there are subscribers
}

// Groups lists all sets, sorted by group and type order.
func (s *Server) Groups() []GroupStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]GroupStatus, 0, len(s.sets))
	for k, t := range s.sets {
		out = append(out, GroupStatus{
			Type: k.typeURL, Group: k.group, Published: t.published, Version: t.version(),
			Resources: len(t.resources), Subscribers: len(t.subs), IdleSince: t.idleSince,
		})
	}
	slices.SortFunc(out, func(a, b GroupStatus) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(rankOf(a.Type), rankOf(b.Type)))
	})
	return out
}

// Drop forgets the sets of a group, all of them or, if anybody subscribes to
// one, none; it reports whether the group is still there.
func (s *Server) Drop(group string) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, t := range s.sets {
		if k.group == group && len(t.subs) > 0 {
			return true
		}
	}
	for k := range s.sets {
		if k.group == group {
			delete(s.sets, k)
		}
	}
	return false
}

// Resources returns what is published to a group of a type, sorted by name.
func (s *Server) Resources(group, typeURL string) []*Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.sets[setKey{typeURL, group}]
	if t == nil {
		return nil
	}
	out := make([]*Resource, 0, len(t.resources))
	for _, name := range t.sortedNames() {
		out = append(out, t.resources[name])
	}
	return out
}
