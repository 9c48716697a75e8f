// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"regexp"
	"slices"
	"strings"
)

// GRPCRoute is the Gateway API's kind of that name (v1), attached to a Service:
// which gRPC calls to the service go where. Source: gateway.networking.k8s.io/v1
// GRPCRoute, GAMMA for parentRefs. timeouts and retry are written as HTTPRoute's.
type GRPCRoute struct {
	Header
	Spec GRPCRouteSpec `json:"spec" rule:"required" doc:"Parents, host names and rules."`
}

// GRPCRouteSpec is the route's body.
type GRPCRouteSpec struct {
	ParentRefs []ParentRef `json:"parentRefs" rule:"required,minitems=1,maxitems=32" doc:"Services whose calls the route handles."`
	Hostnames  []string    `json:"hostnames,omitzero" rule:"maxitems=16" doc:"Further host names that reach the route, beside the names of the parent service."`
	Rules      []GRPCRule  `json:"rules" rule:"required,minitems=1,maxitems=64" doc:"Rules; the most specific match over all routes of a parent wins."`
}

// GRPCRule sends what one of its matches takes to its backends.
type GRPCRule struct {
	Name               string           `json:"name,omitempty" rule:"maxlen=253" doc:"Name of the rule, shown in explanations."`
	Matches            []GRPCMatch      `json:"matches,omitzero" rule:"maxitems=64" doc:"Any of these; every call when empty."`
	Filters            []GRPCFilter     `json:"filters,omitzero" rule:"maxitems=16" doc:"What to do with a call that matched."`
	BackendRefs        []GRPCBackendRef `json:"backendRefs" rule:"required,minitems=1,maxitems=16" doc:"Where calls go, by weight."`
	Timeouts           *GRPCTimeouts    `json:"timeouts,omitempty" doc:"Timeouts of the rule."`
	Retry              *GRPCRetry       `json:"retry,omitempty" doc:"Retries of the rule."`
	SessionPersistence *Unsupported     `json:"sessionPersistence,omitempty"`
}

// GRPCMatch holds when all that it names holds.
type GRPCMatch struct {
	Method  *GRPCMethodMatch `json:"method,omitempty" doc:"Service and method; every one when empty."`
	Headers []ValueMatch     `json:"headers,omitzero" rule:"maxitems=16" doc:"Request metadata, all of them."`
}

// GRPCMethodMatch compares the parts of a call's path, /service/method.
type GRPCMethodMatch struct {
	Type    string `json:"type,omitempty" rule:"enum=Exact|RegularExpression" doc:"Exact when empty."`
	Service string `json:"service,omitempty" rule:"maxlen=1024" doc:"Full name of the service, package.Service; any when empty."`
	Method  string `json:"method,omitempty" rule:"maxlen=1024" doc:"Name of the method; any when empty."`
}

// Kind is the type with its default.
func (m *GRPCMethodMatch) Kind() string {
	if m == nil || m.Type == "" {
		return MatchExact
	}
	return m.Type
}

// GRPCFilter is one step of a rule: the field that Type names is set, no other.
type GRPCFilter struct {
	Type                   string          `json:"type" rule:"required,enum=RequestHeaderModifier|ResponseHeaderModifier|RequestMirror" doc:"Which of the fields is set."`
	RequestHeaderModifier  *HeaderModifier `json:"requestHeaderModifier,omitempty" doc:"Changes to the request's metadata."`
	ResponseHeaderModifier *HeaderModifier `json:"responseHeaderModifier,omitempty" doc:"Changes to the response's header metadata."`
	RequestMirror          *RequestMirror  `json:"requestMirror,omitempty" doc:"Send a copy elsewhere and drop its answer."`
	ExtensionRef           *Unsupported    `json:"extensionRef,omitempty"`
}

// GRPCBackendRef is one destination with its share of the calls.
type GRPCBackendRef struct {
	Group     string            `json:"group,omitempty" rule:"enum=outrigger.io" doc:"Group of the backend; outrigger.io."`
	Kind      string            `json:"kind,omitempty" rule:"enum=Service" doc:"Kind of the backend; Service."`
	Name      string            `json:"name" rule:"required,maxlen=253" doc:"Name of the service."`
	Namespace string            `json:"namespace,omitempty" rule:"enum=default" doc:"Only \"default\"."`
	Port      uint16            `json:"port,omitempty" rule:"min=1" doc:"Port of the service; informative, instances say their own."`
	Weight    *uint32           `json:"weight,omitempty" rule:"max=1000000" doc:"Share relative to the others; 1 when empty, 0 takes no traffic."`
	Filters   []GRPCFilter      `json:"filters,omitzero" rule:"maxitems=16" doc:"Header modifiers for calls that go to this backend."`
	Labels    map[string]string `json:"labels,omitzero" rule:"maxitems=16" doc:"Only instances with all of these labels: what they registered as metadata, their version and their zone; every instance when empty."`
}

// GRPCTimeouts bounds a call. Zero switches a timeout off.
type GRPCTimeouts struct {
	Request        *Duration `json:"request,omitempty" doc:"Whole call with all retries; none when empty, so that streams live on and the caller's deadline counts."`
	BackendRequest *Duration `json:"backendRequest,omitempty" doc:"One attempt."`
}

// GRPCRetry says what is tried again.
type GRPCRetry struct {
	Codes    []string  `json:"codes,omitzero" rule:"maxitems=5,enum=cancelled|deadline-exceeded|internal|resource-exhausted|unavailable" doc:"gRPC status codes that are tried again, in Envoy's words."`
	Attempts *uint32   `json:"attempts,omitempty" rule:"max=10" doc:"Retries after the first attempt; 1 when empty."`
	Backoff  *Duration `json:"backoff,omitempty" doc:"Least wait before a retry; 25ms when empty."`
}

// Parents lists the services that the route is attached to.
func (r *GRPCRoute) Parents() []ParentRef { return r.Spec.ParentRefs }

func (r *GRPCRoute) check(f *faults) {
	checkObjectName(f, r.Metadata.Name)
	checkParents(f, r.Spec.ParentRefs)
	checkHostnames(f, r.Spec.Hostnames)
	for i := range r.Spec.Rules {
		r.Spec.Rules[i].check(f, index("spec.rules", i))
	}
}

func (r *GRPCRule) check(f *faults, path string) {
	for i := range r.Matches {
		m, at := &r.Matches[i], index(path+".matches", i)
		m.Method.check(f, at+".method")
		for j, h := range m.Headers {
			here := index(at+".headers", j)
			checkHeaderName(f, here+".name", h.Name)
			h.check(f, here)
		}
	}
	checkFilters(f, path+".filters", httpFilters(r.Filters), false)
	for i := range r.BackendRefs {
		b, at := &r.BackendRefs[i], index(path+".backendRefs", i)
		checkLabels(f, at+".labels", b.Labels)
		checkServiceName(f, at+".name", b.Name)
		checkFilters(f, at+".filters", httpFilters(b.Filters), true)
	}
	if t := r.Timeouts; t != nil && t.Request != nil && t.BackendRequest != nil && *t.Request > 0 && *t.BackendRequest > *t.Request {
		f.add(path+".timeouts.backendRequest", "%s is more than the whole request's %s", *t.BackendRequest, *t.Request)
	}
}

// Names of services and methods as protobuf has them.
var (
	grpcServicePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$`)
	grpcMethodPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func (m *GRPCMethodMatch) check(f *faults, path string) {
	switch {
	case m == nil:
	case m.Service == "" && m.Method == "":
		f.add(path, "want service or method")
	case m.Kind() == MatchRegularExpression:
		checkRegex(f, path+".service", m.Service)
		checkRegex(f, path+".method", m.Method)
	default:
		if m.Service != "" && !grpcServicePattern.MatchString(m.Service) {
			f.add(path+".service", "want a name such as package.Service, got %q", clip(m.Service))
		}
		if m.Method != "" && !grpcMethodPattern.MatchString(m.Method) {
			f.add(path+".method", "want a name such as Method, got %q", clip(m.Method))
		}
	}
}

// path is the match as one of HTTP paths. A whole name is compared, not its beginning.
func (m *GRPCMethodMatch) path() *PathMatch {
	const any = "[^/]+"
	switch {
	case m == nil:
		return nil
	case m.Kind() == MatchExact && m.Method == "":
		return &PathMatch{Type: MatchPathPrefix, Value: "/" + m.Service}
	case m.Kind() == MatchExact && m.Service != "":
		return &PathMatch{Type: MatchExact, Value: "/" + m.Service + "/" + m.Method}
	case m.Kind() == MatchExact:
		return &PathMatch{Type: MatchRegularExpression, Value: "/" + any + "/" + regexp.QuoteMeta(m.Method)}
	}
	part := func(expr string) string {
		if expr == "" {
			return any
		}
		return "(?:" + expr + ")"
	}
	return &PathMatch{Type: MatchRegularExpression, Value: "/" + part(m.Service) + "/" + part(m.Method)}
}

// HTTP is the route as one of HTTP, which gRPC's calls are. It shares what it can with r.
func (r *GRPCRoute) HTTP() *HTTPRoute {
	out := &HTTPRoute{Header: r.Header, Spec: HTTPRouteSpec{ParentRefs: r.Spec.ParentRefs, Hostnames: r.Spec.Hostnames}}
	for i := range r.Spec.Rules {
		out.Spec.Rules = append(out.Spec.Rules, r.Spec.Rules[i].http())
	}
	return out
}

func (r *GRPCRule) http() HTTPRule {
	out := HTTPRule{Name: r.Name, Filters: httpFilters(r.Filters), Streams: true}
	for _, m := range r.Matches {
		out.Matches = append(out.Matches, HTTPMatch{Path: m.Method.path(), Headers: m.Headers})
	}
	for _, b := range r.BackendRefs {
		out.BackendRefs = append(out.BackendRefs, HTTPBackendRef{
			Group: b.Group, Kind: b.Kind, Name: b.Name, Namespace: b.Namespace, Port: b.Port, Weight: b.Weight, Filters: httpFilters(b.Filters), Labels: b.Labels,
		})
	}
	if t := r.Timeouts; t != nil {
		out.Timeouts = &HTTPTimeouts{Request: t.Request, BackendRequest: t.BackendRequest}
	}
	if t := r.Retry; t != nil {
		out.Retry = &HTTPRetry{Attempts: t.Attempts, Backoff: t.Backoff, On: t.Codes}
	}
	return out
}

func httpFilters(list []GRPCFilter) []HTTPFilter {
	var out []HTTPFilter
	for _, x := range list {
		out = append(out, HTTPFilter{
			Type: x.Type, RequestHeaderModifier: x.RequestHeaderModifier, ResponseHeaderModifier: x.ResponseHeaderModifier, RequestMirror: x.RequestMirror,
		})
	}
	return out
}

// identities are the rule's matches in a form that compares.
func (r *GRPCRule) identities() []string {
	h := r.http()
	return h.identities()
}

// Specificity orders the matches of gRPC: the longer name of a service, then of a
// method. Source: gateway.networking.k8s.io/v1 GRPCRouteRule.
func (m *GRPCMatch) Specificity() (exact bool, service, method int) {
	if m.Method == nil {
		return true, 0, 0
	}
	return m.Method.Kind() == MatchExact, len(m.Method.Service), len(m.Method.Method)
}

// checkParents finds parents that are no service, or listed twice.
func checkParents(f *faults, list []ParentRef) {
	seen := map[ParentRef]bool{}
	for i, p := range list {
		path := index("spec.parentRefs", i)
		checkServiceName(f, path+".name", p.Name)
		id := ParentRef{Name: p.Name, Port: p.Port}
		if seen[id] {
			f.add(path, "parent %q is listed twice", p.Name)
		}
		seen[id] = true
	}
}

func checkHostnames(f *faults, list []string) {
	for i, h := range list {
		checkHostname(f, index("spec.hostnames", i), h)
		if slices.IndexFunc(list, func(o string) bool { return strings.EqualFold(o, h) }) != i {
			f.add(index("spec.hostnames", i), "host name %q is listed twice", h)
		}
	}
}
