// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultDirectBody  = 4 << 10
	maxDirectBody      = 1 << 20
	filterConfigURL    = typeURLPrefix + "envoy.config.route.v3.FilterConfig"
	maxReplayBufferLen = 16 << 20
)

// routeScope is what a route configuration hands down to its virtual hosts.
type routeScope struct {
	maxBody int
	mirrors []resource.Mirror
	filters map[string]any
	limits  []resource.RateLimit // of the virtual host
}

func (j *job) routeConfig(m *routev3.RouteConfiguration, p *place) *resource.RouteConfig {
	rc := &resource.RouteConfig{
		Name: j.intern(m.GetName()), HeaderEdits: j.headerEdits(m, p),
		MostSpecificLast: m.GetMostSpecificHeaderMutationsWins(),
		VHDS:             m.GetVhds() != nil,
		ValidateClusters: m.GetValidateClusters().GetValue(),
		MaxDirectBody:    defaultDirectBody,
		IgnorePortInHost: m.GetIgnorePortInHostMatching(),
	}
	for i, name := range m.GetInternalOnlyHeaders() {
		rc.InternalOnly = append(rc.InternalOnly, j.editable(name, p.item("internal_only_headers", i)))
	}
	if v := m.GetMaxDirectResponseBodySizeBytes(); v != nil {
		rc.MaxDirectBody = j.within(v.GetValue(), 0, maxDirectBody, p.field("max_direct_response_body_size_bytes"))
	}
	if rc.VHDS {
		src := j.source(m.GetVhds().GetConfigSource(), p.field("vhds").field("config_source"))
		j.need(VirtualHost, "", src) // all of them: their names begin with ours
	}
	scope := &routeScope{
		maxBody: rc.MaxDirectBody,
		mirrors: j.mirrors(m.GetRequestMirrorPolicies(), p),
		filters: j.perFilter(m.GetTypedPerFilterConfig(), nil, p),
	}
	names, domains := map[string]bool{}, map[string]bool{}
	for i, v := range m.GetVirtualHosts() {
		at := p.item("virtual_hosts", i)
		vh := j.virtualHost(v, scope, at)
		if names[vh.Name] {
			j.fail(at.field("name"), "%q is used twice", vh.Name)
		}
		names[vh.Name] = true
		for n, d := range vh.Domains {
			if domains[d] {
				j.fail(at.item("domains", n), "%q is listed twice in the route configuration", clip(d, 200))
			}
			domains[d] = true
		}
		rc.VirtualHosts = append(rc.VirtualHosts, vh)
	}
	return rc
}

func (j *job) virtualHost(m *routev3.VirtualHost, scope *routeScope, p *place) *resource.VirtualHost {
	vh := &resource.VirtualHost{
		Name: j.intern(m.GetName()), HeaderEdits: j.headerEdits(m, p),
		RequireTLS:           resource.RequireTLS(m.GetRequireTls()),
		Retry:                j.retry(m.GetRetryPolicy(), p.field("retry_policy")),
		Mirrors:              j.mirrors(m.GetRequestMirrorPolicies(), p),
		RequestAttemptCount:  m.GetIncludeRequestAttemptCount(),
		ResponseAttemptCount: m.GetIncludeAttemptCountInResponse(),
		Metadata:             j.metadata(m.GetMetadata()),
	}
	if h := hedge(m.GetHedgePolicy()); h != nil {
		vh.Hedge = *h
	}
	if vh.Mirrors == nil {
		vh.Mirrors = scope.mirrors
	}
	//nolint:staticcheck // the older name of request_body_buffer_limit
	vh.RetryBufferLimit = j.replay(uint64(m.GetPerRequestBufferLimitBytes().GetValue()), m.GetRequestBodyBufferLimit().GetValue(), p)
	if len(m.GetDomains()) == 0 {
		j.fail(p.field("domains"), "is empty")
	}
	for i, d := range m.GetDomains() {
		vh.Domains = append(vh.Domains, j.domain(d, p.item("domains", i)))
	}
	inner := &routeScope{maxBody: scope.maxBody, filters: j.perFilter(m.GetTypedPerFilterConfig(), scope.filters, p)}
	inner.limits = j.rateLimits(m.GetRateLimits(), false, p)
	if n := len(m.GetRoutes()); n > 0 {
		vh.Routes = make([]*resource.Route, 0, n)
	}
	for i, r := range m.GetRoutes() {
		vh.Routes = append(vh.Routes, j.route(r, inner, p.item("routes", i)))
	}
	return vh
}

// domain checks one of "host", "*.suffix", "prefix.*" and "*", perhaps with a
// port.
func (j *job) domain(d string, p *place) string {
	d = lower(d)
	stars := strings.Count(d, "*")
	switch {
	case d == "":
		j.fail(p, "is empty")
	case stars > 1 || stars == 1 && d[0] != '*' && d[len(d)-1] != '*':
		j.fail(p, "%q: one * is allowed, at the start or at the end", clip(d, 200))
	case strings.ContainsAny(d, " \t\r\n/?#@\x00") && d != "*":
		j.fail(p, "%q is no host", clip(d, 200))
	}
	return j.intern(d)
}

// replay is the limit of the buffer that retries replay from.
func (j *job) replay(old, limit uint64, p *place) int {
	if limit == 0 {
		limit = old
	}
	j.only(limit > maxReplayBufferLen, p.field("request_body_buffer_limit"), "must be at most 16777216")
	return int(min(limit, maxReplayBufferLen))
}

// perFilter reads typed_per_filter_config over what outer levels say.
func (j *job) perFilter(m map[string]*anypb.Any, outer map[string]any, p *place) map[string]any {
	if len(m) == 0 {
		return outer
	}
	out := make(map[string]any, len(m)+len(outer))
	for k, v := range outer {
		out[k] = v
	}
	for name, a := range m {
		at := p.entry("typed_per_filter_config", name)
		optional := false
		if a.GetTypeUrl() == filterConfigURL {
			var f routev3.FilterConfig
			if !j.unpack(a, &f, at) {
				continue
			}
			j.only(f.GetDisabled(), at.field("disabled"), notSupported)
			a, optional = f.GetConfig(), f.GetIsOptional()
			at = at.field("config")
		}
		url := a.GetTypeUrl()
		if inner, _, ok := typedStruct(a); ok {
			url = inner
		}
		if s := j.filters.Lookup(url); s != nil && !s.PerRoute {
			j.fail(at, "the filter %q has no settings by route: %s", s.Name, notSupported)
			continue
		}
		if cfg, ok := j.filterConfig(a, optional, true, at); ok {
			out[j.intern(name)] = cfg
		}
	}
	return out
}

func (j *job) route(m *routev3.Route, scope *routeScope, p *place) *resource.Route {
	r := &resource.Route{
		Name: j.intern(m.GetName()), HeaderEdits: j.headerEdits(m, p),
		Match:        j.routeMatch(m.GetMatch(), p.field("match")),
		Decorator:    m.GetDecorator().GetOperation(),
		StatPrefix:   m.GetStatPrefix(),
		Metadata:     j.metadata(m.GetMetadata()),
		FilterConfig: j.perFilter(m.GetTypedPerFilterConfig(), scope.filters, p),
		Tracing:      j.routeTracing(m.GetTracing(), p.field("tracing")),
	}
	//nolint:staticcheck // the older name of request_body_buffer_limit
	r.RetryBuffer = j.replay(uint64(m.GetPerRequestBufferLimitBytes().GetValue()), m.GetRequestBodyBufferLimit().GetValue(), p)
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		r.Action = j.routeAction(a.Route, p.field("route"))
		r.RateLimits = j.rateLimits(a.Route.GetRateLimits(), false, p.field("route"))
		r.HostRateLimits, r.IncludeHostRateLimits = scope.limits, a.Route.GetIncludeVhRateLimits().GetValue() //nolint:staticcheck // deprecated and still in use
		if own := j.own(m.GetMetadata(), p.field("metadata").entry("filter_metadata", ownMetadata)); own != nil {
			r.Action.Fallback = j.fallback(own.Fallback, "", p.field("metadata").field("fallback"))
		}
	case *routev3.Route_Redirect:
		r.Redirect = j.redirect(a.Redirect, m.GetMatch(), p.field("redirect"))
	case *routev3.Route_DirectResponse:
		r.Direct = j.direct(a.DirectResponse, scope.maxBody, p.field("direct_response"))
	default:
		j.fail(p, "has none of route, redirect and direct_response")
	}
	return r
}

var redirectCodes = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY:  301,
	routev3.RedirectAction_FOUND:              302,
	routev3.RedirectAction_SEE_OTHER:          303,
	routev3.RedirectAction_TEMPORARY_REDIRECT: 307,
	routev3.RedirectAction_PERMANENT_REDIRECT: 308,
}

func (j *job) redirect(m *routev3.RedirectAction, match *routev3.RouteMatch, p *place) *resource.Redirect {
	r := &resource.Redirect{
		Status: redirectCodes[m.GetResponseCode()], Host: m.GetHostRedirect(), Port: m.GetPortRedirect(), StripQuery: m.GetStripQuery(),
	}
	j.only(r.Port > 65535, p.field("port_redirect"), "is no port")
	j.only(strings.ContainsAny(r.Host, "/?# \r\n\t\x00"), p.field("host_redirect"), "is no host")
	switch v := m.GetSchemeRewriteSpecifier().(type) {
	case *routev3.RedirectAction_HttpsRedirect:
		r.HTTPS = v.HttpsRedirect
	case *routev3.RedirectAction_SchemeRedirect:
		r.Scheme = lower(v.SchemeRedirect)
		j.only(r.Scheme != "http" && r.Scheme != "https", p.field("scheme_redirect"), "must be http or https")
	}
	switch v := m.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PathRedirect:
		r.Path = v.PathRedirect
		j.only(!validTarget(r.Path) || strings.Contains(r.Path, "#"), p.field("path_redirect"), "is no path")
		j.only(r.StripQuery && strings.Contains(r.Path, "?"), p.field("path_redirect"), "has a query, which strip_query would remove")
	case *routev3.RedirectAction_PrefixRewrite:
		r.PrefixRewrite, r.HasPrefix = v.PrefixRewrite, true
		j.only(!validTarget(r.PrefixRewrite), p.field("prefix_rewrite"), "is no path")
		j.only(match.GetSafeRegex() != nil, p.field("prefix_rewrite"), "needs a match by prefix or path")
	case *routev3.RedirectAction_RegexRewrite:
		r.RegexRewrite = j.rewrite(v.RegexRewrite, p.field("regex_rewrite"))
	}
	return r
}

// validTarget reports whether s can be part of a request target.
func validTarget(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func (j *job) direct(m *routev3.DirectResponseAction, maxBody int, p *place) *resource.DirectResponse {
	d := &resource.DirectResponse{Status: int(m.GetStatus()), Body: j.data(m.GetBody(), p.field("body"))}
	j.only(d.Status < 200 || d.Status > 599, p.field("status"), "must be between 200 and 599")
	if len(d.Body) > maxBody {
		j.fail(p.field("body"), "has %d bytes, at most %d are accepted", len(d.Body), maxBody)
	}
	if len(d.Body) > 0 {
		d.ContentType = "text/plain"
	}
	return d
}

func (j *job) scopedRoute(m *routev3.ScopedRouteConfiguration, p *place) *resource.ScopedRoute {
	s := &resource.ScopedRoute{Name: j.intern(m.GetName()), RouteConfigName: j.intern(m.GetRouteConfigurationName())}
	j.only(m.GetOnDemand(), p.field("on_demand"), notSupported)
	for i, f := range m.GetKey().GetFragments() {
		k, ok := f.GetType().(*routev3.ScopedRouteConfiguration_Key_Fragment_StringKey)
		if !ok {
			j.fail(p.field("key").item("fragments", i), "has no string_key")
			continue
		}
		s.Key = append(s.Key, k.StringKey)
	}
	inline := m.GetRouteConfiguration()
	switch {
	case inline != nil && s.RouteConfigName != "":
		j.fail(p.field("route_configuration"), "must not be given together with route_configuration_name")
	case inline != nil:
		s.Inline = j.routeConfig(inline, p.field("route_configuration"))
	case s.RouteConfigName == "":
		j.fail(p.field("route_configuration_name"), "is empty")
	}
	return s
}
