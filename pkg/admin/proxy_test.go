// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/admin"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixstream"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// running is a proxy in front of a server, with its admin port.
type running struct {
	t               *testing.T
	addr, adminAddr string
	client          *http.Client
}

func run(t *testing.T) *running {
	t.Helper()
	return runWith(t, nil, nil)
}

// runWith runs a proxy with filters, and its configuration edited.
func runWith(t *testing.T, filters *filter.Registry, edit func(*resource.Snapshot)) *running {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	t.Cleanup(upstream.Close)
	p, err := proxy.New(proxy.Options{Workers: 2, Service: "web", Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	breakers := hystrixstream.Handler(p.Breakers)
	watch := proxy.NewPanicWatch(p)
	s, err := admin.New(admin.Config{
		Address: "127.0.0.1:0", Proxy: p, Concurrency: p.Workers(), Hystrix: breakers, Version: "test",
		Node: admin.NodeInfo{ID: "n", Cluster: "c", Locality: admin.Locality{Zone: "z"}, Metadata: map[string]any{"a": 1}},
		State: func() admin.State {
			switch {
			case p.Draining() || watch.Tripped():
				return admin.Draining
			case !p.Serving():
				return admin.PreInitializing
			}
			return admin.Live
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- p.Run(ctx) }()
	go func() { done <- s.Serve() }()
	var watching sync.WaitGroup
	watching.Go(func() { _ = watch.Run(ctx) }) // it gives nil, once ctx has ended
	r := &running{t: t, adminAddr: s.Addr(), client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		cancel()
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		watching.Wait()
	})
	if status, body := r.get(s.Addr(), "/ready"); status != 503 || body != "PRE_INITIALIZING\n" {
		t.Errorf("before the first configuration: %d %q", status, body)
	}
	r.addr = free(t)
	configuration := snapshot(r.addr, upstream.Listener.Addr().String())
	if edit != nil {
		edit(configuration)
	}
	if err := p.Apply(configuration); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for !p.Serving() {
		if time.Now().After(deadline) {
			t.Fatal("the configuration is not in service")
		}
	}
	return r
}

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func address(s string) resource.Address {
	ap := netip.MustParseAddrPort(s)
	return resource.Address{Host: ap.Addr().String(), Port: ap.Port()}
}

func snapshot(addr, upstream string) *resource.Snapshot {
	limits := resource.Thresholds{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
	return &resource.Snapshot{
		Version: 1,
		Listeners: map[string]*resource.Listener{"l": {
			Name: "l", BindToPort: true, BufferLimit: 64 << 10, Addresses: []resource.Address{address(addr)},
			FilterChains: []*resource.FilterChain{{HTTP: &resource.HTTPManager{
				StatPrefix: "in", RouteConfigName: "r", RequestHeadersTimeout: 10 * time.Second, IdleTimeout: time.Hour, StreamIdleTimeout: time.Minute,
			}}},
		}},
		Routes: map[string]*resource.RouteConfig{"r": {Name: "r", VirtualHosts: []*resource.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*resource.Route{{
				Match:  resource.RouteMatch{Kind: resource.PathPrefix, Path: "/"},
				Action: &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: "orders", Weight: 1}}, TotalWeight: 1, Timeout: 5 * time.Second},
			}},
		}}}},
		Clusters: map[string]*resource.Cluster{"orders": {
			Name: "orders", Type: resource.EDS, ConnectTimeout: time.Second, BufferLimit: 64 << 10, IdleTimeout: time.Hour,
			LB: resource.LoadBalancing{Policy: resource.RoundRobin}, Default: limits, High: limits,
			Breaker: &resource.CircuitBreaker{Enabled: true, Window: time.Second, Buckets: 10, SleepWindow: time.Second, RequestVolumeThreshold: 20, ErrorThresholdPercent: 50},
		}},
		Assignments: map[string]*resource.Assignment{"orders": {
			Cluster: "orders", Overprovisioning: 140,
			Localities: []resource.Locality{{Region: "r", Endpoints: []resource.Endpoint{
				{Address: address(upstream), Weight: 1, Hostname: "one"},
				{Address: resource.Address{Host: "192.0.2.1", Port: 1}, Weight: 1, Health: resource.Unhealthy},
			}}},
		}},
	}
}

func (r *running) get(addr, path string) (status int, body string) {
	r.t.Helper()
	resp, err := r.client.Get("http://" + addr + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestARunningProxyIsShownInEnvoysForms(t *testing.T) {
	r := run(t)
	for range 5 {
		if status, _ := r.get(r.addr, "/"); status != 200 {
			t.Fatalf("through the proxy: %d", status)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	want := []string{
		"envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"in\"} 5",
		"envoy_cluster_upstream_rq_total{envoy_cluster_name=\"orders\"} 5", "envoy_cluster_membership_healthy{envoy_cluster_name=\"orders\"} 1",
		"envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"orders\"} 5", "envoy_server_live 1", "envoy_server_concurrency 2",
		"outrigger_cluster_breaker_requests_total{outcome=\"success\",envoy_cluster_name=\"orders\"} 5",
	}
	for {
		status, body := r.get(r.adminAddr, "/stats/prometheus")
		missing := ""
		for _, line := range want {
			if !strings.Contains(body, "\n"+line+"\n") {
				missing = line
			}
		}
		if status == 200 && missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line %s in\n%s", missing, body)
		}
	}
	if status, body := r.get(r.adminAddr, "/ready"); status != 200 || body != "LIVE\n" {
		t.Errorf("ready: %d %q", status, body)
	}
	if _, body := r.get(r.adminAddr, "/clusters"); !strings.Contains(body, "orders::192.0.2.1:1::health_flags::/failed_eds_health\n") {
		t.Errorf("clusters: %s", body)
	}
}

func TestJSONIsWhatEnvoysMessagesAre(t *testing.T) {
	r := run(t)
	r.get(r.addr, "/")
	clusters, listeners, info := new(adminv3.Clusters), new(adminv3.Listeners), new(adminv3.ServerInfo)
	for _, c := range []struct {
		path string
		m    proto.Message
	}{
		{"/clusters?format=json", clusters}, {"/listeners?format=json", listeners}, {"/server_info", info},
		{"/memory", new(adminv3.Memory)}, {"/certs", new(adminv3.Certificates)}, {"/init_dump", new(adminv3.UnreadyTargetsDumps)},
	} {
		status, body := r.get(r.adminAddr, c.path)
		if status != 200 {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
		if err := protojson.Unmarshal([]byte(body), c.m); err != nil {
			t.Errorf("%s: %v in\n%s", c.path, err, body)
		}
	}
	if n := info.GetNode(); n.GetId() != "n" || n.GetLocality().GetZone() != "z" || n.GetMetadata().GetFields()["a"].GetNumberValue() != 1 {
		t.Errorf("node: %v", n)
	}
	hosts := clusters.GetClusterStatuses()[0].GetHostStatuses()
	if len(hosts) != 2 || hosts[0].GetHostname() != "one" || hosts[0].GetLocality().GetRegion() != "r" {
		t.Errorf("hosts: %v", hosts)
	}
	for _, s := range hosts[0].GetStats() {
		if s.GetName() == "rq_total" && s.GetValue() != 1 {
			t.Errorf("requests of the host: %v", s)
		}
	}
	if got := listeners.GetListenerStatuses()[0]; got.GetName() != "l" || got.GetLocalAddress().GetSocketAddress().GetPortValue() == 0 {
		t.Errorf("listener: %v", got)
	}
}

func TestTheHystrixStreamShowsTheProxysCircuits(t *testing.T) {
	r := run(t)
	r.get(r.addr, "/")
	resp, err := r.client.Get("http://" + r.adminAddr + "/hystrix.stream?delay=100")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("content type %q", got)
	}
	b := make([]byte, 4096)
	n, err := io.ReadAtLeast(resp.Body, b, 200)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b[:n]); !strings.HasPrefix(got, "data: {") || !strings.Contains(got, `"name":"orders"`) || !strings.Contains(got, `"group":"web"`) {
		t.Errorf("stream: %s", got)
	}
}
