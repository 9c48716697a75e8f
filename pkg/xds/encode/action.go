// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	defaultTimeout = 15 * time.Second
	defaultBackoff = 25 * time.Millisecond
	// unprocessed are the failures after which a request surely was not
	// processed: the only ones that are tried again unless a user asks for more.
	unprocessed   = "connect-failure,refused-stream,reset-before-request"
	previousHosts = "envoy.retry_host_predicates.previous_hosts"
	hostAttempts  = 3 // picks of an endpoint that was not tried yet
)

// route compiles one match of a rule.
func (t *routeTable) route(rule *mesh.HTTPRule, m *mesh.HTTPMatch, match *routev3.RouteMatch, parent string) (*routev3.Route, error) {
	complete(match, m)
	out := &routev3.Route{Match: match}
	for _, f := range rule.Filters {
		if h := f.RequestHeaderModifier; h != nil {
			out.RequestHeadersToAdd, out.RequestHeadersToRemove = headerOptions(h), h.Remove
		}
		if h := f.ResponseHeaderModifier; h != nil {
			out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = headerOptions(h), h.Remove
		}
		if f.RequestRedirect != nil {
			out.Action = &routev3.Route_Redirect{Redirect: redirect(f.RequestRedirect, m.Path)}
		}
	}
	if out.Action != nil {
		return out, nil
	}
	action, err := t.forward(rule, m, parent)
	switch {
	case err != nil:
		return nil, err
	case t.flavor == GRPC && labelled(rule), // whose clients would send to any instance
		t.index.undivided(rule) != nil: // so would all
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 503}}
	case action == nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 500, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "no backend of the route takes traffic\n"}},
		}}
	default:
		out.Action = &routev3.Route_Route{Route: action}
	}
	return out, t.session(out, rule, parent)
}

// forward makes the action of a rule with backends; nil if all weights are 0.
func (t *routeTable) forward(rule *mesh.HTTPRule, m *mesh.HTTPMatch, parent string) (*routev3.RouteAction, error) {
	policy := t.spec(parent)
	a := &routev3.RouteAction{}
	t.timeouts(a, rule, policy.Timeouts)
	if policy.Timeouts != nil && policy.Timeouts.Idle != nil {
		a.IdleTimeout = seconds(policy.Timeouts.Idle.Std())
	}
	if !split(a, rule.BackendRefs) {
		return nil, nil
	}
	var err error
	if a.RetryPolicy, err = retryPolicy(rule.Retry, policy.Retries); err != nil {
		return nil, err
	}
	if rule.Timeouts != nil && rule.Timeouts.BackendRequest != nil && *rule.Timeouts.BackendRequest > 0 {
		if a.RetryPolicy == nil {
			a.RetryPolicy = &routev3.RetryPolicy{NumRetries: u32(0)}
		}
		a.RetryPolicy.PerTryTimeout = seconds(rule.Timeouts.BackendRequest.Std())
	}
	for _, f := range rule.Filters {
		if f.URLRewrite != nil {
			rewrite(a, f.URLRewrite, m.Path)
		}
		if f.RequestMirror != nil {
			a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, mirror(f.RequestMirror))
		}
	}
	a.HashPolicy = t.hashPolicy(parent, rule.BackendRefs)
	return a, nil
}

// fallthroughTo has the routes of a service where no other matches.
func (t *routeTable) fallthroughTo(service string) []*routev3.Route {
	rule := &mesh.HTTPRule{BackendRefs: []mesh.HTTPBackendRef{{Name: service}}}
	a, err := t.forward(rule, &mesh.HTTPMatch{}, service)
	if err != nil { // the policy's retries: the defaults take their place
		if p := t.index.Policy(service); p != nil {
			t.problems = append(t.problems, Problem{Object: p.Key(), Reason: err.Error()})
		}
		a = &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: OutboundCluster(service)}}
		t.timeouts(a, nil, nil)
	}
	route := &routev3.Route{
		Name:   "default",
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: a},
	}
	if err := t.session(route, rule, service); err != nil {
		if p := t.index.Policy(service); p != nil {
			t.problems = append(t.problems, Problem{Object: p.Key(), Reason: "spec.sessionPersistence: " + err.Error()})
		}
	}
	return t.hedged(route, rule, "", service)
}

func (t *routeTable) spec(service string) mesh.TrafficPolicySpec {
	if p := t.index.Policy(service); p != nil {
		return p.Spec
	}
	return mesh.TrafficPolicySpec{}
}

// timeouts sets the time that requests have. Calls of gRPC name theirs in
// grpc-timeout: what a user says limits that; where nobody says anything, a call
// may take as long as its caller waits, so that no stream is cut by a default.
func (t *routeTable) timeouts(a *routev3.RouteAction, rule *mesh.HTTPRule, policy *mesh.Timeouts) {
	most := time.Duration(0)
	switch {
	case rule.Timeouts != nil && rule.Timeouts.Request != nil:
		most = rule.Timeouts.Request.Std()
	case policy != nil && policy.Request != nil:
		most = policy.Request.Std()
	case rule.Streams:
	default:
		a.Timeout = seconds(defaultTimeout)
	}
	if a.Timeout == nil {
		a.Timeout = seconds(most)
	}
	if t.flavor != GRPC { // whose clients keep their own time
		callTimeout(a, most)
	}
}

// callTimeout makes grpc-timeout of a call take the place of the timeout, up to a
// limit; 0: none. The field that came after this one would need a second route for
// each.
//
//lint:ignore SA1019 see above
func callTimeout(a *routev3.RouteAction, most time.Duration) { a.MaxGrpcTimeout = seconds(most) }

// split sets the clusters, and reports false where no backend takes traffic.
func split(a *routev3.RouteAction, refs []mesh.HTTPBackendRef) bool {
	var live []*mesh.HTTPBackendRef
	for i := range refs {
		if refs[i].Share() > 0 {
			live = append(live, &refs[i])
		}
	}
	switch {
	case len(live) == 0:
		return false
	case len(live) == 1 && len(live[0].Filters) == 0:
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: OutboundCluster(live[0].Name)}
		a.MetadataMatch = labelMatch(live[0].Labels)
		return true
	}
	w := &routev3.WeightedCluster{}
	for _, b := range live {
		c := &routev3.WeightedCluster_ClusterWeight{Name: OutboundCluster(b.Name), Weight: u32(b.Share()), MetadataMatch: labelMatch(b.Labels)}
		for _, f := range b.Filters {
			if h := f.RequestHeaderModifier; h != nil {
				c.RequestHeadersToAdd, c.RequestHeadersToRemove = headerOptions(h), h.Remove
			}
			if h := f.ResponseHeaderModifier; h != nil {
				c.ResponseHeadersToAdd, c.ResponseHeadersToRemove = headerOptions(h), h.Remove
			}
		}
		w.Clusters = append(w.Clusters, c)
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
	return true
}

// retryPolicy is what a route says, else what the policy says, else what
// surely was not processed. nil is no retry at all.
func retryPolicy(rule *mesh.HTTPRetry, policy *mesh.Retries) (*routev3.RetryPolicy, error) {
	attempts, on, backoff := uint32(1), []string{unprocessed}, defaultBackoff
	var codes []uint16
	p := &routev3.RetryPolicy{}
	switch {
	case rule != nil:
		attempts, codes = or(rule.Attempts, attempts), rule.Codes
		on = append(on, rule.On...)
		backoff = or(rule.Backoff, mesh.Duration(backoff)).Std()
	case policy != nil:
		attempts, codes = or(policy.Attempts, attempts), policy.Codes
		backoff = or(policy.Backoff, mesh.Duration(backoff)).Std()
		for _, c := range policy.On {
			if !slices.Contains(strings.Split(unprocessed, ","), c) {
				on = append(on, c)
			}
		}
		if policy.PerTryTimeout != nil && *policy.PerTryTimeout > 0 {
			p.PerTryTimeout = seconds(policy.PerTryTimeout.Std())
		}
	}
	if attempts == 0 {
		return nil, nil
	}
	if len(codes) > 0 {
		on = append(on, "retriable-status-codes")
		for _, c := range slices.Sorted(slices.Values(codes)) {
			p.RetriableStatusCodes = append(p.RetriableStatusCodes, uint32(c))
		}
	}
	predicate, err := pack(&previoushostsv3.PreviousHostsPredicate{})
	if err != nil {
		return nil, err
	}
	if backoff <= 0 {
		return nil, fmt.Errorf("retry.backoff: want more than 0s")
	}
	p.RetryOn = strings.Join(on, ",")
	p.NumRetries = u32(attempts)
	p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: seconds(backoff), MaxInterval: seconds(10 * backoff)}
	p.HostSelectionRetryMaxAttempts = hostAttempts
	p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
		Name: previousHosts, ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: predicate},
	}}
	return p, nil
}

// mirror converts percentages and fractions to parts of a million.
func mirror(m *mesh.RequestMirror) *routev3.RouteAction_RequestMirrorPolicy {
	share := uint64(1e6)
	switch {
	case m.Percent != nil:
		share = uint64(*m.Percent) * 1e4
	case m.Fraction != nil:
		whole := uint64(m.Fraction.Denominator)
		if whole == 0 {
			whole = 100
		}
		share = uint64(m.Fraction.Numerator) * 1e6 / whole
	}
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster: OutboundCluster(m.BackendRef.Name),
		RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
			Numerator: uint32(min(share, 1e6)), Denominator: typev3.FractionalPercent_MILLION,
		}},
	}
}

// hashPolicy is that of the first service involved that balances by hash.
func (t *routeTable) hashPolicy(parent string, refs []mesh.HTTPBackendRef) []*routev3.RouteAction_HashPolicy {
	names := []string{}
	for _, b := range refs {
		names = append(names, b.Name)
	}
	for _, name := range append(names, parent) {
		lb := t.spec(name).LoadBalancer
		if lb == nil || lb.HashOn == nil {
			continue
		}
		return []*routev3.RouteAction_HashPolicy{hashOn(lb.HashOn)}
	}
	return nil
}

func hashOn(h *mesh.HashOn) *routev3.RouteAction_HashPolicy {
	switch {
	case h.Header != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: strings.ToLower(h.Header)},
		}}
	case h.Cookie != nil:
		c := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name, Path: h.Cookie.Path}
		if h.Cookie.TTL != nil {
			c.Ttl = seconds(h.Cookie.TTL.Std())
		}
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}}
	case h.Query != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query},
		}}
	}
	return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
		ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
	}}
}
