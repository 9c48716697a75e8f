// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"fmt"
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
func (s *Status) attachment(m *Model, r Route) {
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

func (s *Status) httpRoute(m *Model, r *HTTPRoute) {
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

func (s *Status) grpcRoute(m *Model, r *GRPCRoute) {
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

func (s *Status) tlsRoute(m *Model, r *TLSRoute) {
	s.attachment(m, r)
	s.streamBackends(m, r.Spec.Rules)
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
			default:
				s.Conditions = append(s.Conditions, Condition{
					Type: ConditionConflicted, Status: true, Reason: "HostnameTaken", Field: index("spec.hostnames", i),
					Message: fmt.Sprintf("%s has the same server name and is older: its connections do not come here", other.Key()),
				})
			}
		}
	}
}

func (s *Status) tcpRoute(m *Model, r *TCPRoute) {
	s.attachment(m, r)
	s.streamBackends(m, r.Spec.Rules)
	for _, other := range Ordered[*TCPRoute](m, KindTCPRoute) {
		if shareParent(other, r) {
			s.older(r, other, "spec.parentRefs")
			s.younger(r, other, "spec.parentRefs")
		}
	}
}

func (s *Status) backends(m *Model, at string, rule *HTTPRule) {
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

// sessionless finds rules whose backends keep a policy's sessions out of force.
func (s *Status) sessionless(m *Model, r Route, at string, rule *HTTPRule) {
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

// unhedged finds rules whose words keep a policy's hedging out of force.
func (s *Status) unhedged(m *Model, r Route, at string, rule *HTTPRule) {
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
func (s *Status) shadowed(m *Model, r ruled, rule int, match string) bool {
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
