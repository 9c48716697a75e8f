// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// D2: reset before the first byte of a response: idempotent requests are tried
// again, others answered with 503.
func TestAResetBeforeTheResponseIsRetriedOnlyIfIdempotent(t *testing.T) {
	var n atomic.Int64
	b := scripted(t, func(c net.Conn) {
		if readHead(c) != nil {
			return
		}
		if n.Add(1)%2 == 1 {
			c.(*net.TCPConn).SetLinger(0)
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	if resp, body := r.get("/"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("GET: %d %q", resp.StatusCode, body)
	}
	if n.Load() != 2 {
		t.Errorf("GET took %d attempts", n.Load())
	}
	resp, err := r.client().Post("http://"+r.addr, "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 || n.Load() != 3 {
		t.Errorf("POST: %d after %d attempts in all", resp.StatusCode, n.Load())
	}
}

func TestRetriesFollowThePolicyAndStopAtTheirNumber(t *testing.T) {
	var n atomic.Int64
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		n.Add(1)
		if q.Header.Get("X-Envoy-Attempt-Count") == "3" && q.URL.Path == "/third" {
			io.WriteString(w, "third time lucky")
			return
		}
		w.WriteHeader(503)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Default.MaxRetries = 100
		vh := s.Routes["r"].VirtualHosts[0]
		vh.RequestAttemptCount, vh.ResponseAttemptCount = true, true
		vh.Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 2, BaseInterval: time.Millisecond}
	})
	resp, body := r.get("/third")
	if resp.StatusCode != 200 || body != "third time lucky" || resp.Header.Get("X-Envoy-Attempt-Count") != "3" {
		t.Errorf("%d %q after %s attempts", resp.StatusCode, body, resp.Header.Get("X-Envoy-Attempt-Count"))
	}
	n.Store(0)
	if resp, _ := r.get("/never"); resp.StatusCode != 503 || n.Load() != 3 {
		t.Errorf("%d after %d attempts", resp.StatusCode, n.Load())
	}
}

func TestTheRouteTimeoutIncludesRetries(t *testing.T) {
	block := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { <-block })
	t.Cleanup(func() { close(block) })
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
		a.Timeout = 150 * time.Millisecond
		a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 5, PerTryTimeout: 60 * time.Millisecond, BaseInterval: time.Millisecond}
	})
	resp, body := r.get("/")
	if resp.StatusCode != 504 || body != "upstream request timeout" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestMirrorsGetACopyAndTheirAnswersAreDropped(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	seen := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			body, _ := io.ReadAll(q.Body)
			mu.Lock()
			got[name] = q.Host + " " + string(body)
			mu.Unlock()
			fmt.Fprint(w, name)
		}
	}
	main, shadow := backend(t, seen("main")), backend(t, seen("shadow"))
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", main)
		withCluster(s, "m", shadow)
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Mirrors = []resource.Mirror{{Cluster: "m", Fraction: resource.Percent{PerMillion: 1e6}}}
	})
	for i := range 20 {
		body := strings.Repeat("x", i*3000)
		req, _ := http.NewRequest("POST", "http://"+r.addr+"/", strings.NewReader(body))
		req.Host = "svc"
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != "main" {
			t.Fatalf("answered by %q", b)
		}
		eventually(t, "the mirror has its copy", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return got["shadow"] == "svc-shadow "+body && got["main"] == "svc "+body
		})
	}
}

func TestTheBreakerOpensAndLetsAProbeClose(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
		}
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = &resource.CircuitBreaker{
			Enabled: true, ErrorThresholdPercent: 50, RequestVolumeThreshold: 10, Window: 10 * time.Second, Buckets: 10,
			SleepWindow: 200 * time.Millisecond, Count5xx: true,
		}
	})
	eventually(t, "the circuit opens", func() bool {
		resp, _ := r.get("/")
		return resp.StatusCode == 503 && resp.Header.Get("X-Envoy-Overloaded") == "true"
	})
	bad.Store(false)
	eventually(t, "a probe closes it", func() bool {
		resp, _ := r.get("/")
		return resp.StatusCode == 200
	})
}

func TestOutlierDetectionNeedsNoBreaker(t *testing.T) {
	bad := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	good := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", bad, good).Outlier = &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 100}
	})
	eventually(t, "the failing host is ejected", func() bool {
		r.get("/")
		return len(r.p.Ejections()) > 0
	})
}

func TestEachPoolMayHaveOneConnectionWhateverTheLimit(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	other := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b, other).Default.MaxConnections = 1 })
	for range 10 {
		if resp, _ := r.get("/"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}
