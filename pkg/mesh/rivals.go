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

func (s *Status) contest(field, message string) {
	n := 0
	for _, c := range s.Conditions {
		if c.Reason == ReasonContested {
			n++
		}
	}
	if n < maxContested {
		s.Conditions = append(s.Conditions, Condition{Type: ConditionConflicted, Status: true, Reason: ReasonContested, Field: field, Message: message})
	}
}

// younger names an object that has no effect beside this one.
func (s *Status) younger(o, other Object, field string) {
	if s.Accepted && other.Key() != o.Key() && compareAge(other.Head(), o.Head()) > 0 {
		s.contest(field, fmt.Sprintf("%s has the same target and is younger: it is not in force", other.Key()))
	}
}

// contested finds the oldest younger route that loses requests to a rule: it has a match of
// the rule's.
func (s *Status) contested(m *Model, r ruled, rule int) {
	var first ruled
	var text string
	for _, o := range m.Objects[r.Key().Kind] {
		other, ok := o.(ruled)
		if !ok || compareAge(other.Head(), r.Head()) <= 0 || !overlaps(other, r) || first != nil && compareAge(other.Head(), first.Head()) >= 0 {
			continue
		}
		mine := r.matches(rule)
		for j := range other.rules() {
			if i := slices.IndexFunc(other.matches(j), func(match string) bool { return slices.Contains(mine, match) }); i >= 0 {
				first = other
				text = fmt.Sprintf("%s spec.rules[%d] has the same match and is younger: its requests come here: %s", other.Key(), j, other.matches(j)[i])
				break
			}
		}
	}
	if first != nil {
		s.contest(index("spec.rules", rule), text)
	}
}

// outranked names routes of other kinds that do not apply as this one has their port.
func (s *Status) outranked(m *Model, r Route, places []place) {
	kind := r.Key().Kind
	for _, p := range places {
		if in := m.RoutesAt(p.service, p.port, p.protocol); len(in) == 0 || in[0].Key().Kind != kind {
			continue
		}
		for _, k := range precedence[slices.Index(precedence, kind)+1:] {
			if !fits(k, p.protocol) {
				continue
			}
			for _, other := range m.attached(k, p.service, p.port) {
				s.contest("spec.parentRefs", fmt.Sprintf("%s is at port %d of service %q too and does not apply there: of two kinds only one does", other.Key(), p.port, p.service))
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
