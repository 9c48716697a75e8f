// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/healthcheck"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// healthRig has the filter, for GET /healthz, and a cluster c behind it.
func healthRig(t *testing.T, f *resource.HealthFilter, edit func(*resource.Snapshot)) *rig {
	logs := accesslog.NewWriters(0)
	t.Cleanup(func() { logs.Close() })
	f.Headers = []resource.HeaderMatch{{Name: ":path", Kind: resource.HeaderString, String: resource.StringMatch{Kind: resource.MatchExact, Value: "/healthz"}}}
	reg := filter.NewRegistry(healthcheck.Spec())
	return newRigOf(t, Options{Workers: 1, Service: "orders", DrainTime: 200 * time.Millisecond, AccessLogs: logs, Filters: reg}, func(s *resource.Snapshot) {
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.Filters = append(m.Filters, resource.HTTPFilter{Name: "health", TypeURL: healthcheck.TypeURL, Config: reg.Lookup(healthcheck.TypeURL).Build(f)})
		edit(s)
	})
}

// want checks an answer: its status, and the headers that are there.
func (r *rig) want(path string, status int, headers map[string]string) {
	r.t.Helper()
	a, _ := r.get(path)
	if a.StatusCode != status {
		r.t.Errorf("%s: %d, want %d", path, a.StatusCode, status)
	}
	for _, name := range []string{"X-Envoy-Upstream-Healthchecked-Cluster", "X-Envoy-Degraded", "X-Envoy-Immediate-Health-Check-Fail"} {
		want, there := headers[name]
		if got := a.Header.Values(name); len(got) > 0 != there || there && got[0] != want {
			r.t.Errorf("%s: %s is %q, want %q", path, name, got, want)
		}
	}
}

const checkedCluster = "X-Envoy-Upstream-Healthchecked-Cluster"

func TestHealthChecksOfThisProxyAreAnsweredByTheFilter(t *testing.T) {
	a := newSick(t)
	r := healthRig(t, &resource.HealthFilter{}, func(s *resource.Snapshot) { withCluster(s, "c", a.addr) })
	r.want("/healthz", 200, map[string]string{checkedCluster: "orders"})
	if a.served.Load() > 0 {
		t.Error("the upstream was asked")
	}
	r.want("/", 200, nil)
	r.p.FailHealthChecks(true)
	r.want("/healthz", 503, map[string]string{checkedCluster: "orders"})
	r.want("/", 200, map[string]string{"X-Envoy-Immediate-Health-Check-Fail": "true"})
	r.p.FailHealthChecks(false)
	r.want("/healthz", 200, map[string]string{checkedCluster: "orders"})
}

func TestHealthChecksPassThroughAndTheirAnswersAreKept(t *testing.T) {
	var status, asked atomic.Int32
	status.Store(200)
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/healthz" {
			return
		}
		asked.Add(1)
		if status.Load() == 207 {
			w.Header().Set("X-Envoy-Degraded", "1")
		}
		w.WriteHeader(int(status.Load()))
	})
	own := map[string]string{checkedCluster: "orders"}
	r := healthRig(t, &resource.HealthFilter{PassThrough: true}, func(s *resource.Snapshot) { withCluster(s, "c", addr) })
	r.want("/healthz", 200, own)
	status.Store(500)
	r.want("/healthz", 500, own)
	if asked.Load() != 2 {
		t.Errorf("the upstream was asked %d times", asked.Load())
	}
	r.p.FailHealthChecks(true)
	r.want("/healthz", 503, own)
	if asked.Load() != 2 {
		t.Error("the upstream was asked though health checks fail")
	}

	status.Store(207)
	asked.Store(0)
	r = healthRig(t, &resource.HealthFilter{PassThrough: true, CacheTime: time.Hour}, func(s *resource.Snapshot) { withCluster(s, "c", addr) })
	for range 3 {
		a, _ := r.get("/healthz")
		if a.StatusCode != 207 || len(a.Header.Values("X-Envoy-Degraded")) != 1 || a.Header.Get(checkedCluster) != "orders" {
			t.Errorf("%d %v", a.StatusCode, a.Header)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the upstream was asked %d times", asked.Load())
	}
}

func TestHealthOfClustersDecidesAboutHealthChecks(t *testing.T) {
	a := newSick(t)
	for _, tt := range []struct {
		need resource.MinHealthy
		want int
	}{
		{resource.MinHealthy{Cluster: "c", Percent: 50}, 200},
		{resource.MinHealthy{Cluster: "c", Percent: 51}, 503},
		{resource.MinHealthy{Cluster: "none"}, 503},
		{resource.MinHealthy{Cluster: "empty", Percent: 1}, 503},
		{resource.MinHealthy{Cluster: "empty"}, 200},
	} {
		r := healthRig(t, &resource.HealthFilter{MinHealthy: []resource.MinHealthy{tt.need}}, func(s *resource.Snapshot) {
			withCluster(s, "c", a.addr, "127.0.0.1:1")
			s.Assignments["c"].Localities[0].Endpoints[1].Health = resource.Unhealthy
			withCluster(s, "empty")
		})
		if got, _ := r.get("/healthz"); got.StatusCode != tt.want {
			t.Errorf("%+v: %d, want %d", tt.need, got.StatusCode, tt.want)
		}
	}
}
