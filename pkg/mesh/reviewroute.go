// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Route is an object that says where what comes for a service goes.
type Route interface {
	Object
	Parents() []ParentRef
}

// precedence of the kinds of routes where several are attached to one port of a
// service: only the first applies. Source: GEP-1294, "Route types".
var precedence = []string{KindGRPCRoute, KindHTTPRoute, KindTLSRoute, KindTCPRoute}

// fits says whether routes of a kind can be for a port of that protocol.
func fits(kind, protocol string) bool {
	switch kind {
	case KindTCPRoute:
		return protocol == ProtocolTCP || protocol == ProtocolTLS
	case KindTLSRoute:
		return protocol == ProtocolTLS
	}
	return protocol == "" || protocol == ProtocolHTTP || SpeaksHTTP2(protocol)
}

// RoutesAt lists the routes in force at a port of a service, all of one kind, the
// oldest first. protocol is the port's; port 0 has what is for all ports.
func (m *Model) RoutesAt(service string, port uint16, protocol string) []Route {
	for _, kind := range precedence {
		if !fits(kind, protocol) {
			continue
		}
		if list := m.attached(kind, service, port); len(list) > 0 {
			return list
		}
	}
	return nil
}

func (m *Model) attached(kind, service string, port uint16) []Route {
	var out []Route
	for _, o := range m.Objects[kind] {
		r, ok := o.(Route)
		if ok && slices.ContainsFunc(r.Parents(), func(p ParentRef) bool { return p.Name == service && (p.Port == 0 || p.Port == port) }) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Route) int { return compareAge(a.Head(), b.Head()) })
	return out
}

// place is a port of a service that a route is attached to, 0 for one that is not declared.
type place struct {
	service  string
	port     uint16
	protocol string
}

func (m *Model) places(r Route) []place {
	out := map[place]bool{}
	for _, p := range r.Parents() {
		svc := m.Services[p.Name]
		if svc == nil || len(svc.Spec.Ports) == 0 {
			out[place{p.Name, p.Port, ""}] = true
			continue
		}
		for _, d := range svc.Spec.Ports {
			if p.Port == 0 || p.Port == d.Port {
				out[place{p.Name, d.Port, d.Protocol}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(out), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.port, b.port))
	})
}

// attachment looks at what a route is attached to: it is not accepted where no port
// is for its kind, or another kind has them all.
func (s *Status) attachment(x *Reviewer, r Route) {
	m := x.m
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
		if in := x.routeAt(p); in != nil && in.Key().Kind != kind {
			lost = append(lost, fmt.Sprintf("%s has port %d of service %q", in.Key(), p.port, p.service))
		}
	}
	s.outranked(x, r, places)
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

func (s *Status) httpRoute(x *Reviewer, r *HTTPRoute) {
	s.attachment(x, r)
	s.hostnames(x.m, r, r.Spec.Hostnames)
	s.httpRules(x, r, r.Spec.Rules)
}

func (s *Status) grpcRoute(x *Reviewer, r *GRPCRoute) {
	s.attachment(x, r)
	s.hostnames(x.m, r, r.Spec.Hostnames)
	s.httpRules(x, r, r.HTTP().Spec.Rules)
}

func (s *Status) httpRules(x *Reviewer, r ruled, rules []HTTPRule) {
	groups := x.overlapping(r)
	for i := range rules {
		rule, at := &rules[i], index("spec.rules", i)
		s.backends(x, at, rule)
		s.unhedged(x, r, at, rule)
		s.sessionless(x, r, at, rule)
		for _, match := range x.matchesOf(r).rules[i] {
			if s.shadowed(x, r, groups, i, match) {
				break
			}
		}
		s.contested(x, r, groups, i)
	}
}

func (s *Status) tlsRoute(x *Reviewer, r *TLSRoute) {
	s.attachment(x, r)
	s.streamBackends(x.m, r.Spec.Rules)
	var older, younger [][]Route
	for _, g := range x.siblings(r) {
		for _, h := range r.Spec.Hostnames {
			list := g.withServerName(h)
			older, younger = append(older, olderThan(list, r)), append(younger, youngerThan(list, r))
		}
	}
	s.takenNames(r, oldestFirst(older))
	for o := range oldestFirst(younger) {
		for _, i := range sharedNames(r, o) {
			if !s.contest(index("spec.hostnames", i), fmt.Sprintf("%s has the same server name and is younger: its connections come here", o.Key())) {
				return
			}
		}
	}
}

// maxTakenNames bounds the conditions of one route about server names that others have.
const maxTakenNames = 8

// takenNames finds server names of a route that older ones have.
func (s *Status) takenNames(r *TLSRoute, older iter.Seq[Route]) {
	n := 0
	for o := range older {
		for _, i := range sharedNames(r, o) {
			if n++; n > maxTakenNames {
				return
			}
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "HostnameTaken", Field: index("spec.hostnames", i),
				Message: fmt.Sprintf("%s has the same server name and is older: its connections do not come here", o.Key()),
			})
		}
	}
}

// sharedNames are the server names of r, by their place, that another route has too.
func sharedNames(r *TLSRoute, o Route) []int {
	var out []int
	other, ok := o.(*TLSRoute)
	for i, h := range r.Spec.Hostnames {
		if ok && slices.Contains(other.Spec.Hostnames, h) {
			out = append(out, i)
		}
	}
	return out
}

func (s *Status) tcpRoute(x *Reviewer, r *TCPRoute) {
	s.attachment(x, r)
	s.streamBackends(x.m, r.Spec.Rules)
	var lists [][]Route
	for _, g := range x.siblings(r) {
		lists = append(lists, g.routes)
	}
	sameTarget(s, r, oldestFirst(lists), "spec.parentRefs")
}

func (s *Status) backends(x *Reviewer, at string, rule *HTTPRule) {
	for j, b := range rule.BackendRefs {
		ref := index(at+".backendRefs", j)
		s.service(x.m, ref+".name", b.Name)
		s.port(x.m, ref+".port", b.Name, b.Port)
		s.speaks(x.m, ref+".name", b.Name, false)
		if b.Share() > 0 {
			s.labels(x, ref+".labels", b.Name, b.Labels)
		}
	}
	for j, f := range rule.Filters {
		if f.RequestMirror != nil {
			s.service(x.m, index(at+".filters", j)+".requestMirror.backendRef.name", f.RequestMirror.BackendRef.Name)
		}
	}
}

// sessionless finds rules whose backends keep a policy's sessions out of force.
func (s *Status) sessionless(x *Reviewer, r Route, at string, rule *HTTPRule) {
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
		if policy := x.policyOf(name); policy != nil && policy.Spec.SessionPersistence != nil {
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "NoSessions", Field: at + ".backendRefs",
				Message: fmt.Sprintf("%s wants sessions: those of this rule are not kept, as shares of several backends are drawn for each request", policy.Key()),
			})
			return
		}
	}
}

// unhedged finds rules whose words keep a policy's hedging out of force.
func (s *Status) unhedged(x *Reviewer, r Route, at string, rule *HTTPRule) {
	field := rule.unhedged()
	if field == "" {
		return
	}
	for _, p := range r.Parents() {
		if policy := x.policyOf(p.Name); policy != nil && policy.Spec.Hedging != nil {
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionConflicted, Status: true, Reason: "NotHedged", Field: at + "." + field,
				Message: fmt.Sprintf("%s hedges requests to %q: those of this rule are not hedged, as it bounds each attempt, or allows no further one", policy.Key(), p.Name),
			})
			return
		}
	}
}

func (s *Status) streamBackends(m *Model, rules []StreamRule) {
	for i := range rules {
		for j, b := range rules[i].BackendRefs {
			ref := index(index("spec.rules", i)+".backendRefs", j)
			s.service(m, ref+".name", b.Name)
			s.port(m, ref+".port", b.Name, b.Port)
			s.speaks(m, ref+".name", b.Name, true)
		}
	}
}

// speaks finds backends whose sidecars would not understand what they are sent.
func (s *Status) speaks(m *Model, field, name string, streams bool) {
	svc := m.Services[name]
	if svc == nil {
		return
	}
	has, want := len(svc.Spec.Ports) > 0 && svc.Spec.Ports[0].Streams(), "http or grpc"
	if streams {
		want = "tcp or tls"
	}
	if has != streams {
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionResolvedRefs, Reason: "UnsupportedProtocol", Field: field,
			Message: fmt.Sprintf("service %q has no port of protocol %s", name, want),
		})
	}
}

// ruled is a route with rules that have matches.
type ruled interface {
	Route
	hostnames() []string
	rules() int
	matches(rule int) []string
}

func (r *HTTPRoute) hostnames() []string    { return r.Spec.Hostnames }
func (r *HTTPRoute) rules() int             { return len(r.Spec.Rules) }
func (r *HTTPRoute) matches(i int) []string { return r.Spec.Rules[i].identities() }

func (r *GRPCRoute) hostnames() []string    { return r.Spec.Hostnames }
func (r *GRPCRoute) rules() int             { return len(r.Spec.Rules) }
func (r *GRPCRoute) matches(i int) []string { return r.Spec.Rules[i].identities() }

// shadowed finds a match that another route of the kind, or an earlier rule, takes
// first: the same parent, an overlapping host and the same match. The Gateway API
// lets the older route win, then the first by name, then the first rule.
func (s *Status) shadowed(x *Reviewer, r ruled, groups []*routeGroup, rule int, match string) bool {
	var first ruled
	for _, g := range groups {
		older := olderThan(x.withMatch(g, match), r)
		if len(older) == 0 {
			continue
		}
		if other, ok := older[0].(ruled); ok && (first == nil || compareAge(other.Head(), first.Head()) < 0) {
			first = other
		}
	}
	if first == nil && x.matchesOf(r).first[match] < rule {
		first = r
	}
	if first == nil {
		return false
	}
	j := x.matchesOf(first).first[match]
	s.Conditions = append(s.Conditions, Condition{
		Type: ConditionConflicted, Status: true, Reason: "MatchShadowed", Field: index("spec.rules", rule),
		Message: fmt.Sprintf("%s spec.rules[%d] has the same match and comes first: %s", first.Key(), j, match),
	})
	return true
}

// overlaps says whether two routes can see the same request: they share a parent,
// whose own names reach both, or a host name.
func overlaps(r, o ruled) bool {
	return shareParent(r, o) || slices.ContainsFunc(r.hostnames(), func(h string) bool { return slices.Contains(o.hostnames(), h) })
}

func shareParent(r, o Route) bool {
	for _, a := range r.Parents() {
		for _, b := range o.Parents() {
			if a.Name == b.Name && (a.Port == b.Port || a.Port == 0 || b.Port == 0) {
				return true
			}
		}
	}
	return false
}

// hostnames finds host names that are another service's own: requests to it stay there.
func (s *Status) hostnames(m *Model, r Route, list []string) {
	for i, h := range list {
		parent := slices.ContainsFunc(r.Parents(), func(p ParentRef) bool { return p.Name == h })
		if m.Services[h] == nil || parent {
			continue
		}
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionConflicted, Status: true, Reason: "HostnameTaken", Field: index("spec.hostnames", i),
			Message: fmt.Sprintf("%q is the name of a service that is no parent of the route: its requests do not come here", h),
		})
	}
}
