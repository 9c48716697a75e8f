// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// needPeers skips unless peers are asked for. Where they are, one that does
// not start is a failure.
func needPeers(t *testing.T) {
	t.Helper()
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("runs real peers: set OUTRIGGER_PEERS=1")
	}
}

// envoy starts a real Envoy on a bootstrap; it ends with the test.
func envoy(t *testing.T, bootstrap string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../../test/peers/envoy")
	if err != nil {
		t.Fatal(err)
	}
	instance := fmt.Sprintf("controlplane-%d-%s", os.Getpid(), strings.ToLower(strings.NewReplacer("/", "-").Replace(t.Name())))
	run := func(verb ...string) (string, error) {
		c := exec.Command(script, verb...)
		c.Env = append(os.Environ(), "PEER_INSTANCE="+instance, "ENVOY_CONFIG="+file)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := run("log")
			t.Logf("envoy: %s", out)
		}
		if out, err := run("stop"); err != nil {
			t.Errorf("stop envoy: %v: %s", err, out)
		}
	})
	if out, err := run("start", "0"); err != nil {
		t.Fatalf("start envoy: %v: %s", err, out)
	}
}

// envoyBootstrap has the client protocol, GRPC or DELTA_GRPC, and where the
// outbound listener is to be.
func envoyBootstrap(xds, api, outbound string) string {
	host, port, _ := net.SplitHostPort(xds)
	return fmt.Sprintf(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
node: {id: envoy-1, cluster: edge, metadata: {outbound: %q}}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, outbound, api, host, port)
}

// app is a backend that says its name.
func app(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", name, r.URL.Path)
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// get asks by way of a proxy's outbound listener.
func get(outbound, host, path string) (int, string) {
	req, err := http.NewRequest(http.MethodGet, "http://"+outbound+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = host
	client := http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func TestARealEnvoyFollowsTheMesh(t *testing.T) {
	needPeers(t)
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			s := newState()
			s.apply(instance("orders", "a", app(t, "a")))
			p := startPlane(t, s, controlplane.Config{})
			outbound := freeporttest.Address(t)
			envoy(t, envoyBootstrap(p.addr, api, outbound))
			answers := func(what, host, path string, code int, text string) {
				t.Helper()
				began := time.Now()
				var gotCode int
				var got string
				eventually(t, what, func() bool {
					gotCode, got = get(outbound, host, path)
					return gotCode == code && strings.Contains(got, text)
				})
				t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
			}
			answers("traffic flows", "orders", "/x", 200, "a /x")
			answers("the mesh domain works", "orders.mesh", "/x", 200, "a /x")
			answers("any port of an undeclared service works", "orders:8123", "/x", 200, "a /x")
			answers("an unknown name is refused", "nobody", "/", 404, "")

			s.apply(instance("orders", "b", app(t, "b")), mesh.Change{DeleteInstance: mesh.InstanceKey{Service: "orders", ID: "a"}})
			answers("an endpoint change arrives", "orders", "/x", 200, "b /x")

			s.apply(instance("payments", "p", app(t, "p")))
			answers("a new service arrives", "payments", "/x", 200, "p /x")

			s.put(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders}
spec:
  parentRefs: [{kind: Service, name: orders}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {value: /pay}, headers: [{name: x-test, value: "1"}]}, {path: {value: /v2}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
    backendRefs: [{kind: Service, name: payments}]
    timeouts: {request: 3s, backendRequest: 1s}
    retry: {attempts: 2, codes: [503], backoff: 25ms}
  - matches: [{path: {type: RegularExpression, value: "/r[0-9]+"}, method: GET, queryParams: []}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example.com, statusCode: 307}}]
---
apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: payments}
spec:
  targetRef: {kind: Service, name: payments}
  loadBalancer: {policy: maglev, hashOn: {header: x-user}}
  limits: {connections: 10, retryBudget: 10%}
  outlierDetection: {consecutive5xx: 3}
  circuitBreaker: {errorThresholdPercent: 20}
  fallback: {status: 200, body: "[]", contentType: application/json}
---
apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: mesh}
spec:
  tracing: {sampling: 10%}
  accessLog: [{file: /dev/null, format: json, filter: {or: [{status: '>= 400'}, {duration: '> 500ms'}]}}]
`)
			answers("a route with a rewrite arrives", "orders", "/v2/y", 200, "p /new/y")
			answers("a prefix takes whole segments", "orders", "/v20/y", 200, "b /v20/y")
			answers("a regular expression redirects", "shop.example.com", "/r77", 307, "")
			eventually(t, "Envoy accepted everything", func() bool {
				n, ok := p.Server().NodeStatus("envoy-1")
				return ok && n.Synced()
			})
		})
	}
}

// What the build scripts publish is not only what we mean, but also what Envoy takes.
func TestARealEnvoyAcceptsAllThatTheBuildScriptsPublish(t *testing.T) {
	needPeers(t)
	scripts, err := filepath.Glob("testdata/build/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			s := newState()
			p := startPlane(t, s, controlplane.Config{})
			envoy(t, envoyBootstrap(p.addr, api, freeporttest.Address(t)))
			steps := 0
			for _, file := range scripts {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				_, sections, _ := strings.Cut(string(text), "\n-- ")
				for section := range strings.SplitSeq(sections, "\n-- ") {
					name, body, _ := strings.Cut(section, " --\n")
					if !strings.HasSuffix(name, ".put.yaml") {
						continue
					}
					s.put(t, body+"\n")
					steps++
					revision := s.Model().Revision
					eventually(t, "Envoy accepted "+file+" "+name, func() bool {
						n, ok := p.Server().NodeStatus("envoy-1")
						for _, x := range n.Types {
							if x.Nack != nil {
								t.Fatalf("%s %s: %s: %s", file, name, x.Type, x.Nack.Reason)
							}
						}
						return ok && p.BuildStatus().Revision >= revision && n.Synced()
					})
				}
			}
			if steps < 5 {
				t.Errorf("got %d steps, want at least 5", steps)
			}
			if problems := p.BuildStatus().Problems; len(problems) > 0 {
				t.Errorf("got problems %v", problems)
			}
		})
	}
}

func TestARefusalByARealEnvoyIsShown(t *testing.T) {
	needPeers(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0") // Envoy cannot listen there
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			s := newState()
			s.apply(instance("orders", "a", app(t, "a")))
			p := startPlane(t, s, controlplane.Config{})
			envoy(t, envoyBootstrap(p.addr, api, taken.Addr().String()))
			eventually(t, "the refusal is shown", func() bool {
				n, _ := p.Server().NodeStatus("envoy-1")
				for _, x := range n.Types {
					if x.Type == server.TypeListener && x.Nack != nil {
						return strings.Contains(x.Rejected["outbound"].Reason, taken.Addr().String())
					}
				}
				return false
			})
			n, _ := p.Server().NodeStatus("envoy-1")
			for _, x := range n.Types {
				if x.Type == server.TypeListener {
					t.Logf("shown: %s", x.Nack.Reason)
				} else if x.Nack != nil {
					t.Errorf("%s is refused too: %s", x.Type, x.Nack.Reason)
				}
			}
			if got := p.Server().Stats().Responses; got > 20 {
				t.Errorf("got %d responses to one client, want no hot loop", got)
			}
		})
	}
}

// grpcClient is a real proxyless client: a process of grpc-go's own resolver.
type grpcClient struct {
	in  io.Writer
	out *bufio.Scanner
}

func startGRPCClient(t *testing.T, xds, target string) *grpcClient {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "grpcclient")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = "testdata/grpcclient"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the client: %v: %s", err, out)
	}
	cmd := exec.Command(bin, xds, target)
	var logs bytes.Buffer
	cmd.Stderr = &logs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // its end
		if err := cmd.Wait(); err != nil {
			t.Errorf("client: %v: %s", err, logs.String())
		}
	})
	return &grpcClient{in, bufio.NewScanner(out)}
}

func (c *grpcClient) call() string {
	if _, err := fmt.Fprintln(c.in); err != nil || !c.out.Scan() {
		return "the client has ended"
	}
	return c.out.Text()
}

func healthServer(t *testing.T) netip.AddrPort {
	t.Helper()
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestARealProxylessGRPCClientFollowsTheMesh(t *testing.T) {
	needPeers(t)
	s := newState()
	a, b := healthServer(t), healthServer(t)
	s.apply(instance("greeter", "a", a), instance("other", "x", a))
	// What gRPC does not know must not keep it from what it knows.
	s.put(t, `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other}
spec:
  parentRefs: [{kind: Service, name: other}]
  rules:
  - matches: [{path: {value: /grpc.health.v1.Health}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example.com, statusCode: 307}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: greeter}
spec:
  parentRefs: [{kind: Service, name: greeter}]
  rules:
  - matches: [{path: {value: /grpc.health.v1.Health}}]
    backendRefs: [{kind: Service, name: greeter, weight: 1}, {kind: Service, name: nobody, weight: 0}]
    retry: {attempts: 2, codes: [503]}
`)
	p := startPlane(t, s, controlplane.Config{})
	for _, target := range []string{"xds:///greeter", "xds:///greeter:" + fmt.Sprint(a.Port())} {
		c := startGRPCClient(t, p.addr, target)
		if got, want := c.call(), "ok "+a.String(); got != want {
			n, _ := p.Server().NodeStatus("grpc-client-1")
			t.Fatalf("%s: got %q, want %q; %+v", target, got, want, n.Types)
		}
	}
	c := startGRPCClient(t, p.addr, "xds:///greeter")
	if got, want := c.call(), "ok "+a.String(); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	s.apply(instance("greeter", "b", b), mesh.Change{DeleteInstance: mesh.InstanceKey{Service: "greeter", ID: "a"}})
	eventually(t, "the endpoint change reaches the client", func() bool { return c.call() == "ok "+b.String() })
	n, _ := p.Server().NodeStatus("grpc-client-1")
	for _, x := range n.Types {
		if x.Nack != nil {
			t.Errorf("%s is refused: %s", x.Type, x.Nack.Reason)
		}
	}
}
