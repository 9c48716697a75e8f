// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

var anywhere = netip.MustParseAddrPort("10.0.0.1:80")

// connect starts a simulated sidecar; the function answered ends it.
func connect(t *testing.T, p *plane, service string, i int) (*simulated, func()) {
	t.Helper()
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := simulate(ctx, cc, sidecarNode(service, i))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.run() }() // it ends with the context
	end := sync.OnceFunc(func() { cancel(); <-done; _ = cc.Close() })
	t.Cleanup(end)
	select {
	case <-s.ready:
	case <-time.After(patience):
		t.Fatalf("the sidecar has no complete configuration: %+v", p.BuildStatus())
	}
	return s, end
}

func TestACrowdOfChangesIsBuiltFewTimes(t *testing.T) {
	s := newState()
	p := startPlane(t, s, controlplane.Config{MinHold: 20 * time.Millisecond})
	eventually(t, "the first build is done", func() bool { return p.Ready() == nil })
	before := p.BuildStatus().Builds
	const crowd = 300
	for i := range crowd {
		s.apply(instance("orders", fmt.Sprint(i), anywhere))
	}
	revision := s.Model().Revision
	eventually(t, "the last change is published", func() bool { return p.BuildStatus().Revision == revision })
	if got := p.BuildStatus().Builds - before; got > crowd/10 {
		t.Errorf("got %d builds for %d changes, want few", got, crowd)
	}
}

func TestEndlessChangesDoNotHoldBackAChangeForLong(t *testing.T) {
	s := newState()
	p := startPlane(t, s, controlplane.Config{MinHold: 50 * time.Millisecond, MaxHold: 50 * time.Millisecond, MaxDelay: 150 * time.Millisecond})
	eventually(t, "the first build is done", func() bool { return p.Ready() == nil })
	before := p.BuildStatus().Builds
	i := 0
	eventually(t, "there are builds between the changes", func() bool {
		i++
		s.apply(instance("orders", fmt.Sprint(i%10), netip.AddrPortFrom(anywhere.Addr(), uint16(i%60000+1))))
		return p.BuildStatus().Builds >= before+3
	})
}

const badRetry = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad}
spec:
  parentRefs: [{kind: Service, name: orders}]
  rules:
  - backendRefs: [{kind: Service, name: orders}]
    retry: {backoff: 0s}
`

func TestAnObjectThatCannotBeBuiltIsLeftOutAndShown(t *testing.T) {
	type told struct {
		problem controlplane.BuildProblem
		cleared bool
	}
	heard := make(chan told, 10)
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	p := startPlane(t, s, controlplane.Config{OnProblem: func(b controlplane.BuildProblem, cleared bool) { heard <- told{b, cleared} }})
	s.put(t, strings.NewReplacer("name: bad", "name: good", "0s", "1s").Replace(badRetry))
	s.put(t, badRetry)
	x := <-heard
	if x.cleared || x.problem.Object != "HTTPRoute/bad" || !strings.Contains(x.problem.Reason, "retry.backoff") {
		t.Errorf("got %+v, want the object and its field", x)
	}
	if got := p.BuildStatus().Problems; len(got) != 1 || got[0].Since.IsZero() {
		t.Errorf("got %+v, want one problem", got)
	}
	explained := controlplane.Explain(s.Model(), controlplane.GroupOfService("web"), query(t, "GET", "http://orders/x"))
	if !explained.Routed || !slices.ContainsFunc(explained.Steps, func(st controlplane.Step) bool { return st.Object == "HTTPRoute/good" }) {
		t.Errorf("got %+v, want the good route in force", explained)
	}
	s.apply(mesh.Change{Delete: mesh.Key{Kind: mesh.KindHTTPRoute, Name: "bad"}})
	if x := <-heard; !x.cleared {
		t.Errorf("got %+v, want that it is over", x)
	}
}

func TestASidecarThatSaysNonsenseKeepsItsOwnTroubles(t *testing.T) {
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	p := startPlane(t, s, controlplane.Config{})
	cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node := sidecarNode("orders", 1)
	node.Metadata.Fields["inbound"].Kind = node.Metadata.Fields["service"].Kind // no address
	if _, err := simulate(ctx, cc, node); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the problem is shown", func() bool { return len(p.BuildStatus().Problems) == 1 })
	if got := p.BuildStatus().Problems[0]; got.Resource != "inbound" || !strings.Contains(got.Reason, "host:port") {
		t.Errorf("got %+v, want the listener and why", got)
	}
	connect(t, p, "orders", 2) // another one is well
}

func TestATapEndsByItself(t *testing.T) {
	s := newState()
	p := startPlane(t, s, controlplane.Config{})
	o, err := mesh.ParseOne([]byte(`{apiVersion: outrigger.io/v1, kind: Tap, metadata: {name: t}, spec: {targetRef: {kind: Service, name: orders}, expires: 1s}}`))
	if err != nil {
		t.Fatal(err)
	}
	o.Head().Metadata.CreatedAt = time.Now()
	s.apply(instance("orders", "a", anywhere), mesh.Change{Put: o})
	connect(t, p, "orders", 1)
	version := func() string {
		for _, g := range p.Server().Groups() {
			if g.Type == server.TypeListener && strings.HasPrefix(g.Group, controlplane.KindSidecar) {
				return g.Version
			}
		}
		return ""
	}
	tapped := version()
	eventually(t, "the listener is without the tap", func() bool { return version() != tapped })
	if late := time.Since(o.Head().Metadata.CreatedAt) - time.Second; late < 0 {
		t.Errorf("the tap ended %v too early", -late)
	}
}

func TestAGroupWithoutClientsIsForgotten(t *testing.T) {
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	p := startPlane(t, s, controlplane.Config{GroupIdle: 10 * time.Millisecond})
	_, end := connect(t, p, "orders", 1)
	eventually(t, "the group is built", func() bool { return p.BuildStatus().Groups == 2 })
	end()
	eventually(t, "the group is forgotten", func() bool { return p.BuildStatus().Groups == 1 })
	connect(t, p, "orders", 1) // it is built again
}

func query(t *testing.T, method, address string, headers ...string) controlplane.Query {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := controlplane.Query{Method: method, URL: u, Headers: map[string][]string{}}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		q.Headers[name] = append(q.Headers[name], value)
	}
	return q
}

const explained = `
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: payments}
spec: {ports: [{port: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payments}
spec:
  parentRefs: [{kind: Service, name: payments}]
  hostnames: ["*.example.com"]
  rules:
  - matches: [{path: {value: /v2}, headers: [{name: x-beta, value: "1"}]}]
    backendRefs: [{kind: Service, name: payments-v2}]
  - matches: [{path: {value: /split}}]
    backendRefs: [{kind: Service, name: payments, weight: 3}, {kind: Service, name: payments-v2, weight: 1}]
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com, statusCode: 301}}]
  - matches: [{path: {type: RegularExpression, value: "/r/[0-9]+"}, queryParams: [{name: q, value: "1"}]}]
    backendRefs: [{kind: Service, name: payments, weight: 0}]
`

// Of two policies for one service the older is in force, and explain and the state of
// the younger say so.
func TestExplainNamesThePolicyThatLoses(t *testing.T) {
	s := newState()
	s.put(t, explained)
	s.apply(instance("payments", "a", anywhere))
	for i, name := range []string{"first", "second"} {
		s.put(t, fmt.Sprintf(`
apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: %s, createdAt: 2026-01-0%dT00:00:00Z}
spec:
  targetRef: {kind: Service, name: payments}
  circuitBreaker: {errorThresholdPercent: %d0}
`, name, i+1, i+1))
	}
	got := controlplane.Explain(s.Model(), controlplane.GroupOfService("web"), query(t, "GET", "http://payments/v1"))
	want := controlplane.Step{
		Stage: "policy", Name: "second", Object: "TrafficPolicy/second",
		Reason: "not in force, circuit and retry budget neither: TrafficPolicy/first has the same target and is older",
	}
	inForce := slices.ContainsFunc(got.Steps, func(st controlplane.Step) bool { return st.Stage == "cluster" && st.Object == "TrafficPolicy/first" })
	if !inForce || !slices.Contains(got.Steps, want) {
		t.Errorf("got %+v", got.Steps)
	}
}

func TestExplainFollowsARequest(t *testing.T) {
	s := newState()
	s.put(t, explained)
	s.apply(instance("payments", "a", anywhere), instance("payments", "b", anywhere),
		mesh.Change{PutInstance: &mesh.Instance{Service: "payments", ID: "b", Address: "10.0.0.2", Port: 80, Health: mesh.HealthDraining}})
	for _, c := range []struct {
		name, url string
		headers   []string
		outcome   string
		step      string // stage, name and reason of one step
	}{
		{"the default", "http://payments/v1", nil, "payments, the only instance", "route default taken: path prefix /, timeout 15s, up to 1 retry"},
		{"the reason of a skip", "http://payments/v2/x", nil, "payments, the only instance", `route payments/0/0 skipped: wants x-beta "1", it is absent`},
		{"a header", "http://payments:8080/v2/x", []string{"X-Beta: 1"}, "503 UH: payments-v2 has no instance", `route payments/0/0 taken: path under /v2, x-beta "1"`},
		{"whole segments", "http://payments/v20", []string{"X-Beta: 1"}, "payments, the only instance", "route payments/0/0 skipped: wants path under /v2, the path is /v20"},
		{"a split", "http://payments/split", nil, "payments, payments-v2, the only instance; 25% get 503, because payments-v2 has none", "endpoint payments-v2 no endpoints: there is no such service, its 25% get 503"},
		{"a redirect", "http://shop.example.com/old", nil, "redirect: MOVED_PERMANENTLY new.example.com", "virtual host host|*.example.com the domain *.example.com"},
		{"no weight", "http://payments/r/7?q=1", nil, "500 from the sidecar itself", "route payments/3/0 taken"},
		{"an undeclared port", "http://payments:9/", nil, `404 NR: no service and no route has the host name "payments:9"`, "listener outbound"},
		{"an unknown name", "http://nobody/", nil, `404 NR: no service and no route has the host name "nobody"`, "listener outbound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := controlplane.Explain(s.Model(), controlplane.GroupOfService("web"), query(t, "GET", c.url, c.headers...))
			var steps []string
			for _, st := range got.Steps {
				steps = append(steps, strings.TrimSpace(st.Stage+" "+st.Name+" "+st.Reason))
			}
			for _, st := range got.Endpoints {
				steps = append(steps, st.Stage+" "+st.Object+" "+st.Reason)
			}
			if got.Outcome != c.outcome || !slices.ContainsFunc(steps, func(x string) bool { return strings.Contains(x, c.step) }) {
				t.Errorf("got %q by\n%s\nwant %q by %q", got.Outcome, strings.Join(steps, "\n"), c.outcome, c.step)
			}
		})
	}
}

func TestExplainRefusesWhereMutualTLSDoes(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	policy := func(tls string) string {
		return "{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: hello}, spec: {targetRef: {kind: Service, name: hello}, tls: " + tls + "}}"
	}
	secure := &mesh.Instance{Service: "hello", ID: "s", Node: "hello~s", Address: "10.0.0.1", Port: 80, Health: mesh.HealthHealthy, MutualTLS: true}
	plain := &mesh.Instance{Service: "hello", ID: "p", Node: "hello~p", Address: "10.0.0.2", Port: 80, Health: mesh.HealthHealthy}
	static := &mesh.Instance{Service: "hello", ID: "static", Address: "10.0.0.3", Port: 80, Health: mesh.HealthHealthy}
	down := &mesh.Instance{Service: "hello", ID: "d", Node: "hello~d", Address: "10.0.0.4", Port: 80, Health: mesh.HealthUnhealthy, MutualTLS: true}
	const (
		strict     = "{mode: strict}"
		permissive = `{mode: permissive, until: "2026-12-01T00:00:00Z"}`
		ended      = `{mode: permissive, until: "2026-11-29T00:00:00Z"}`
		goes       = "hello, the only instance"
		closed     = "refused: the policy of hello is strict, and the instance has no identity"
		trust      = "start the sidecar of payments with --trust-bundle, so that it has an identity; a TrafficPolicy of hello may take both meanwhile: tls: {mode: permissive, until: …}"
		noIdentity = "refused: hello takes mutual TLS only, and payments has no identity (--trust-bundle)"
	)
	for _, c := range []struct {
		name      string
		sender    controlplane.Group
		policy    string
		instances []*mesh.Instance
		outcome   string
		hint      string
	}{
		{"neither has an identity", sender(""), "", []*mesh.Instance{plain}, goes, ""},
		{"both have one", sender("true"), "", []*mesh.Instance{secure}, goes, ""},
		{"the sender has none", sender(""), "", []*mesh.Instance{secure}, noIdentity, trust},
		{"the sender has none, and the instance is down", sender(""), "", []*mesh.Instance{down}, noIdentity, trust},
		{"the sender is not of the mesh", controlplane.GroupOfService(""), "", []*mesh.Instance{secure}, "refused: hello takes mutual TLS only, and a client that is not of the mesh has no identity", "send it by a sidecar of the mesh that has an identity (--from SERVICE explains that); "},
		{"permissive", sender(""), permissive, []*mesh.Instance{secure}, goes, ""},
		{"permissive has ended", sender(""), ended, []*mesh.Instance{secure}, noIdentity, trust},
		{"strict, the instance has none", sender("true"), strict, []*mesh.Instance{plain}, closed, "start the sidecar of hello/p with --trust-bundle"},
		{"strict, neither has one", sender(""), strict, []*mesh.Instance{plain}, closed, "start the sidecar of hello/p with --trust-bundle"},
		{"strict, no sidecar to close the port", sender(""), strict, []*mesh.Instance{static}, goes, "the policy of hello is strict, but hello/static is registered without a sidecar: nothing there asks for mutual TLS, and the request goes in the clear"},
		{"strict, the sender demands mutual TLS", sender("true"), strict, []*mesh.Instance{static}, closed, "hello/static is registered without a sidecar, and nothing there can take mutual TLS: put one beside it; "},
		{"both have one, another instance has none", sender("true"), "", []*mesh.Instance{plain, secure}, "hello, one of 2 instances, but not with 1 of them: other instances of hello have an identity, and this one has none", "start the sidecar of hello/p with --trust-bundle"},
		{"permissive, another instance has none", sender("true"), permissive, []*mesh.Instance{plain, secure}, "hello, one of 2 instances", ""},
		{"one of two refuses", sender(""), "", []*mesh.Instance{plain, secure}, "hello, one of 2 instances, but not with 1 of them: hello takes mutual TLS only, and payments has no identity (--trust-bundle)", trust},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newState()
			if c.policy != "" {
				s.put(t, policy(c.policy))
			}
			for _, in := range c.instances {
				s.apply(mesh.Change{PutInstance: in})
			}
			q := query(t, "GET", "http://hello/")
			q.At = now
			got := controlplane.Explain(s.Model(), c.sender, q)
			want := controlplane.ResultRouted
			if strings.HasPrefix(c.outcome, "refused") {
				want = controlplane.ResultRefused
			}
			if got.Outcome != c.outcome || got.Result != want || got.Routed != (want == controlplane.ResultRouted) {
				t.Errorf("got %q, %s, routed %v, by %v; want %q", got.Outcome, got.Result, got.Routed, got.Endpoints, c.outcome)
			}
			if hints := strings.Join(got.Hints, "\n"); (c.hint == "") != (hints == "") || !strings.HasPrefix(hints, c.hint) {
				t.Errorf("hints at %q, want %q", hints, c.hint)
			}
		})
	}
}

// sender is a sidecar of payments, with an identity or with none.
func sender(identity string) controlplane.Group {
	g := controlplane.GroupOfService("payments")
	g.Identity = identity
	return g
}

func TestCheckBuildsAnObjectBeforeItIsPublished(t *testing.T) {
	s := newState()
	s.put(t, explained)
	bad, err := mesh.ParseOne([]byte(badRetry))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	err = controlplane.Check(s.Model().Apply(mesh.Change{Put: bad}), bad, now)
	if err == nil || !strings.Contains(err.Error(), "HTTPRoute/bad: spec.rules[0]: retry.backoff") {
		t.Errorf("got %v, want the object, the rule and the field", err)
	}
	good := s.Model().Object(mesh.Key{Kind: mesh.KindHTTPRoute, Name: "payments"})
	m := s.Model().Apply(mesh.Change{Put: bad})
	for _, o := range []mesh.Object{good, s.Model().Object(mesh.Key{Kind: mesh.KindService, Name: "payments"})} {
		if err := controlplane.Check(m, o, now); err != nil {
			t.Errorf("%s: got %v, want no error for what another object does", o.Key(), err)
		}
	}
}

func TestMetricsTellOfClientsAndRefusals(t *testing.T) {
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	p := startPlane(t, s, controlplane.Config{})
	connect(t, p, "orders", 1)
	var out strings.Builder
	p.WriteMetrics(&out)
	for _, line := range []string{"outrigger_xds_nodes 1\n", "outrigger_xds_nacks_total 0\n", "# TYPE outrigger_xds_nodes gauge\n"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("got no %q in\n%s", line, out.String())
		}
	}
}
