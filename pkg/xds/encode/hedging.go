// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// hedged makes two routes of one where the parent's policy hedges: a HedgePolicy knows
// no methods, so the first takes those that are hedged, and the second the others. method
// is what the route matches by itself; empty: any. gRPC clients know no hedging.
func (t *routeTable) hedged(route *routev3.Route, rule *mesh.HTTPRule, method, parent string) []*routev3.Route {
	spec := t.spec(parent)
	h, plain := spec.Hedging, []*routev3.Route{route}
	if h == nil || t.flavor == GRPC || !rule.Hedges() || route.GetRoute().GetRetryPolicy() == nil {
		return plain
	}
	methods := h.HedgedMethods()
	if method != "" && !slices.Contains(methods, method) {
		return plain
	}
	first := proto.CloneOf(route)
	a := first.GetRoute()
	a.HedgePolicy = &routev3.HedgePolicy{HedgeOnPerTryTimeout: true}
	a.RetryPolicy.PerTryTimeout = seconds(h.After(spec.Retries).Std())
	if h.Attempts != nil && (rule.Retry == nil || rule.Retry.Attempts == nil) {
		a.RetryPolicy.NumRetries = u32(*h.Attempts)
	}
	if method != "" {
		return []*routev3.Route{first}
	}
	first.Match.Headers = append(first.Match.Headers, header(":method", oneOf(methods)))
	return append([]*routev3.Route{first}, route)
}

// oneOf matches any of some methods, which are letters only.
func oneOf(methods []string) *matcherv3.StringMatcher {
	if len(methods) == 1 {
		return exact(methods[0])
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(strings.Join(methods, "|"))}}
}
