// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"slices"
	"strings"
)

// ReasonContested is the reason of conditions about what an object has taken from another
// one, which is told so, too: who made the first of the two is not to find out later.
const ReasonContested = "Contested"

// maxContested bounds the conditions of one object by that reason.
const maxContested = 8

// contest adds such a condition; false: there is no room for more.
func (s *Status) contest(field, message string) bool {
	n := 0
	for _, c := range s.Conditions {
		if c.Reason == ReasonContested {
			n++
		}
	}
	if n < maxContested {
		s.Conditions = append(s.Conditions, Condition{Type: ConditionConflicted, Status: true, Reason: ReasonContested, Field: field, Message: message})
	}
	return n < maxContested
}

// contested finds the oldest younger route that loses requests to a rule: it has a match of
// the rule's.
func (s *Status) contested(x *Reviewer, r ruled, groups []*routeGroup, rule int) {
	mine := x.matchesOf(r).rules[rule]
	var lists [][]Route
	for _, g := range groups {
		for _, match := range mine {
			lists = append(lists, youngerThan(x.withMatch(g, match), r))
		}
	}
	for o := range oldestFirst(lists) {
		other, ok := o.(ruled)
		if !ok {
			continue
		}
		for j, theirs := range x.matchesOf(other).rules {
			if i := slices.IndexFunc(theirs, func(match string) bool { return slices.Contains(mine, match) }); i >= 0 {
				s.contest(index("spec.rules", rule), fmt.Sprintf("%s spec.rules[%d] has the same match and is younger: its requests come here: %s", other.Key(), j, theirs[i]))
				return
			}
		}
	}
}

// outranked names routes of other kinds that do not apply as this one has their port.
func (s *Status) outranked(x *Reviewer, r Route, places []place) {
	kind := r.Key().Kind
	for _, p := range places {
		if in := x.routeAt(p); in == nil || in.Key().Kind != kind {
			continue
		}
		for _, k := range precedence[slices.Index(precedence, kind)+1:] {
			if !fits(k, p.protocol) {
				continue
			}
			for other := range x.attached(k, p.service, p.port) {
				if !s.contest("spec.parentRefs", fmt.Sprintf("%s is at port %d of service %q too and does not apply there: of two kinds only one does", other.Key(), p.port, p.service)) {
					return
				}
			}
		}
	}
}

// Rivals are the objects that a conflict with o may be told of: policies and telemetry with
// its target, routes with a parent or a host name of its. At most 32, in order of their keys.
func Rivals(m *Model, o Object) []Object {
	var out []Object
	add := func(kind string, rival func(Object) bool) {
		for _, other := range m.Objects[kind] {
			if other.Key() != o.Key() && rival(other) {
				out = append(out, other)
			}
		}
	}
	switch x := o.(type) {
	case *TrafficPolicy:
		add(KindTrafficPolicy, func(o Object) bool {
			p, ok := o.(*TrafficPolicy)
			return ok && p.Spec.TargetRef.Name == x.Spec.TargetRef.Name
		})
	case *Telemetry:
		add(KindTelemetry, func(o Object) bool { t, ok := o.(*Telemetry); return ok && t.scope() == x.scope() })
	case Route:
		for _, kind := range precedence {
			add(kind, func(o Object) bool {
				r, ok := o.(Route)
				if !ok {
					return false
				}
				a, isRuled := x.(ruled)
				b, too := r.(ruled)
				return isRuled && too && overlaps(a, b) || shareParent(x, r)
			})
		}
	}
	slices.SortFunc(out, func(a, b Object) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	return out[:min(len(out), 32)]
}
