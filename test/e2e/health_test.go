// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// checkedUp are servers whose health can be changed, and a proxy that checks them.
type checkedUp struct {
	t             *testing.T
	dir           string
	admin, listen string
	proxy         interface {
		Await(limit time.Duration, what string, check func() error)
	}
	one, two *checkedServer
	hung     string
	calls    *grpchealth.Server
	callsAt  string
}

// checkedServer answers its health check as it is told.
type checkedServer struct {
	address string
	status  atomic.Int32
	served  atomic.Int32
}

func startChecked(t *testing.T) *checkedServer {
	s := &checkedServer{}
	s.status.Store(200)
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(int(s.status.Load()))
			return
		}
		s.served.Add(1)
	}))
	t.Cleanup(ts.Close)
	s.address = ts.Listener.Addr().String()
	return s
}

// startHung accepts connections and says nothing.
func startHung(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func newCheckedUp(t *testing.T) *checkedUp {
	c := &checkedUp{t: t, dir: t.TempDir(), one: startChecked(t), two: startChecked(t), hung: startHung(t), calls: grpchealth.NewServer()}
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, c.calls)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	c.callsAt = l.Addr().String()
	c.admin, c.listen = mesh.FreeAddress(t), mesh.FreeAddress(t)
	return c
}

func (c *checkedUp) bootstrap() string {
	const often = "timeout: 0.4s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 2, healthy_threshold: 2, always_log_health_check_failures: false"
	return mesh.Bootstrap{
		Admin: c.admin, Listen: c.listen,
		Routes: mesh.AllTo("web"),
		Clusters: mesh.StaticCluster("web", fmt.Sprintf(`
    common_lb_config: {healthy_panic_threshold: {value: 0}}
    health_checks: [{%s, event_log_path: %s, http_health_check: {path: /healthz}}]
`, often, filepath.Join(c.dir, "events")), c.one.address, c.two.address, c.hung) +
			mesh.StaticCluster("calls", mesh.ToHTTP2+"    health_checks: [{"+often+", grpc_health_check: {service_name: orders}}]", c.callsAt) +
			mesh.StaticCluster("bytes", "    health_checks: [{"+often+`, tcp_health_check: {send: {text: "50494e47"}, receive: [{text: "504f4e47"}]}}]`, c.hung),
	}.String()
}

// flags waits for what /clusters says of an endpoint, and returns how long that took.
func (c *checkedUp) flags(cluster, address, want string) time.Duration {
	c.t.Helper()
	begun := time.Now()
	c.proxy.Await(20*time.Second, cluster+" "+address+" is "+want, func() error {
		text, err := mesh.Get("http://" + c.admin + "/clusters")
		if err != nil {
			return err
		}
		if line := cluster + "::" + address + "::health_flags::" + want + "\n"; !strings.Contains(text, line) {
			_, rest, _ := strings.Cut(text, cluster+"::"+address+"::health_flags::")
			rest, _, _ = strings.Cut(rest, "\n")
			return fmt.Errorf("it is %q", rest)
		}
		return nil
	})
	return time.Since(begun)
}

// requests all succeed, and none goes to a server that is out.
func (c *checkedUp) requests(out *checkedServer) {
	c.t.Helper()
	was := out.served.Load()
	for range 20 {
		if a, err := mesh.Call(c.listen, "web", "/"); err != nil || a.Status != 200 {
			c.t.Fatalf("a request failed: %v %+v", err, a)
		}
	}
	if n := out.served.Load() - was; n > 0 {
		c.t.Errorf("%d requests went to an instance that fails its health check", n)
	}
}

func (c *checkedUp) run() {
	c.t.Helper()
	const timedOut = "/failed_active_hc/active_hc_timeout"
	c.flags("web", c.one.address, "healthy")
	c.flags("web", c.two.address, "healthy")
	c.flags("web", c.hung, timedOut)
	c.flags("bytes", c.hung, timedOut)
	c.flags("calls", c.callsAt, "/failed_active_hc")

	for _, status := range []int32{503, 302} {
		c.one.status.Store(status)
		if d := c.flags("web", c.one.address, "/failed_active_hc"); d > 2*time.Second {
			c.t.Errorf("with status %d it took %v to leave", status, d)
		}
		c.requests(c.one)
		c.one.status.Store(200)
		if d := c.flags("web", c.one.address, "healthy"); d > 3*time.Second {
			c.t.Errorf("it took %v to come back", d)
		}
	}
	c.calls.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	c.flags("calls", c.callsAt, "healthy")
	c.calls.SetServingStatus("orders", healthv1.HealthCheckResponse_NOT_SERVING)
	c.flags("calls", c.callsAt, "/failed_active_hc")
}

// events are what is in the log, by endpoint, without their times and our own field.
func (c *checkedUp) events() map[string][]string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "events"))
	if err != nil {
		c.t.Fatal(err)
	}
	names := map[string]string{c.one.address: "one", c.two.address: "two", c.hung: "hung"}
	out := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		at := e["host"].(map[string]any)["socket_address"].(map[string]any)
		name := names[fmt.Sprintf("%s:%v", at["address"], at["port_value"])]
		if _, ok := e["timestamp"].(string); !ok {
			c.t.Errorf("no timestamp: %s", line)
		}
		delete(e, "timestamp")
		delete(e, "reason")
		delete(e, "metadata")
		delete(e, "host")
		rest, _ := json.Marshal(e)
		out[name] = append(out[name], string(rest))
	}
	return out
}

func TestAnInstanceThatFailsItsHealthCheckLeavesAndComesBack(t *testing.T) {
	c := newCheckedUp(t)
	s := mesh.StartFile(t, c.dir, c.bootstrap(), c.admin)
	c.proxy = s
	c.run()
	stats, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats["cluster.web.health_check.healthy"] != 2 || stats["cluster.web.health_check.network_failure"] == 0 || stats["cluster.calls.health_check.success"] == 0 ||
		stats["cluster.calls.health_check.network_failure"] != 0 || stats["cluster.web.membership_healthy"] != 2 {
		t.Errorf("%v", stats)
	}
	text, err := mesh.Get("http://" + c.admin + "/explain?url=http://web/")
	if err != nil || !strings.Contains(text, "no answer within 400ms") {
		t.Errorf("explained as %s %v", text, err)
	}
	if n := len(c.events()["one"]); n < 5 {
		t.Errorf("events: %v", c.events())
	}
}

func TestHealthChecksAreEnvoys(t *testing.T) {
	mesh.NeedPeers(t)
	var got [2]map[string][]string
	for i := range got {
		c := newCheckedUp(t)
		if i == 0 {
			c.proxy = mesh.StartFile(t, c.dir, c.bootstrap(), c.admin)
		} else {
			c.proxy = mesh.StartEnvoy(t, c.dir, c.bootstrap(), c.admin)
		}
		c.run()
		mesh.Await(t, 20*time.Second, "the events are written", func() error {
			if n := len(c.events()["one"]); n < 5 {
				return fmt.Errorf("%d events", n)
			}
			return nil
		})
		got[i] = c.events()
	}
	for name, envoys := range got[1] {
		if ours := got[0][name]; !slices.Equal(ours, envoys) {
			t.Errorf("%s\nours   %s\nEnvoy's %s", name, strings.Join(ours, "\n       "), strings.Join(envoys, "\n        "))
		}
	}
}
