// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"maps"
	"slices"
)

// simple is a review as it can be written down with no index: each object is compared with
// every other. It is the oracle of Reviewer.
type simple struct{ Status }

func simplyReviewed(m *Model, o Object) Status {
	s := simple{Status{Accepted: true}}
	switch x := o.(type) {
	case *HTTPRoute:
		s.httpRoute(m, x)
	case *GRPCRoute:
		s.grpcRoute(m, x)
	case *TLSRoute:
		s.tlsRoute(m, x)
	case *TCPRoute:
		s.tcpRoute(m, x)
	case *TrafficPolicy:
		s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
		if fb := x.Spec.Fallback; fb != nil && fb.Service != "" {
			s.service(m, "spec.fallback.service", fb.Service)
		}
		s.subsetKeys(m, x)
		for _, other := range Ordered[*TrafficPolicy](m, KindTrafficPolicy) {
			if other.Spec.TargetRef.Name == x.Spec.TargetRef.Name {
				s.older(o, other, "spec.targetRef")
				s.younger(o, other, "spec.targetRef")
			}
		}
	case *Telemetry:
		if x.Spec.TargetRef != nil {
			s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
		}
		for _, other := range Ordered[*Telemetry](m, KindTelemetry) {
			if other.scope() == x.scope() {
				s.older(o, other, "spec.targetRef")
				s.younger(o, other, "spec.targetRef")
			}
		}
	case *Tap:
		s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
	}
	if s.Accepted {
		s.Conditions = append([]Condition{{Type: ConditionAccepted, Status: true, Reason: "Accepted"}}, s.Conditions...)
	}
	return s.Status
}

func (s *simple) older(o, other Object, field string) {
	if !s.Accepted || other.Key() == o.Key() || compareAge(other.Head(), o.Head()) >= 0 {
		return
	}
	s.Accepted = false
	s.Conditions = append(s.Conditions, Condition{
		Type: ConditionAccepted, Reason: "Conflicted", Field: field,
		Message: fmt.Sprintf("%s has the same target and is older: it stays in force", other.Key()),
	})
}

func (s *simple) attachment(m *Model, r Route) {
	for i, p := range r.Parents() {
		at := index("spec.parentRefs", i)
		s.service(m, at+".name", p.Name)
		s.port(m, at+".port", p.Name, p.Port)
	}
	kind := r.Key().Kind
	places := m.places(r)
	var lost []string
	fitting, unknown := 0, len(places) == 0
	for _, p := range places {
		unknown = unknown || m.Services[p.service] == nil
		if !fits(kind, p.protocol) {
			continue
		}
		fitting++
		if in := m.RoutesAt(p.service, p.port, p.protocol); len(in) > 0 && in[0].Key().Kind != kind {
			lost = append(lost, fmt.Sprintf("%s has port %d of service %q", in[0].Key(), p.port, p.service))
		}
	}
	s.outranked(m, r, places)
	switch {
	case fitting == 0 && !unknown:
		s.Accepted = false
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionAccepted, Reason: "NoMatchingParent", Field: "spec.parentRefs",
			Message: fmt.Sprintf("no port of its parents has a protocol that a %s is for", kind),
		})
	case len(lost) == 0:
	case len(lost) == fitting:
		s.Accepted = false
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionAccepted, Reason: "Conflicted", Field: "spec.parentRefs", Message: lost[0] + ": of two kinds only one applies",
		})
	default:
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionConflicted, Status: true, Reason: "PortTaken", Field: "spec.parentRefs", Message: lost[0] + ": of two kinds only one applies",
		})
	}
}

func (s *simple) httpRoute(m *Model, r *HTTPRoute) {
	s.attachment(m, r)
	s.hostnames(m, r, r.Spec.Hostnames)
	for i := range r.Spec.Rules {
		rule, at := &r.Spec.Rules[i], index("spec.rules", i)
		s.backends(m, at, rule)
		s.unhedged(m, r, at, rule)
		s.sessionless(m, r, at, rule)
		for _, match := range rule.identities() {
			if s.shadowed(m, r, i, match) {
				break
			}
		}
		s.contested(m, r, i)
	}
}

func (s *simple) grpcRoute(m *Model, r *GRPCRoute) {
	s.attachment(m, r)
	s.hostnames(m, r, r.Spec.Hostnames)
	h := r.HTTP()
	for i := range h.Spec.Rules {
		s.backends(m, index("spec.rules", i), &h.Spec.Rules[i])
		s.unhedged(m, r, index("spec.rules", i), &h.Spec.Rules[i])
		s.sessionless(m, r, index("spec.rules", i), &h.Spec.Rules[i])
		for _, match := range r.Spec.Rules[i].identities() {
			if s.shadowed(m, r, i, match) {
				break
			}
		}
		s.contested(m, r, i)
	}
}

func (s *simple) tlsRoute(m *Model, r *TLSRoute) {
	s.attachment(m, r)
	s.streamBackends(m, r.Spec.Rules)
	taken := 0
	for _, other := range Ordered[*TLSRoute](m, KindTLSRoute) {
		if other.Key() == r.Key() || !shareParent(other, r) {
			continue
		}
		younger := compareAge(other.Head(), r.Head()) > 0
		for i, h := range r.Spec.Hostnames {
			switch {
			case !slices.Contains(other.Spec.Hostnames, h):
			case younger:
				s.contest(index("spec.hostnames", i), fmt.Sprintf("%s has the same server name and is younger: its connections come here", other.Key()))
			case taken < maxTakenNames:
				taken++
				s.Conditions = append(s.Conditions, Condition{
					Type: ConditionConflicted, Status: true, Reason: "HostnameTaken", Field: index("spec.hostnames", i),
					Message: fmt.Sprintf("%s has the same server name and is older: its connections do not come here", other.Key()),
				})
			}
		}
	}
}

func (s *simple) tcpRoute(m *Model, r *TCPRoute) {
	s.attachment(m, r)
	s.streamBackends(m, r.Spec.Rules)
	for _, other := range Ordered[*TCPRoute](m, KindTCPRoute) {
		if shareParent(other, r) {
			s.older(r, other, "spec.parentRefs")
			s.younger(r, other, "spec.parentRefs")
		}
	}
}

func (s *simple) backends(m *Model, at string, rule *HTTPRule) {
	for j, b := range rule.BackendRefs {
		ref := index(at+".backendRefs", j)
		s.service(m, ref+".name", b.Name)
		s.port(m, ref+".port", b.Name, b.Port)
		s.speaks(m, ref+".name", b.Name, false)
		if b.Share() > 0 {
			s.labels(m, ref+".labels", b.Name, b.Labels)
		}
	}
	for j, f := range rule.Filters {
		if f.RequestMirror != nil {
			s.service(m, index(at+".filters", j)+".requestMirror.backendRef.name", f.RequestMirror.BackendRef.Name)
		}
	}
}

func (s *simple) sessionless(m *Model, r Route, at string, rule *HTTPRule) {
	if len(rule.BackendRefs) < 2 || rule.OnlyBackend() != "" {
		return
	}
	names := []string{}
	for _, b := range rule.BackendRefs {
		names = append(names, b.Name)
	}
	for _, p := range r.Parents() {
		names = append(names, p.Name)
	}
	for _, name := range names {
		if policy := m.PolicyOf(name); policy != nil && policy.Spec.SessionPersistence != nil {
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "NoSessions", Field: at + ".backendRefs",
				Message: fmt.Sprintf("%s wants sessions: those of this rule are not kept, as shares of several backends are drawn for each request", policy.Key()),
			})
			return
		}
	}
}

func (s *simple) unhedged(m *Model, r Route, at string, rule *HTTPRule) {
	field := rule.unhedged()
	if field == "" {
		return
	}
	for _, p := range r.Parents() {
		if policy := m.PolicyOf(p.Name); policy != nil && policy.Spec.Hedging != nil {
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "NotHedged", Field: at + "." + field,
				Message: fmt.Sprintf("%s hedges requests to %q: those of this rule are not hedged, as it bounds each attempt, or allows no further one", policy.Key(), p.Name),
			})
			return
		}
	}
}

func (s *simple) shadowed(m *Model, r ruled, rule int, match string) bool {
	for _, other := range Ordered[ruled](m, r.Key().Kind) {
		same := other.Key() == r.Key()
		if !same && (compareAge(other.Head(), r.Head()) >= 0 || !overlaps(other, r)) {
			continue
		}
		limit := other.rules()
		if same {
			other, limit = r, rule
		}
		for j := range limit {
			if !slices.Contains(other.matches(j), match) {
				continue
			}
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "MatchShadowed", Field: index("spec.rules", rule),
				Message: fmt.Sprintf("%s spec.rules[%d] has the same match and comes first: %s", other.Key(), j, match),
			})
			return true
		}
	}
	return false
}

func (s *simple) younger(o, other Object, field string) {
	if s.Accepted && other.Key() != o.Key() && compareAge(other.Head(), o.Head()) > 0 {
		s.contest(field, fmt.Sprintf("%s has the same target and is younger: it is not in force", other.Key()))
	}
}

func (s *simple) contested(m *Model, r ruled, rule int) {
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

func (s *simple) outranked(m *Model, r Route, places []place) {
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

func (s *simple) labels(m *Model, field, service string, labels map[string]string) {
	if len(labels) == 0 || m.Services[service] == nil {
		return
	}
	message := m.NoSuchLabels(service, labels)
	if message == "" {
		return
	}
	s.noSuchLabels(field, message+"; "+simplyWithoutSubset(m, service, labels))
}

func (s *simple) subsetKeys(m *Model, p *TrafficPolicy) {
	sub, service := p.Spec.Subsets, p.Spec.TargetRef.Name
	if sub == nil || len(m.Instances[service]) == 0 {
		return
	}
	there := labelKeys(m.Instances[service])
	for i := range sub.Selectors {
		for j, k := range sub.Selectors[i].Keys {
			if slices.Contains(there, k) {
				continue
			}
			message := fmt.Sprintf("no instance of service %q has the label %s now: %s", service, plainOrQuoted(k), listed(there, "there are the labels "))
			if len(there) == 0 {
				message = fmt.Sprintf("no instance of service %q has any label now", service)
			}
			s.noSuchLabels(index(index("spec.subsets.selectors", i)+".keys", j), message+meant(k, there))
		}
	}
	if message := m.NoSuchLabels(service, sub.DefaultSubset); len(sub.DefaultSubset) > 0 && message != "" {
		s.noSuchLabels("spec.subsets.defaultSubset", message+"; requests that fall back to it get 503")
	}
}

func simplyWithoutSubset(m *Model, service string, labels map[string]string) string {
	if p := m.PolicyOf(service); p != nil && p.Spec.Subsets != nil {
		keys := KeySet(slices.Collect(maps.Keys(labels)))
		for i := range p.Spec.Subsets.Selectors {
			x := &p.Spec.Subsets.Selectors[i]
			if KeySet(x.Keys) == keys && x.FallbackPolicy != "" && x.FallbackPolicy != SubsetNoFallback {
				return fmt.Sprintf("its requests go where fallbackPolicy %s of %s says", x.FallbackPolicy, p.Key())
			}
		}
	}
	return "its requests get 503"
}
