// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

var update = flag.Bool("update-status", false, "write the golden files of the status tests")

// statusRig is a rig with several workers.
func statusRig(t *testing.T, workers int, edit func(*resource.Snapshot)) *rig {
	t.Helper()
	p, err := New(Options{Workers: workers, DrainTime: 200 * time.Millisecond, Service: "web"})
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

// stats reads all numbers by full name.
func (r *rig) stats() map[string]metrics.Sample {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := r.p.Stats(ctx)
	if err != nil {
		r.t.Fatalf("stats: %v", err)
	}
	m := map[string]metrics.Sample{}
	for _, s := range metrics.Sort(list) {
		if _, twice := m[s.FullName()]; twice {
			r.t.Errorf("%s is listed twice", s.FullName())
		}
		m[s.FullName()] = s
	}
	return m
}

// wantStats waits until the numbers are as told.
func (r *rig) wantStats(want map[string]uint64) {
	r.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		got, wrong := r.stats(), ""
		for name, v := range want {
			s, ok := got[name]
			if !ok {
				r.t.Fatalf("there is no stat %s", name)
			}
			if s.Value != v {
				wrong += name + ": got " + strconv.FormatUint(s.Value, 10) + ", want " + strconv.FormatUint(v, 10) + "\n"
			}
		}
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal(wrong)
		}
	}
}

func TestStatsAddUpExactlyOverWorkers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, "/bad") {
			w.WriteHeader(500)
		}
		_, _ = io.WriteString(w, "ok")
	})
	r := statusRig(t, 3, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	const clients, each = 12, 25
	var wg sync.WaitGroup
	for range clients {
		c := r.client()
		wg.Go(func() {
			for i := range each {
				path := "/good"
				if i%5 == 0 {
					path = "/bad"
				}
				resp, err := c.Get("http://" + r.addr + path)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	// Reading while the workers count must not disturb anything.
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		for range 20 {
			if _, err := r.p.Stats(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}()
	wg.Wait()
	<-reading
	n := uint64(clients * each)
	r.wantStats(map[string]uint64{
		"http.test.downstream_rq_total": n, "http.test.downstream_rq_completed": n, "http.test.downstream_rq_active": 0,
		"http.test.downstream_rq_2xx": n * 4 / 5, "http.test.downstream_rq_5xx": n / 5, "http.test.downstream_rq_4xx": 0,
		"http.test.downstream_cx_total": clients, "http.test.downstream_cx_active": clients,
		"cluster.c.upstream_rq_total": n, "cluster.c.upstream_rq_2xx": n * 4 / 5, "cluster.c.upstream_rq_5xx": n / 5,
		"cluster.c.upstream_rq_active": 0, "cluster.c.upstream_rq_pending_active": 0,
		"cluster.c.membership_total": 1, "cluster.c.membership_healthy": 1, "cluster_manager.active_clusters": 1,
		"listener." + statName(r.addr) + ".downstream_cx_total": clients, "listener_manager.total_listeners_active": 1,
		"outrigger.config_version_adopted": r.p.AdoptedVersion(), "outrigger.panics_total": 0,
	})
	got := r.stats()
	for _, name := range []string{"http.test.downstream_rq_time", "cluster.c.upstream_rq_time"} {
		if h := got[name].Histogram; h == nil || h.N != n {
			t.Errorf("%s: %+v, want %d values", name, h, n)
		}
	}
	if cx, idle := got["cluster.c.upstream_cx_active"].Value, got["outrigger.cluster.c.upstream_cx_idle"].Value; cx != idle || cx == 0 {
		t.Errorf("%d connections, %d of them idle; want all, and some", cx, idle)
	}
}

func TestEachStatIsExplainedAndThoseOfEnvoyHaveItsNames(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := statusRig(t, 1, func(s *resource.Snapshot) {
		c := withCluster(s, "c", b)
		c.Default.TrackRemaining, c.Outlier = true, &resource.OutlierDetection{Consecutive5xx: 5, Interval: time.Second}
		c.Breaker = &resource.CircuitBreaker{Enabled: true, Window: time.Second, Buckets: 10}
	})
	r.get("/")
	known := map[string]bool{
		"envoy_cluster_upstream_rq_drop_overload": true, // only with DROP_OVERLOAD
		"envoy_cluster_http2_keepalive_timeout":   true, // only with HTTP/2
	}
	list, err := os.ReadFile("testdata/status/envoy_families.txt")
	if err != nil {
		t.Fatal(err)
	}
	for f := range strings.FieldsSeq(string(list)) {
		known[f] = true
	}
	var all []metrics.Sample
	for name, s := range r.stats() {
		if s.Help == "" || !strings.HasSuffix(s.Help, ".") {
			t.Errorf("%s: help %q", name, s.Help)
		}
		all = append(all, s)
	}
	var out bytes.Buffer
	if err := metrics.WritePrometheus(&out, all); err != nil {
		t.Fatal(err)
	}
	families := 0
	for line := range strings.Lines(out.String()) {
		f, ok := strings.CutPrefix(line, "# TYPE ")
		if !ok {
			continue
		}
		families++
		name, _, _ := strings.Cut(f, " ")
		if !known[name] && !strings.HasPrefix(name, "outrigger_") {
			t.Errorf("%s: Envoy has no such metric", name)
		}
	}
	if families < 80 {
		t.Errorf("only %d metrics", families)
	}
}

// fixedCluster has endpoints that do not exist, in each state of health.
func fixedCluster(s *resource.Snapshot) {
	c := withCluster(s, "orders", "192.0.2.1:80")
	c.AltStatName, c.EDSName = "orders_v1", "orders-endpoints"
	c.Outlier = &resource.OutlierDetection{Consecutive5xx: 5, Interval: time.Second}
	c.High.MaxRequests = 7
	l := &s.Assignments["orders"].Localities[0]
	l.Region, l.Zone, l.SubZone = "r", "z", "s"
	l.Endpoints[0].Hostname, l.Endpoints[0].Canary, l.Endpoints[0].Weight = "one.example", true, 3
	for i, h := range []resource.HealthStatus{resource.Unhealthy, resource.Draining, resource.HealthTimeout, resource.Degraded} {
		l.Endpoints = append(l.Endpoints, resource.Endpoint{
			Address: resource.Address{Host: "2001:db8::" + strconv.Itoa(i+1), Port: 80}, Weight: 1, Health: h,
		})
	}
	l.Endpoints = append(l.Endpoints, resource.Endpoint{Address: resource.Address{Path: "/run/app.sock"}, Weight: 1})
	s.Assignments["orders"].Localities = append(s.Assignments["orders"].Localities, resource.Locality{
		Priority: 1, Endpoints: []resource.Endpoint{{Address: resource.Address{Host: "192.0.2.9", Port: 8080}, Weight: 1}},
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/status/" + name
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", path, got)
	}
}

func TestClustersAreShownInEnvoysForms(t *testing.T) {
	r := statusRig(t, 1, fixedCluster)
	for _, h := range (*r.p.clusters.Load())[0].spec.Load().lb.View().Hosts() {
		if h.Text() == "192.0.2.9:8080" {
			h.SetEjected(true)
			h.SetFailed(true)
		}
		if h.Hostname() == "one.example" {
			h.Stats.RqTotal.Add(3)
			h.Conns.Add(2)
		}
	}
	for _, c := range []struct {
		file   string
		asJSON bool
	}{{"clusters.txt", false}, {"clusters.json", true}} {
		var b bytes.Buffer
		if err := r.p.WriteClusters(&b, c.asJSON, nil); err != nil {
			t.Fatal(err)
		}
		if c.asJSON && !json.Valid(b.Bytes()) {
			t.Error("no valid JSON")
		}
		golden(t, c.file, b.Bytes())
	}
	for _, h := range (*r.p.clusters.Load())[0].spec.Load().lb.View().Hosts() {
		if h.Hostname() == "one.example" {
			h.Conns.Add(-2)
		}
	}
	if got := r.p.Clusters(func(name string) bool { return name != "orders" }); len(got) != 0 {
		t.Errorf("a filter that accepts nothing gives %+v", got)
	}
}

func TestListenersAreShownInEnvoysForms(t *testing.T) {
	sock := t.TempDir() + "/l.sock"
	r := statusRig(t, 2, func(s *resource.Snapshot) {
		withCluster(s, "c")
		s.Listeners["l"].Addresses = append(s.Listeners["l"].Addresses, resource.Address{Path: sock})
	})
	var text, js bytes.Buffer
	if err := errors.Join(r.p.WriteListeners(&text, false), r.p.WriteListeners(&js, true)); err != nil {
		t.Fatal(err)
	}
	if want := "l::" + r.addr + "\nl::" + sock + "\n"; text.String() != want {
		t.Errorf("got %q, want %q", text.String(), want)
	}
	host, port, _ := net.SplitHostPort(r.addr)
	want := `{"listener_statuses":[{"name":"l","local_address":{"socket_address":{"address":"` + host + `","port_value":` + port +
		`}},"additional_local_addresses":[{"pipe":{"path":"` + sock + `"}}]}]}`
	var got bytes.Buffer
	if err := json.Compact(&got, js.Bytes()); err != nil || got.String() != want {
		t.Errorf("got %s, want %s (%v)", got.String(), want, err)
	}
}

func TestAnOpenCircuitShowsInStatsAndBreakers(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := statusRig(t, 2, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = &resource.CircuitBreaker{Enabled: true, ForceOpen: true, Window: time.Second, Buckets: 10}
		withCluster(s, "free", b)
	})
	resp, _ := r.get("/")
	if resp.StatusCode != 503 {
		t.Errorf("status %d through an open circuit", resp.StatusCode)
	}
	r.wantStats(map[string]uint64{
		"outrigger.cluster.c.breaker_state": uint64(breaker.ForcedOpen), "outrigger.cluster.c.short_circuited_total": 1,
		"outrigger.cluster.c.breaker.short_circuited.requests_total": 1, "outrigger.cluster.free.short_circuited_total": 0,
		"cluster.c.upstream_rq_total": 0,
	})
	list := r.p.Breakers()
	if len(list) != 1 || list[0].Name != "c" || list[0].Group != "web" || list[0].State != breaker.ForcedOpen || list[0].MaxRequests != 1024 {
		t.Errorf("breakers: %+v", list)
	}
}

func TestLimitsShowWhatIsLeft(t *testing.T) {
	r := statusRig(t, 1, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "192.0.2.1:80")
		c.Default.MaxRequests, c.Default.TrackRemaining, c.High.MaxRetries = 2, true, 0
	})
	l := (*r.p.clusters.Load())[0].spec.Load().limits
	l.TryRequest()
	l.TryPending()
	r.wantStats(map[string]uint64{
		"cluster.c.circuit_breakers.default.remaining_rq": 1, "cluster.c.circuit_breakers.default.rq_open": 0,
		"cluster.c.circuit_breakers.default.remaining_pending": 1023, "cluster.c.upstream_rq_pending_active": 1,
		"cluster.c.circuit_breakers.high.rq_retry_open": 1,
	})
	l.TryRequest()
	r.wantStats(map[string]uint64{"cluster.c.circuit_breakers.default.remaining_rq": 0, "cluster.c.circuit_breakers.default.rq_open": 1})
	if _, there := r.stats()["cluster.c.circuit_breakers.high.remaining_rq"]; there {
		t.Error("what is left is shown though nobody asked for it (track_remaining)")
	}
	l.ReleaseRequest()
	l.ReleaseRequest()
	l.ReleasePending()
}

func TestStatsGiveUpOnAWorkerThatHangs(t *testing.T) {
	r := statusRig(t, 1, func(s *resource.Snapshot) { withCluster(s, "c") })
	free := make(chan struct{})
	r.p.workers[0].loop.PostOffLoop(func() { <-free })
	defer close(free)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.p.Stats(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline's error", err)
	}
}

func TestNumbersOfAClusterGoWithIt(t *testing.T) {
	r := statusRig(t, 1, func(s *resource.Snapshot) { withCluster(s, "c"); withCluster(s, "old") })
	if _, there := r.stats()["cluster.old.membership_total"]; !there {
		t.Fatal("no stats of a cluster that is configured")
	}
	delete(r.snap.Clusters, "old")
	r.apply(r.snap)
	eventually(t, "its stats are gone", func() bool {
		_, there := r.stats()["cluster.old.membership_total"]
		return !there
	})
}

func TestTenPanicsWithinAMinuteTripTheWatch(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name string
		at   []time.Duration // of panics
		look time.Duration
		want bool
	}{
		{"none", nil, 0, false},
		{"nine at once", make([]time.Duration, 9), 0, false},
		{"ten at once", make([]time.Duration, 10), 0, true},
		{"ten at once, a minute ago", make([]time.Duration, 10), 61 * time.Second, false},
		{"ten over 63 s", []time.Duration{0, 7e9, 14e9, 21e9, 28e9, 35e9, 42e9, 49e9, 56e9, 63e9}, 63 * time.Second, false},
		{"ten over 54 s", []time.Duration{0, 6e9, 12e9, 18e9, 24e9, 30e9, 36e9, 42e9, 48e9, 54e9}, 54 * time.Second, true},
		{"a hundred", make([]time.Duration, 100), 59 * time.Second, true},
	} {
		var n uint64
		w := &PanicWatch{total: func() uint64 { return n }}
		for _, at := range c.at {
			n++
			w.look(start.Add(at))
			if len(w.seen) > panicLimit {
				t.Fatalf("%s: %d looks are kept", c.name, len(w.seen))
			}
		}
		if got := w.look(start.Add(c.look)) >= panicLimit; got != c.want {
			t.Errorf("%s: tripped %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPanicsOfRealWorkersTripTheWatchAndServingGoesOn(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := statusRig(t, 2, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	w := NewPanicWatch(r.p)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for i := range panicLimit {
		if w.Tripped() {
			t.Errorf("tripped after %d panics", i)
		}
		r.p.workers[i%2].loop.PostOffLoop(func() { panic("injected") })
	}
	deadline := time.Now().Add(5 * time.Second)
	for !w.Tripped() {
		if time.Now().After(deadline) {
			t.Fatal("ten panics do not trip the watch")
		}
		r.get("/") // wakes a worker, which publishes its counts
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.wantStats(map[string]uint64{"outrigger.panics_total": panicLimit})
	if resp, _ := r.get("/"); resp.StatusCode != 200 {
		t.Errorf("status %d after the panics", resp.StatusCode)
	}
}

func TestServingBeginsWithTheFirstConfiguration(t *testing.T) {
	p, err := New(Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if p.Serving() {
		t.Error("serving without a configuration")
	}
	r := statusRig(t, 2, func(s *resource.Snapshot) {
		withCluster(s, "c")
		s.Runtime = &resource.Runtime{Numbers: map[string]float64{"a.b": 12.5}, Texts: map[string]string{"c": "d"}}
	})
	if !r.p.Serving() || r.p.Workers() != 2 {
		t.Errorf("serving %v with %d workers", r.p.Serving(), r.p.Workers())
	}
	if rt := r.p.RuntimeValues(); len(rt) != 2 || rt["a.b"] != "12.5" || rt["c"] != "d" {
		t.Errorf("runtime: %v", rt)
	}
	if e := r.p.Ejections(); len(e) != 0 {
		t.Errorf("ejections: %v", e)
	}
	if f := r.p.FailedListeners(); len(f) != 0 {
		t.Errorf("failed listeners: %v", f)
	}
}
