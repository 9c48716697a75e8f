// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// pathMatches compiles a path. A prefix takes whole segments: /v2 takes /v2
// and /v2/x, not /v20. gRPC has no such match; there it is two.
func pathMatches(p *mesh.PathMatch, f Flavor) []*routev3.RouteMatch {
	text := p.Text()
	switch p.Kind() {
	case mesh.MatchExact:
		return []*routev3.RouteMatch{{PathSpecifier: &routev3.RouteMatch_Path{Path: text}}}
	case mesh.MatchRegularExpression:
		return []*routev3.RouteMatch{{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: regex(text)}}}
	}
	segment := strings.TrimRight(text, "/")
	switch {
	case segment == "":
		return []*routev3.RouteMatch{{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}}
	case f == GRPC:
		return []*routev3.RouteMatch{
			{PathSpecifier: &routev3.RouteMatch_Path{Path: segment}},
			{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: segment + "/"}},
		}
	}
	return []*routev3.RouteMatch{{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: segment}}}
}

// complete adds what a match says beside the path.
func complete(to *routev3.RouteMatch, m *mesh.HTTPMatch) {
	if m.Method != "" {
		to.Headers = append(to.Headers, header(":method", exact(m.Method)))
	}
	for _, h := range m.Headers {
		to.Headers = append(to.Headers, header(strings.ToLower(h.Name), text(h)))
	}
	for _, q := range m.QueryParams {
		to.QueryParameters = append(to.QueryParameters, &routev3.QueryParameterMatcher{
			Name: q.Name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: text(q)},
		})
	}
}

func header(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

func text(v mesh.ValueMatch) *matcherv3.StringMatcher {
	if v.Kind() == mesh.MatchRegularExpression {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(v.Value)}}
	}
	return exact(v.Value)
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func regex(expr string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: expr} }
