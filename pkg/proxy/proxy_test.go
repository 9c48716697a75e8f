// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// rig is a proxy with one worker and one listener on a port of its own.
type rig struct {
	t    testing.TB
	p    *Proxy
	snap *resource.Snapshot
	addr string
}

func newRig(t testing.TB, edit func(*resource.Snapshot)) *rig {
	return newRigWith(t, nil, edit)
}

func newRigWith(t testing.TB, filters *filter.Registry, edit func(*resource.Snapshot)) *rig {
	t.Helper()
	logs := accesslog.NewWriters(0)
	t.Cleanup(func() { logs.Close() })
	return newRigOf(t, Options{Workers: 1, DrainTime: 200 * time.Millisecond, AccessLogs: logs, Filters: filters}, edit)
}

func newRigOf(t testing.TB, o Options, edit func(*resource.Snapshot)) *rig {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r := &rig{t: t, p: p, addr: freeAddr(t)}
	r.snap = baseSnapshot(r.addr)
	edit(r.snap)
	r.apply(r.snap)
	return r
}

func freeAddr(t testing.TB) string {
	t.Helper()
	return freeporttest.Address(t)
}

// apply puts a snapshot into service and waits until the worker runs on it.
func (r *rig) apply(s *resource.Snapshot) {
	r.t.Helper()
	s.Version++
	// The proxy keeps what it is given, and tests go on to change theirs.
	if err := r.p.Apply(frozen(s)); err != nil {
		r.t.Fatalf("apply: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for r.p.AdoptedVersion() < s.Version {
		if time.Now().After(deadline) {
			r.t.Fatalf("version %d not adopted", s.Version)
		}
		time.Sleep(time.Millisecond)
	}
}

// frozen is a copy of a snapshot that changes to the original do not reach.
func frozen(s *resource.Snapshot) *resource.Snapshot {
	c := *s
	c.Listeners, c.Routes = maps.Clone(s.Listeners), maps.Clone(s.Routes)
	c.Clusters, c.Assignments = maps.Clone(s.Clusters), maps.Clone(s.Assignments)
	return &c
}

func baseSnapshot(addr string) *resource.Snapshot {
	ap := netip.MustParseAddrPort(addr)
	return &resource.Snapshot{
		Listeners: map[string]*resource.Listener{"l": {
			Name: "l", BindToPort: true, BufferLimit: 64 << 10,
			Addresses: []resource.Address{{Host: ap.Addr().String(), Port: ap.Port()}},
			FilterChains: []*resource.FilterChain{{Name: "main", HTTP: &resource.HTTPManager{
				StatPrefix: "test", RouteConfigName: "r", GenerateRequestID: true, ServerName: "outrigger", ServerHeader: resource.ServerPassThrough,
				RequestHeadersTimeout: 10 * time.Second, IdleTimeout: time.Hour, StreamIdleTimeout: 5 * time.Minute, DelayedCloseTimeout: 100 * time.Millisecond,
			}}},
		}},
		Routes: map[string]*resource.RouteConfig{"r": {Name: "r", VirtualHosts: []*resource.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*resource.Route{{
				Name: "default", Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: "/"},
				Action: &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, TotalWeight: 1, Timeout: 5 * time.Second},
			}},
		}}}},
		Clusters:    map[string]*resource.Cluster{},
		Assignments: map[string]*resource.Assignment{},
	}
}

// cluster adds a cluster with endpoints.
func withCluster(s *resource.Snapshot, name string, addrs ...string) *resource.Cluster {
	c := &resource.Cluster{
		Name: name, Type: resource.EDS, ConnectTimeout: time.Second, BufferLimit: 64 << 10, IdleTimeout: time.Hour,
		LB:      resource.LoadBalancing{Policy: resource.RoundRobin},
		Default: resource.Thresholds{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3},
	}
	c.High = c.Default
	s.Clusters[name] = c
	s.Assignments[name] = assignment(name, addrs...)
	return c
}

func assignment(name string, addrs ...string) *resource.Assignment {
	a := &resource.Assignment{Cluster: name, Overprovisioning: 140}
	var l resource.Locality
	for _, s := range addrs {
		ap := netip.MustParseAddrPort(s)
		l.Endpoints = append(l.Endpoints, resource.Endpoint{Address: resource.Address{Host: ap.Addr().String(), Port: ap.Port()}, Weight: 1})
	}
	a.Localities = []resource.Locality{l}
	return a
}

func backend(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (r *rig) client() *http.Client {
	tr := &http.Transport{DisableCompression: true}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func (r *rig) get(path string) (*http.Response, string) {
	r.t.Helper()
	resp, err := r.client().Get("http://" + r.addr + path)
	if err != nil {
		r.t.Fatalf("get %s: %v", path, err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		r.t.Fatalf("read %s: %v", path, err)
	}
	return resp, string(b)
}

func TestARequestReachesItsClusterAndComesBack(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Seen", q.Header.Get("X-Request-Id"))
		fmt.Fprintf(w, "%s %s %s", q.Method, q.URL.RequestURI(), body)
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	resp, body := r.get("/a/b?c=d")
	if resp.StatusCode != 200 || body != "GET /a/b?c=d " {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
	if len(resp.Header.Get("X-Seen")) != 36 {
		t.Errorf("no request id upstream: %q", resp.Header.Get("X-Seen"))
	}
	if resp.Header.Get("X-Envoy-Upstream-Service-Time") == "" {
		t.Error("no x-envoy-upstream-service-time")
	}
	for _, size := range []int{0, 1, 1000, 70_000, 3_000_000} {
		want := strings.Repeat("x", size)
		for _, chunked := range []bool{false, true} {
			var rd io.Reader = strings.NewReader(want)
			if chunked {
				rd = io.MultiReader(rd, strings.NewReader(""))
			}
			resp, err := r.client().Post("http://"+r.addr+"/p", "text/plain", rd)
			if err != nil {
				t.Fatalf("post of %d bytes, chunked %v: %v", size, chunked, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != "POST /p "+want {
				t.Errorf("post of %d bytes, chunked %v: %d bytes back, error %v", size, chunked, len(got), err)
			}
		}
	}
}

func TestManyRequestsOnManyConnections(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.URL.Path) })
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	var wg sync.WaitGroup
	for i := range 20 {
		c := r.client()
		wg.Go(func() {
			for j := range 200 {
				path := "/" + strconv.Itoa(i) + "/" + strconv.Itoa(j)
				resp, err := c.Get("http://" + r.addr + path)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				got, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(got) != path {
					t.Errorf("got %q for %q", got, path)
				}
			}
		})
	}
	wg.Wait()
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.URL.Path) })
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var out bytes.Buffer
	for i := range 10 {
		fmt.Fprintf(&out, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
	}
	c.Write(out.Bytes())
	br := bufio.NewReader(c)
	for i := range 10 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		if string(got) != "/"+strconv.Itoa(i) {
			t.Errorf("response %d: %q", i, got)
		}
	}
}

func TestNothingThatSurelyWasNotProcessedIsLost(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "ok") })
	dead := freeAddr(t)
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b, dead) })
	for range 20 {
		resp, err := r.client().Post("http://"+r.addr+"/", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

func TestLocalReplies(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "empty")
		withCluster(s, "dead", freeAddr(t))
		vh := s.Routes["r"].VirtualHosts[0]
		route := func(prefix, cluster string) *resource.Route {
			return &resource.Route{Name: prefix, Match: resource.RouteMatch{Path: prefix}, Action: &resource.RouteAction{
				Clusters: []resource.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1}}
		}
		vh.Routes = []*resource.Route{
			route("/empty", "empty"), route("/dead", "dead"), route("/missing", "missing"),
			{Match: resource.RouteMatch{Path: "/direct"}, Direct: &resource.DirectResponse{Status: 418, Body: []byte("teapot")}},
			{Match: resource.RouteMatch{Path: "/old"}, Redirect: &resource.Redirect{Host: "example.com", HasPrefix: true, PrefixRewrite: "/new", HTTPS: true}},
		}
	})
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/empty", 503, "no healthy upstream"}, {"/dead", 503, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused"},
		{"/missing", 503, ""}, {"/direct", 418, "teapot"}, {"/nothing", 404, ""},
	} {
		resp, body := r.get(c.path)
		if resp.StatusCode != c.status || body != c.body {
			t.Errorf("%s: got %d %q, want %d %q", c.path, resp.StatusCode, body, c.status, c.body)
		}
	}
	cl := r.client()
	cl.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := cl.Get("http://" + r.addr + "/old/x?q=1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Location"); resp.StatusCode != 301 || got != "https://example.com/new/x?q=1" {
		t.Errorf("redirect: %d %q", resp.StatusCode, got)
	}
}
