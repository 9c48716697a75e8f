// SPDX-License-Identifier: Apache-2.0

package mesh

import "slices"

// HTTPRoute is the Gateway API's kind of that name (v1), attached to a Service:
// it says how requests that clients send to the service are matched and where
// they go. Source: gateway.networking.k8s.io/v1 HTTPRoute, GAMMA for parentRefs.
type HTTPRoute struct {
	Header
	Spec HTTPRouteSpec `json:"spec" rule:"required" doc:"Parents, host names and rules."`
}

// HTTPRouteSpec is the route's body.
type HTTPRouteSpec struct {
	ParentRefs []ParentRef `json:"parentRefs" rule:"required,minitems=1,maxitems=32" doc:"Services whose requests the route handles."`
	Hostnames  []string    `json:"hostnames,omitzero" rule:"maxitems=16" doc:"Further host names that reach the route, beside the names of the parent service."`
	Rules      []HTTPRule  `json:"rules" rule:"required,minitems=1,maxitems=64" doc:"Rules; the most specific match over all routes of a parent wins."`
}

// ParentRef names the service that a route is attached to.
type ParentRef struct {
	Group       string       `json:"group,omitempty" rule:"enum=outrigger.io" doc:"Group of the parent; outrigger.io."`
	Kind        string       `json:"kind" rule:"required,enum=Service" doc:"Kind of the parent."`
	Name        string       `json:"name" rule:"required,maxlen=253" doc:"Name of the parent service."`
	Namespace   string       `json:"namespace,omitempty" rule:"enum=default" doc:"Only \"default\"."`
	Port        uint16       `json:"port,omitempty" rule:"min=1" doc:"Only requests to this port of the service; all when empty."`
	SectionName *Unsupported `json:"sectionName,omitempty"`
}

// HTTPRule sends what one of its matches takes to its backends.
type HTTPRule struct {
	Name               string              `json:"name,omitempty" rule:"maxlen=253" doc:"Name of the rule, shown in explanations."`
	Matches            []HTTPMatch         `json:"matches,omitzero" rule:"maxitems=64" doc:"Any of these; every request when empty."`
	Filters            []HTTPFilter        `json:"filters,omitzero" rule:"maxitems=16" doc:"What to do with a request that matched."`
	BackendRefs        []HTTPBackendRef    `json:"backendRefs,omitzero" rule:"maxitems=16" doc:"Where requests go, by weight."`
	Timeouts           *HTTPTimeouts       `json:"timeouts,omitempty" doc:"Timeouts of the rule."`
	Retry              *HTTPRetry          `json:"retry,omitempty" doc:"Retries of the rule."`
	SessionPersistence *SessionPersistence `json:"sessionPersistence,omitempty" doc:"Clients that stay at their instance of the rule's backend; as its TrafficPolicy says when empty."`
	// Streams says that exchanges may last: no timeout holds that nobody asked for.
	Streams bool `json:"-"`
}

// HTTPMatch holds when all that it names holds.
type HTTPMatch struct {
	Path        *PathMatch   `json:"path,omitempty" doc:"Path; prefix / when empty."`
	Headers     []ValueMatch `json:"headers,omitzero" rule:"maxitems=16" doc:"Request headers, all of them."`
	QueryParams []ValueMatch `json:"queryParams,omitzero" rule:"maxitems=16" doc:"Query parameters, all of them."`
	Method      string       `json:"method,omitempty" rule:"enum=GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH" doc:"Request method."`
}

// Kinds of path and value matches.
const (
	MatchExact             = "Exact"
	MatchPathPrefix        = "PathPrefix"
	MatchRegularExpression = "RegularExpression"
)

// PathMatch compares the path without the query. A prefix matches whole segments: /v2 takes /v2 and /v2/x, not /v20.
type PathMatch struct {
	Type  string `json:"type,omitempty" rule:"enum=Exact|PathPrefix|RegularExpression" doc:"PathPrefix when empty."`
	Value string `json:"value,omitempty" rule:"maxlen=1024" doc:"/ when empty."`
}

// Kind is the type with its default.
func (p *PathMatch) Kind() string {
	if p == nil || p.Type == "" {
		return MatchPathPrefix
	}
	return p.Type
}

// Text is the value with its default.
func (p *PathMatch) Text() string {
	if p == nil || p.Value == "" {
		return "/"
	}
	return p.Value
}

// ValueMatch compares one header or query parameter.
type ValueMatch struct {
	Type  string `json:"type,omitempty" rule:"enum=Exact|RegularExpression" doc:"Exact when empty."`
	Name  string `json:"name" rule:"required,maxlen=256" doc:"Name of the header (case does not matter) or parameter."`
	Value string `json:"value" rule:"required,maxlen=4096" doc:"Value or RE2 expression for the whole value."`
}

// Kind is the type with its default.
func (v ValueMatch) Kind() string {
	if v.Type == "" {
		return MatchExact
	}
	return v.Type
}

// HTTPBackendRef is one destination with its share of the requests.
type HTTPBackendRef struct {
	Group     string            `json:"group,omitempty" rule:"enum=outrigger.io" doc:"Group of the backend; outrigger.io."`
	Kind      string            `json:"kind,omitempty" rule:"enum=Service" doc:"Kind of the backend; Service."`
	Name      string            `json:"name" rule:"required,maxlen=253" doc:"Name of the service."`
	Namespace string            `json:"namespace,omitempty" rule:"enum=default" doc:"Only \"default\"."`
	Port      uint16            `json:"port,omitempty" rule:"min=1" doc:"Port of the service; informative, instances say their own."`
	Weight    *uint32           `json:"weight,omitempty" rule:"max=1000000" doc:"Share relative to the others; 1 when empty, 0 takes no traffic."`
	Filters   []HTTPFilter      `json:"filters,omitzero" rule:"maxitems=16" doc:"Header modifiers for requests that go to this backend."`
	Labels    map[string]string `json:"labels,omitzero" rule:"maxitems=16" doc:"Only instances with all of these labels: what they registered as metadata, their version and their zone; every instance when empty."`
}

// Share is the weight with its default.
func (b *HTTPBackendRef) Share() uint32 {
	if b.Weight == nil {
		return 1
	}
	return *b.Weight
}

// HTTPTimeouts bounds a request. Zero switches a timeout off.
type HTTPTimeouts struct {
	Request        *Duration `json:"request,omitempty" doc:"Whole exchange with all retries; 15s when empty, 0s for none."`
	BackendRequest *Duration `json:"backendRequest,omitempty" doc:"One attempt."`
}

// HTTPRetry says what is tried again.
type HTTPRetry struct {
	Codes    []uint16  `json:"codes,omitzero" rule:"maxitems=32" doc:"Response codes that are tried again, 400 to 599."`
	Attempts *uint32   `json:"attempts,omitempty" rule:"max=10" doc:"Retries after the first attempt; 1 when empty."`
	Backoff  *Duration `json:"backoff,omitempty" doc:"Least wait before a retry; 25ms when empty."`
	// On are further conditions, in Envoy's words.
	On []string `json:"-"`
}

// Parents lists the services that the route is attached to.
func (r *HTTPRoute) Parents() []ParentRef { return r.Spec.ParentRefs }

func (r *HTTPRoute) check(f *faults) {
	checkObjectName(f, r.Metadata.Name)
	checkParents(f, r.Spec.ParentRefs)
	checkHostnames(f, r.Spec.Hostnames)
	for i := range r.Spec.Rules {
		r.Spec.Rules[i].check(f, index("spec.rules", i))
	}
}

func (r *HTTPRule) check(f *faults, path string) {
	for i := range r.Matches {
		r.Matches[i].check(f, index(path+".matches", i))
	}
	redirects := checkFilters(f, path+".filters", r.Filters, false)
	if redirects && len(r.BackendRefs) > 0 {
		f.add(path+".backendRefs", "a rule that redirects has no backends")
	}
	if !redirects && len(r.BackendRefs) == 0 {
		f.add(path+".backendRefs", "want a backend, or a RequestRedirect filter")
	}
	if r.rewritesPrefix() && slices.ContainsFunc(r.Matches, func(m HTTPMatch) bool { return m.Path.Kind() != MatchPathPrefix }) {
		f.add(path+".filters", "ReplacePrefixMatch needs every match of the rule to be a PathPrefix")
	}
	for i := range r.BackendRefs {
		b := &r.BackendRefs[i]
		at := index(path+".backendRefs", i)
		checkServiceName(f, at+".name", b.Name)
		checkFilters(f, at+".filters", b.Filters, true)
		checkLabels(f, at+".labels", b.Labels)
	}
	if t := r.Timeouts; t != nil && t.Request != nil && t.BackendRequest != nil && *t.Request > 0 && *t.BackendRequest > *t.Request {
		f.add(path+".timeouts.backendRequest", "%s is more than the whole request's %s", *t.BackendRequest, *t.Request)
	}
	if s := r.SessionPersistence; s != nil {
		s.check(f, path+".sessionPersistence")
		if r.OnlyBackend() == "" {
			f.add(path+".sessionPersistence", "needs exactly one backend that takes traffic: shares of several are drawn for each request")
		}
	}
	if r.Retry != nil {
		for i, c := range r.Retry.Codes {
			if c < 400 || c > 599 {
				f.add(index(path+".retry.codes", i), "want a code from 400 to 599, got %d", c)
			}
		}
	}
}

func (m *HTTPMatch) check(f *faults, path string) {
	if m.Path != nil {
		switch {
		case m.Path.Kind() == MatchRegularExpression:
			checkRegex(f, path+".path.value", m.Path.Text())
		default:
			checkPath(f, path+".path.value", m.Path.Text())
		}
	}
	for i, h := range m.Headers {
		at := index(path+".headers", i)
		checkHeaderName(f, at+".name", h.Name)
		h.check(f, at)
	}
	for i, q := range m.QueryParams {
		q.check(f, index(path+".queryParams", i))
	}
}

func (v ValueMatch) check(f *faults, path string) {
	if v.Kind() == MatchRegularExpression {
		checkRegex(f, path+".value", v.Value)
		return
	}
	checkHeaderValue(f, path+".value", v.Value)
}

func (r *HTTPRule) rewritesPrefix() bool {
	return slices.ContainsFunc(r.Filters, func(x HTTPFilter) bool {
		return x.URLRewrite != nil && x.URLRewrite.Path.prefix() || x.RequestRedirect != nil && x.RequestRedirect.Path.prefix()
	})
}
