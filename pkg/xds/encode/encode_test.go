// SPDX-License-Identifier: Apache-2.0

package encode_test

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// meshOf is the model with the objects, and an instance of each service named.
func meshOf(t testing.TB, yaml string, services ...string) *mesh.Model {
	t.Helper()
	objects, err := mesh.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	m := mesh.Empty()
	for _, o := range objects {
		m = m.Apply(mesh.Change{Put: o})
	}
	for _, s := range services {
		m = m.Apply(mesh.Change{PutInstance: &mesh.Instance{Service: s, ID: "a", Address: "10.0.0.1", Port: 80}})
	}
	return m
}

func routesOf(t testing.TB, m *mesh.Model) *routev3.RouteConfiguration {
	t.Helper()
	rc, problems := encode.Routes(encode.NewIndex(m), encode.Sidecar)
	if len(problems) > 0 {
		t.Fatalf("got problems %v", problems)
	}
	if err := encode.Validate(rc); err != nil {
		t.Fatal(err)
	}
	return rc
}

func TestNoDomainIsInTwoVirtualHosts(t *testing.T) {
	m := meshOf(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: greedy}
spec:
  parentRefs: [{kind: Service, name: orders}]
  hostnames: [orders, orders.mesh, payments, shop.example.com]
  rules: [{backendRefs: [{kind: Service, name: orders}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: second}
spec:
  parentRefs: [{kind: Service, name: payments}]
  hostnames: [shop.example.com]
  rules: [{matches: [{path: {value: /pay}}], backendRefs: [{kind: Service, name: payments}]}]
`, "orders", "orders.mesh", "payments")
	rc := routesOf(t, m)
	seen := map[string]string{}
	for _, v := range rc.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			if other, dup := seen[d]; dup {
				t.Errorf("domain %q is in %q and %q", d, other, v.GetName())
			}
			seen[d] = v.GetName()
		}
	}
	for domain, host := range map[string]string{
		"orders": "orders", "orders.mesh": "orders.mesh", "payments": "payments",
		"payments.mesh": "payments", "shop.example.com": "host|shop.example.com",
	} {
		if seen[domain] != host {
			t.Errorf("domain %q: got virtual host %q, want %q", domain, seen[domain], host)
		}
	}
	hit, ok := encode.Find(rc, request(t, "GET", "http://shop.example.com/pay/1"))
	if !ok || hit.Route != "second/0/0" {
		t.Errorf("got %+v, want the second route under the shared host name", hit)
	}
}

func request(t testing.TB, method, address string) encode.Request {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return encode.Request{Method: method, Host: u.Host, URL: u}
}

func TestTheMostSpecificRouteComesFirst(t *testing.T) {
	rules := []string{ // in the order in which they must win
		`{path: {type: Exact, value: /a/b}}`,
		`{path: {type: RegularExpression, value: "/a/[a-z]+/long"}}`,
		`{path: {type: RegularExpression, value: "/a/.*"}, method: POST}`,
		`{path: {value: /a/b/c}}`,
		`{path: {value: /a/b/}, method: PUT, headers: [{name: x, value: "1"}]}`,
		`{path: {value: /a/b}, method: PUT}`,
		`{path: {value: /a/b}, headers: [{name: x, value: "1"}, {name: y, value: "1"}]}`,
		`{path: {value: /a/b}, headers: [{name: x, value: "1"}], queryParams: [{name: q, value: "1"}]}`,
		`{path: {value: /a/b}, headers: [{name: x, value: "1"}]}`,
		`{path: {value: /a/b}, queryParams: [{name: q, value: "1"}]}`,
		`{path: {value: /a/b}}`,
		`{path: {value: /}}`,
	}
	var list []string
	for i, r := range rules {
		list = append(list, fmt.Sprintf("  - {name: r%02d, matches: [%s], backendRefs: [{kind: Service, name: s}]}\n", i, r))
	}
	var want []string
	for i := range rules {
		want = append(want, fmt.Sprintf("r/r%02d/0", i))
	}
	want = append(want, "default")
	slices.Reverse(list)
	m := meshOf(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: s}]
  rules:
`+strings.Join(list, ""), "s")
	var got []string
	for _, r := range routesOf(t, m).GetVirtualHosts()[0].GetRoutes() {
		got = append(got, r.GetName())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestReplacingAPrefixKeepsOneSlash(t *testing.T) {
	for _, c := range []struct{ prefix, with, wantPrefix, wantRegex string }{
		{"/v2", "/x", "/x", ""},
		{"/v2/", "/x/", "/x", ""},
		{"/v2", "/", "", "^/v2/*"},
		{"/v2", "", "", "^/v2/*"},
		{"/", "/x", "/x/", ""},
		{"/", "/", "/", ""},
		{"/a.b", "", "", `^/a\.b/*`},
	} {
		m := meshOf(t, fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: s}]
  rules:
  - matches: [{path: {value: %q}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: %q}}}]
    backendRefs: [{kind: Service, name: s}]
`, c.prefix, c.with), "s")
		a := routesOf(t, m).GetVirtualHosts()[0].GetRoutes()[0].GetRoute()
		if a.GetPrefixRewrite() != c.wantPrefix || a.GetRegexRewrite().GetPattern().GetRegex() != c.wantRegex {
			t.Errorf("%q by %q: got %q and %q, want %q and %q", c.prefix, c.with,
				a.GetPrefixRewrite(), a.GetRegexRewrite().GetPattern().GetRegex(), c.wantPrefix, c.wantRegex)
		}
	}
}

func TestAddressesAreIPsOrSockets(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"127.0.0.1:80", "127.0.0.1:80", ""},
		{":80", "0.0.0.0:80", ""},
		{"localhost:80", "127.0.0.1:80", ""},
		{"[::1]:80", "::1:80", ""},
		{"unix:/tmp/x", "/tmp/x", ""},
		{"unix:", "", "unix:PATH"},
		{"unix:/" + strings.Repeat("x", 200), "", "unix:PATH"},
		{"orders:80", "", "IP address"},
		{"127.0.0.1", "", "host:port"},
		{"127.0.0.1:0", "", "port"},
		{"127.0.0.1:70000", "", "port"},
		{"", "", "host:port"},
	} {
		a, err := encode.Address(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got %v, want an error about %s", c.in, err, c.err)
			}
			continue
		}
		got := a.GetPipe().GetPath()
		if s := a.GetSocketAddress(); s != nil {
			got = fmt.Sprintf("%s:%d", s.GetAddress(), s.GetPortValue())
		}
		if err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestEveryLocalityHasANameAndAWeight(t *testing.T) {
	list := []*mesh.Instance{
		{ID: "a", Address: "10.0.0.1", Port: 1, Zone: "b"},
		{ID: "b", Address: "10.0.0.2", Port: 1, Zone: "a", Weight: 7},
		{ID: "c", Address: "10.0.0.3", Port: 1, Zone: "b", Weight: 2},
	}
	a, err := encode.Assignment("s", list, nil, false, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range a.GetEndpoints() {
		got = append(got, fmt.Sprintf("%s=%d p%d", l.GetLocality().GetZone(), l.GetLoadBalancingWeight().GetValue(), l.GetPriority()))
	}
	if want := []string{"a=7 p0", "b=3 p0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	list[0].Weight = math.MaxUint32
	if _, err := encode.Assignment("s", list, nil, false, false); err == nil || !strings.Contains(err.Error(), "weights") {
		t.Errorf("got %v, want an error about weights", err)
	}
	if _, err := encode.Assignment("s", []*mesh.Instance{{ID: "a", Address: "", Port: 1}}, nil, false, false); err == nil || !strings.Contains(err.Error(), "Address") {
		t.Errorf("got %v, want an error that names the address", err)
	}
}

func TestAnAddressIsNamedOnceByItsNewestRegistration(t *testing.T) {
	a, err := encode.Assignment("s", []*mesh.Instance{
		{ID: "a", Address: "10.0.0.1", Port: 1, Revision: 5},
		{ID: "b", Address: "10.0.0.1", Port: 2, Revision: 6},
		{ID: "c", Address: "::ffff:10.0.0.1", Port: 1, Revision: 4},
		{ID: "d", Address: "10.0.0.1", Port: 2, Revision: 7, Zone: "z"},
		// What has an identity is not replaced by what has none.
		{ID: "e", Address: "10.0.0.1", Port: 3, Revision: 8, MutualTLS: true},
		{ID: "f", Address: "10.0.0.1", Port: 3, Revision: 9},
	}, nil, false, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			got = append(got, e.GetMetadata().GetFilterMetadata()[encode.MetadataNamespace].GetFields()["instance"].GetStringValue())
		}
	}
	if want := []string{"a", "e", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Who has no sidecar may know HTTP/1.1 alone, unless it has said otherwise.
func TestInstancesWithoutASidecarAreMarked(t *testing.T) {
	list := []*mesh.Instance{
		{ID: "bare", Address: "10.0.0.1", Port: 1},
		{ID: "grpc", Address: "10.0.0.2", Port: 1, Protocol: mesh.ProtocolGRPC},
		{ID: "http", Address: "10.0.0.3", Port: 1, Protocol: mesh.ProtocolHTTP},
		{ID: "http2", Address: "10.0.0.4", Port: 1, Protocol: mesh.ProtocolHTTP2},
		{ID: "mutual-tls", Address: "10.0.0.5", Port: 1, MutualTLS: true},
		{ID: "sidecar", Address: "10.0.0.6", Port: 1, Node: "s~sidecar"},
	}
	for declared, want := range map[bool][]string{false: {"bare", "http"}, true: nil} {
		a, err := encode.Assignment("s", list, nil, declared, false)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range a.GetEndpoints()[0].GetLbEndpoints() {
			about := e.GetMetadata().GetFilterMetadata()[encode.MetadataNamespace].GetFields()
			if about["http2"].GetStringValue() == "calls" {
				got = append(got, about["instance"].GetStringValue())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("service declared to speak HTTP/2 %t: got %v, want %v", declared, got, want)
		}
	}
}

func TestGRPCIsGivenPoliciesThatItHas(t *testing.T) {
	for policy, want := range map[string]clusterv3.Cluster_LbPolicy{
		"round_robin": clusterv3.Cluster_ROUND_ROBIN, "least_request": clusterv3.Cluster_ROUND_ROBIN,
		"random": clusterv3.Cluster_ROUND_ROBIN, "maglev": clusterv3.Cluster_RING_HASH, "ring_hash": clusterv3.Cluster_RING_HASH,
	} {
		p := &mesh.TrafficPolicy{Spec: mesh.TrafficPolicySpec{LoadBalancer: &mesh.LoadBalancer{Policy: policy}}}
		c, err := encode.ServiceCluster("s", p, nil, encode.GRPC)
		if err != nil || c.GetLbPolicy() != want {
			t.Errorf("%s: got %v, %v, want %v", policy, c.GetLbPolicy(), err, want)
		}
	}
}

func TestEqualModelsGiveEqualBytes(t *testing.T) {
	const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: s}, {kind: Service, name: t}]
  hostnames: [a.example.com, b.example.com, c.example.com]
  rules: [{backendRefs: [{kind: Service, name: s}, {kind: Service, name: u}]}]
`
	var first []byte
	for i := range 20 {
		rc := routesOf(t, meshOf(t, objects, "s", "t", "u", "v", "w"))
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(rc)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = body
		} else if string(body) != string(first) {
			t.Fatal("two builds of one model differ")
		}
	}
}

// FuzzRoutes: whatever objects the language accepts, what is built of them is
// valid, and no request makes Find fail.
func FuzzRoutes(f *testing.F) {
	f.Add("/v2", "PathPrefix", "x-a", "1", "/x", uint32(5), "http://s/v2/x?q=1")
	f.Add("/r/[a-z]+", "RegularExpression", "X", "%", "/", uint32(0), "http://s:80/%2e%2e/")
	f.Add("/", "Exact", "x", "y", "", uint32(1), "http://s")
	f.Fuzz(func(t *testing.T, path, kind, header, value, replace string, weight uint32, address string) {
		yaml := fmt.Sprintf(`{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {
"parentRefs": [{"kind": "Service", "name": "s"}], "rules": [{"matches": [{"path": {"type": %q, "value": %q}, "headers": [{"name": %q, "value": %q}]}],
"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": %q, "value": %q}]}},
{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": %q}}}],
"backendRefs": [{"kind": "Service", "name": "s", "weight": %d}, {"kind": "Service", "name": "t"}]}]}}`, kind, path, header, value, header, value, replace, weight)
		o, err := mesh.ParseOne([]byte(yaml))
		if err != nil {
			t.Skip()
		}
		rc, problems := encode.Routes(encode.NewIndex(mesh.Empty().Apply(mesh.Change{Put: o})), encode.Sidecar)
		if err := encode.Validate(rc); err != nil {
			t.Errorf("%v (problems %v)", err, problems)
		}
		if u, err := url.Parse(address); err == nil {
			encode.Find(rc, encode.Request{Method: "GET", Host: u.Host, URL: u})
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "unix:/x", "[::1%eth0]:1", ":0", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := encode.Address(s)
		if (a == nil) == (err == nil) {
			t.Fatalf("got %v and %v", a, err)
		}
		if err == nil && encode.Validate(a) != nil {
			t.Fatalf("%q: got an address that is not valid: %v", s, encode.Validate(a))
		}
	})
}
