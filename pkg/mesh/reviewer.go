// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"iter"
	"slices"
	"sync"
)

// Reviewer reviews the objects of one model. It compares an object only with those that it
// can be in conflict with: it finds them in indexes, each made when it is first asked for, so
// that to review all objects takes time about in proportion to their number. Goroutines may
// share one; it holds on to its model.
type Reviewer struct {
	m *Model

	mu sync.Mutex
	// Guarded by mu. All lists have the oldest first.
	policies    map[string][]*TrafficPolicy // by target; nil: not asked for yet
	telemetries map[string][]*Telemetry     // by scope; likewise
	grouped     map[string]bool             // kinds of routes that groups has
	groups      map[groupKey]*routeGroup
	matches     map[ruled]*routeMatches
	noSuch      map[labelsOf]string // what NoSuchLabels says
	keys        map[string][]string // of the labels of a service's instances
}

// groupKey names what the routes of a group have in common: a parent, or a host name.
type groupKey struct {
	kind    string
	service string
	port    int32 // of the parent as it is written, 0 for none; anyPort for all of the service
	host    string
}

const anyPort = -1

// routeGroup are the routes of one kind that have something in common, the oldest first.
type routeGroup struct {
	routes []Route
	// Made when they are first asked for; the routes by what they have in some place.
	byMatch, byHost map[string][]Route
}

// routeMatches are the matches of a route, as texts that compare.
type routeMatches struct {
	rules [][]string
	first map[string]int // the first rule that has the match
}

type labelsOf struct{ service, labels string }

// NewReviewer makes a reviewer of a model's objects.
func NewReviewer(m *Model) *Reviewer {
	return &Reviewer{
		m: m, grouped: map[string]bool{}, groups: map[groupKey]*routeGroup{}, matches: map[ruled]*routeMatches{},
		noSuch: map[labelsOf]string{}, keys: map[string][]string{},
	}
}

// Model is the one whose objects it reviews.
func (x *Reviewer) Model() *Model { return x.m }

// Review looks at an object among the others of the model, which may have a newer version of
// it. It never refuses: a backend may
// register later, and of two objects in conflict the older one is in force. What it finds is
// the object's status.
func (x *Reviewer) Review(o Object) Status {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Status{Accepted: true}
	s.object(x, o)
	if s.Accepted {
		s.Conditions = append([]Condition{{Type: ConditionAccepted, Status: true, Reason: "Accepted"}}, s.Conditions...)
	}
	return s
}

// policiesOf are the policies of a service: the first is in force.
func (x *Reviewer) policiesOf(service string) []*TrafficPolicy {
	if x.policies == nil {
		x.policies = grouped(x.m, KindTrafficPolicy, func(p *TrafficPolicy) string { return p.Spec.TargetRef.Name })
	}
	return x.policies[service]
}

// policyOf is the policy in force for a service, or nil.
func (x *Reviewer) policyOf(service string) *TrafficPolicy {
	if list := x.policiesOf(service); len(list) > 0 {
		return list[0]
	}
	return nil
}

func (x *Reviewer) telemetriesOf(scope string) []*Telemetry {
	if x.telemetries == nil {
		x.telemetries = grouped(x.m, KindTelemetry, (*Telemetry).scope)
	}
	return x.telemetries[scope]
}

func grouped[T Object](m *Model, kind string, by func(T) string) map[string][]T {
	out := map[string][]T{}
	for _, o := range Ordered[T](m, kind) {
		out[by(o)] = append(out[by(o)], o)
	}
	return out
}

// group is what a kind's routes have been grouped by; nil: there is none.
func (x *Reviewer) group(k groupKey) *routeGroup {
	if !x.grouped[k.kind] {
		x.grouped[k.kind] = true
		for _, r := range Ordered[Route](x.m, k.kind) {
			x.enter(r)
		}
	}
	return x.groups[k]
}

// enter puts a route in its groups. Those of the kind come the oldest first.
func (x *Reviewer) enter(r Route) {
	kind := r.Key().Kind
	enter := func(k groupKey) {
		g := x.groups[k]
		if g == nil {
			g = new(routeGroup)
			x.groups[k] = g
		}
		if n := len(g.routes); n == 0 || g.routes[n-1].Key() != r.Key() { // a name or parent may be listed twice
			g.routes = append(g.routes, r)
		}
	}
	for _, p := range r.Parents() {
		enter(groupKey{kind: kind, service: p.Name, port: int32(p.Port)})
		enter(groupKey{kind: kind, service: p.Name, port: anyPort})
	}
	if h, ok := r.(ruled); ok {
		for _, name := range h.hostnames() {
			enter(groupKey{kind: kind, host: name})
		}
	}
}

// attached are the routes of a kind at a port of a service, those for all its ports among
// them.
func (x *Reviewer) attached(kind, service string, port uint16) iter.Seq[Route] {
	var lists [][]Route
	for _, p := range slices.Compact([]int32{0, int32(port)}) {
		if g := x.group(groupKey{kind: kind, service: service, port: p}); g != nil {
			lists = append(lists, g.routes)
		}
	}
	return oldestFirst(lists)
}

// routeAt is the oldest route in force at a port, as of Model.RoutesAt; nil: there is none.
func (x *Reviewer) routeAt(p place) Route {
	for _, kind := range precedence {
		if !fits(kind, p.protocol) {
			continue
		}
		for r := range x.attached(kind, p.service, p.port) {
			return r
		}
	}
	return nil
}

// siblings are the groups of the routes that share a parent with r, itself among them.
func (x *Reviewer) siblings(r Route) []*routeGroup {
	var out []*routeGroup
	add := func(service string, port int32) {
		if g := x.group(groupKey{kind: r.Key().Kind, service: service, port: port}); g != nil && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	for _, p := range r.Parents() {
		if p.Port == 0 {
			add(p.Name, anyPort)
			continue
		}
		add(p.Name, 0)
		add(p.Name, int32(p.Port))
	}
	return out
}

// overlapping are the groups of the routes that can see a request that r can, itself among
// them: as overlaps has it.
func (x *Reviewer) overlapping(r ruled) []*routeGroup {
	out := x.siblings(r)
	for _, h := range r.hostnames() {
		if g := x.group(groupKey{kind: r.Key().Kind, host: h}); g != nil && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func (x *Reviewer) matchesOf(r ruled) *routeMatches {
	if m := x.matches[r]; m != nil {
		return m
	}
	m := &routeMatches{rules: make([][]string, r.rules()), first: map[string]int{}}
	for i := range m.rules {
		m.rules[i] = r.matches(i)
		for _, match := range m.rules[i] {
			if _, there := m.first[match]; !there {
				m.first[match] = i
			}
		}
	}
	x.matches[r] = m
	return m
}

// withMatch are the group's routes that have a match.
func (x *Reviewer) withMatch(g *routeGroup, match string) []Route {
	if g.byMatch == nil {
		g.byMatch = map[string][]Route{}
		for _, r := range g.routes {
			if r, ok := r.(ruled); ok {
				for m := range x.matchesOf(r).first {
					g.byMatch[m] = append(g.byMatch[m], r)
				}
			}
		}
	}
	return g.byMatch[match]
}

// withServerName are the group's routes for a server name.
func (g *routeGroup) withServerName(name string) []Route {
	if g.byHost == nil {
		g.byHost = map[string][]Route{}
		for _, r := range g.routes {
			if r, ok := r.(*TLSRoute); ok {
				for _, h := range slices.Compact(slices.Sorted(slices.Values(r.Spec.Hostnames))) {
					g.byHost[h] = append(g.byHost[h], r)
				}
			}
		}
	}
	return g.byHost[name]
}

// noSuchLabels is NoSuchLabels of the model, found once.
func (x *Reviewer) noSuchLabels(service string, labels map[string]string) string {
	k := labelsOf{service, LabelText(labels)}
	message, known := x.noSuch[k]
	if !known {
		message = x.m.NoSuchLabels(service, labels)
		x.noSuch[k] = message
	}
	return message
}

// labelKeys are the keys of the labels of a service's instances, sorted.
func (x *Reviewer) labelKeys(service string) []string {
	keys, known := x.keys[service]
	if !known {
		keys = labelKeys(x.m.Instances[service])
		x.keys[service] = keys
	}
	return keys
}

// olderThan and youngerThan are the parts of a list of routes of o's kind on both sides of it.
func olderThan(list []Route, o Object) []Route {
	at, _ := slices.BinarySearchFunc(list, o, func(r Route, o Object) int { return compareAge(r.Head(), o.Head()) })
	return list[:at]
}

func youngerThan(list []Route, o Object) []Route {
	at, found := slices.BinarySearchFunc(list, o, func(r Route, o Object) int { return compareAge(r.Head(), o.Head()) })
	if found {
		at++
	}
	return list[at:]
}

// oldestFirst joins lists of routes of one kind, each with the oldest first: a route that is
// in several comes once.
func oldestFirst(lists [][]Route) iter.Seq[Route] {
	return func(yield func(Route) bool) {
		rest := slices.DeleteFunc(slices.Clone(lists), func(l []Route) bool { return len(l) == 0 })
		for len(rest) > 0 {
			next := rest[0][0]
			for _, l := range rest[1:] {
				if compareAge(l[0].Head(), next.Head()) < 0 {
					next = l[0]
				}
			}
			if !yield(next) {
				return
			}
			for i, l := range rest {
				if l[0].Key() == next.Key() {
					rest[i] = l[1:]
				}
			}
			rest = slices.DeleteFunc(rest, func(l []Route) bool { return len(l) == 0 })
		}
	}
}
