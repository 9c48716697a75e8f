// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"strings"
	"testing"
)

func service(t *testing.T, name, ports string) Object {
	t.Helper()
	return object(t, `{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: `+name+`}, spec: {ports: [`+ports+`]}}`)
}

// attachedRoute is a route of a kind with the least that it needs.
func attachedRoute(t *testing.T, kind, name, parent string, second int) Object {
	t.Helper()
	hostnames := ""
	if kind == KindTLSRoute {
		hostnames = "hostnames: [x.example], "
	}
	return at(object(t, fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: %s, metadata: {name: %s},
  spec: {parentRefs: [{kind: Service, %s}], %srules: [{backendRefs: [{name: s}]}]}}`, kind, name, parent, hostnames)), second)
}

// said is what a review says, briefly.
func said(m *Model, o Object) string {
	s := Review(m, o)
	out := []string{fmt.Sprint(s.Accepted)}
	for _, c := range s.Conditions {
		out = append(out, c.Type+"="+c.Reason)
	}
	return strings.Join(out, " ")
}

// GEP-1294: of several kinds at one port only the first of GRPCRoute, HTTPRoute, TLSRoute
// and TCPRoute applies, whichever is older.
func TestOfSeveralKindsOfRoutesAtAPortOneApplies(t *testing.T) {
	http, tls, tcp := `{port: 80}, {port: 81, protocol: grpc}`, `{port: 443, protocol: tls}`, `{port: 5432, protocol: tcp}`
	for _, c := range []struct {
		name, ports string
		routes      []Object
		want        []string
	}{
		{"HTTP beside gRPC", http,
			[]Object{attachedRoute(t, KindHTTPRoute, "a", "name: s", 1), attachedRoute(t, KindGRPCRoute, "b", "name: s", 2)},
			[]string{"false Accepted=Conflicted", "true Accepted=Accepted Conflicted=Contested Conflicted=Contested"}},
		{"HTTP beside gRPC at one of two ports", http,
			[]Object{attachedRoute(t, KindHTTPRoute, "a", "name: s", 1), attachedRoute(t, KindGRPCRoute, "b", "name: s, port: 81", 2)},
			[]string{"true Accepted=Accepted Conflicted=PortTaken", "true Accepted=Accepted Conflicted=Contested"}},
		{"each at its port", http,
			[]Object{attachedRoute(t, KindHTTPRoute, "a", "name: s, port: 80", 1), attachedRoute(t, KindGRPCRoute, "b", "name: s, port: 81", 2)},
			[]string{"true Accepted=Accepted", "true Accepted=Accepted"}},
		{"TCP beside TLS", tls,
			[]Object{attachedRoute(t, KindTCPRoute, "a", "name: s", 1), attachedRoute(t, KindTLSRoute, "b", "name: s", 2)},
			[]string{"false Accepted=Conflicted", "true Accepted=Accepted Conflicted=Contested"}},
		{"two of TCP", tcp,
			[]Object{attachedRoute(t, KindTCPRoute, "a", "name: s", 1), attachedRoute(t, KindTCPRoute, "b", "name: s", 2)},
			[]string{"true Accepted=Accepted Conflicted=Contested", "false Accepted=Conflicted"}},
		{"two of TLS with one name", tls,
			[]Object{attachedRoute(t, KindTLSRoute, "a", "name: s", 1), attachedRoute(t, KindTLSRoute, "b", "name: s", 2)},
			[]string{"true Accepted=Accepted Conflicted=Contested", "true Accepted=Accepted Conflicted=HostnameTaken"}},
		{"TCP at a port of requests", http, []Object{attachedRoute(t, KindTCPRoute, "a", "name: s", 1)}, []string{"false Accepted=NoMatchingParent ResolvedRefs=UnsupportedProtocol"}},
		{"TLS at a port of TCP", tcp, []Object{attachedRoute(t, KindTLSRoute, "a", "name: s", 1)}, []string{"false Accepted=NoMatchingParent"}},
		{"HTTP at a port of TCP", tcp, []Object{attachedRoute(t, KindHTTPRoute, "a", "name: s", 1)}, []string{"false Accepted=NoMatchingParent ResolvedRefs=UnsupportedProtocol"}},
		{"TCP at a port of TLS", tls, []Object{attachedRoute(t, KindTCPRoute, "a", "name: s", 1)}, []string{"true Accepted=Accepted"}},
		{"a port that there is not", tcp, []Object{attachedRoute(t, KindTCPRoute, "a", "name: s, port: 1", 1)}, []string{"true Accepted=Accepted ResolvedRefs=PortNotFound"}},
		{"two of gRPC with one match", http,
			[]Object{attachedRoute(t, KindGRPCRoute, "a", "name: s", 1), attachedRoute(t, KindGRPCRoute, "b", "name: s", 2)},
			[]string{"true Accepted=Accepted Conflicted=Contested", "true Accepted=Accepted Conflicted=MatchShadowed"}},
	} {
		m := Empty().Apply(put(append(c.routes, service(t, "s", c.ports))...)...)
		for i, r := range c.routes {
			if got := said(m, r); got != c.want[i] {
				t.Errorf("%s: %s: %s, want %s", c.name, r.Key(), got, c.want[i])
			}
		}
	}
}

func TestARouteOfAServiceThatNobodyKnowsWaitsForIt(t *testing.T) {
	for _, kind := range precedence {
		r := attachedRoute(t, kind, "a", "name: s", 1)
		if got := said(Empty().Apply(put(r)...), r); got != "true Accepted=Accepted ResolvedRefs=BackendNotFound" {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

func TestMethodsOfGRPCAreComparedAsAWhole(t *testing.T) {
	for _, c := range []struct {
		method string
		want   PathMatch
	}{
		{`{service: a.B, method: C}`, PathMatch{MatchExact, "/a.B/C"}},
		{`{service: a.B}`, PathMatch{MatchPathPrefix, "/a.B"}},
		{`{method: C}`, PathMatch{MatchRegularExpression, "/[^/]+/C"}},
		{`{type: RegularExpression, service: "a|b"}`, PathMatch{MatchRegularExpression, "/(?:a|b)/[^/]+"}},
		{`{type: RegularExpression, service: "a|b", method: "Get.*"}`, PathMatch{MatchRegularExpression, "/(?:a|b)/(?:Get.*)"}},
	} {
		o := object(t, `{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: r},
  spec: {parentRefs: [{kind: Service, name: s}], rules: [{matches: [{method: `+c.method+`}], backendRefs: [{name: s}]}]}}`)
		if got := o.(*GRPCRoute).HTTP().Spec.Rules[0].Matches[0].Path; *got != c.want {
			t.Errorf("%s: %+v, want %+v", c.method, *got, c.want)
		}
	}
}
