// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func (j *job) routeMatch(m *routev3.RouteMatch, p *place) resource.RouteMatch {
	out := resource.RouteMatch{
		CaseFold: !boolOr(m.GetCaseSensitive(), true),
		Headers:  j.headerMatches(m.GetHeaders(), p, "headers"),
		GRPCOnly: m.GetGrpc() != nil,
	}
	if m.GetRuntimeFraction() != nil {
		f := j.runtimeFraction(m.GetRuntimeFraction(), p.field("runtime_fraction"))
		out.Fraction = &f
	}
	switch v := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		out.Kind, out.Path = resource.PathPrefix, v.Prefix
	case *routev3.RouteMatch_Path:
		out.Kind, out.Path = resource.PathExact, v.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.Kind, out.Path = resource.PathSeparatedPrefix, v.PathSeparatedPrefix
		if v.PathSeparatedPrefix == "/" || !strings.HasPrefix(v.PathSeparatedPrefix, "/") || strings.HasSuffix(v.PathSeparatedPrefix, "/") {
			j.fail(p.field("path_separated_prefix"), "%q must start with / and not end with it", clip(v.PathSeparatedPrefix, 200))
		}
	case *routev3.RouteMatch_SafeRegex:
		out.Kind, out.Regex = resource.PathRegex, j.regex(v.SafeRegex, p.field("safe_regex"))
		if out.CaseFold {
			j.fail(p.field("case_sensitive"), "has no effect on safe_regex; write (?i) into it")
		}
	case *routev3.RouteMatch_ConnectMatcher_:
		out.Kind = resource.PathConnect
	default:
		j.fail(p, "has no path match")
	}
	if strings.ContainsAny(out.Path, "?#") {
		j.fail(p, "the path %q has a query or fragment; only the path is matched", clip(out.Path, 200))
	}
	if out.CaseFold {
		out.Path = lower(out.Path)
	}
	for i, q := range m.GetQueryParameters() {
		out.Query = append(out.Query, j.queryMatch(q, p.item("query_parameters", i)))
	}
	return out
}

func (j *job) queryMatch(m *routev3.QueryParameterMatcher, p *place) resource.QueryMatch {
	q := resource.QueryMatch{Name: m.GetName(), Present: true}
	switch v := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_StringMatch:
		s := j.stringMatch(v.StringMatch, p.field("string_match"))
		q.String, q.Present = &s, false
	case *routev3.QueryParameterMatcher_PresentMatch:
		q.Present = v.PresentMatch
	}
	return q
}
