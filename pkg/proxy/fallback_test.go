// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// standby is a cluster that takes what the cluster c does not answer.
var standby = &resource.Fallback{Cluster: "standby"}

// fallbacks are the counts of what came of fallbacks, as the circuit's stream has them.
func (r *rig) fallbacks(name string) string {
	for _, c := range *r.p.clusters.Load() {
		if c.name == name {
			n := c.spec.Load().circuit.Metrics(1).Total
			return fmt.Sprintf("success %d failure %d rejection %d missing %d",
				n[breaker.FallbackSuccess], n[breaker.FallbackFailure], n[breaker.FallbackRejection], n[breaker.FallbackMissing])
		}
	}
	return "no such cluster"
}

func (r *rig) awaitFallbacks(name, want string) {
	r.t.Helper()
	got := ""
	eventually(r.t, "the fallbacks are counted", func() bool { got = r.fallbacks(name); return got == want })
}

// endless is the rest of a body that the proxy has not seen to its end when the request fails.
type endless struct{ more chan struct{} }

func (e endless) Read(p []byte) (int, error) {
	<-e.more
	return 0, io.EOF
}

func TestRequestsOfAFailedClusterGoToAnotherOne(t *testing.T) {
	var seen atomic.Int64
	good := backend(t, func(w http.ResponseWriter, q *http.Request) {
		seen.Add(1)
		body, _ := io.ReadAll(q.Body)
		if q.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
		fmt.Fprintf(w, "%s %s %s", q.Host, q.Header.Get("X-Envoy-Attempt-Count"), body)
	})
	hangs := scripted(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	resets := scripted(t, func(c net.Conn) { _ = readHead(c) })
	for _, tt := range []struct {
		name, flags, attempts string
		ran                   bool // it may have, so that a POST stays
		edit                  func(*resource.Snapshot, *resource.Cluster)
	}{
		{"an open circuit", "UO", "1", false, func(_ *resource.Snapshot, c *resource.Cluster) { c.Breaker.ForceOpen = true }},
		{"its limit", "UO", "1", false, func(_ *resource.Snapshot, c *resource.Cluster) { c.Default.MaxRequests = 0 }},
		{"no endpoint", "UH", "2", false, func(s *resource.Snapshot, c *resource.Cluster) { s.Assignments["c"] = assignment("c") }},
		{"an endpoint that refuses", "UF", "3", false, func(s *resource.Snapshot, c *resource.Cluster) { s.Assignments["c"] = assignment("c", freeAddr(t)) }},
		{"a reset", "UC", "3", true, func(s *resource.Snapshot, c *resource.Cluster) { s.Assignments["c"] = assignment("c", resets) }},
		{"the route's timeout", "UT", "2", true, func(s *resource.Snapshot, c *resource.Cluster) {
			s.Assignments["c"] = assignment("c", hangs)
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 100 * time.Millisecond
		}},
		{"the route's own fallback", "UH", "2", false, func(s *resource.Snapshot, c *resource.Cluster) {
			s.Assignments["c"] = assignment("c")
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Fallback = standby
			c.Fallback = &resource.Fallback{Static: &resource.DirectResponse{Status: 299}}
		}},
		{"retries that hedge", "URX,UT", "3", true, func(s *resource.Snapshot, c *resource.Cluster) {
			s.Assignments["c"] = assignment("c", hangs)
			a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
			a.Timeout = 150 * time.Millisecond
			a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
			a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 1, PerTryTimeout: 20 * time.Millisecond, BaseInterval: time.Millisecond}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{"POST", "PUT"} {
				seen.Store(0)
				var logged func(string)
				r := newRig(t, func(s *resource.Snapshot) {
					logged = logTo(t, s, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER%")
					c := withCluster(s, "c", good)
					c.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.RequestVolumeThreshold = 1000 })
					c.Fallback = standby
					withCluster(s, "standby", good)
					s.Routes["r"].VirtualHosts[0].RequestAttemptCount = true
					tt.edit(s, c)
				})
				want := "svc " + tt.attempts + " all of it"
				req, _ := http.NewRequest(method, "http://"+r.addr+"/", strings.NewReader("all of it"))
				req.Host = "svc"
				resp, err := r.client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if tt.ran && method == "POST" {
					if resp.StatusCode < 503 || seen.Load() != 0 {
						t.Errorf("%d %q after %d requests to the other cluster", resp.StatusCode, body, seen.Load())
					}
					r.awaitFallbacks("c", "success 0 failure 0 rejection 0 missing 1")
					continue
				}
				if resp.StatusCode != 200 || string(body) != want || resp.Header.Get("X-Envoy-Overloaded") != "" {
					t.Errorf("%s: %d %q, want %q", method, resp.StatusCode, body, want)
				}
				logged(fmt.Sprintf("200 %s fallback_cluster standby\n", tt.flags))
				r.awaitFallbacks("c", "success 1 failure 0 rejection 0 missing 0")
			}
		})
	}
}

// An attempt before the one that failed for good may have run, too.
func TestARequestThatMayHaveRunGetsTheAnswerOfThePolicy(t *testing.T) {
	var seen, runs atomic.Int64
	good := backend(t, func(http.ResponseWriter, *http.Request) { seen.Add(1) })
	r := newRig(t, func(s *resource.Snapshot) {
		resets := scripted(t, func(c net.Conn) { _ = readHead(c); runs.Add(1) })
		c := withCluster(s, "c", resets)
		c.Breaker = circuitOf(func(b *resource.CircuitBreaker) {
			b.RequestVolumeThreshold, b.CountReset, b.ErrorThresholdPercent = 1, true, 1
		})
		c.Fallback = &resource.Fallback{Cluster: "standby", Static: &resource.DirectResponse{Status: 202, Body: []byte("later")}}
		withCluster(s, "standby", good)
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 1, BaseInterval: time.Millisecond}
	})
	resp, body := r.ask("POST", "/pay")
	if resp.StatusCode != 202 || body != "later" || seen.Load() != 0 || runs.Load() == 0 {
		t.Errorf("%d %q after %d runs and %d at the other cluster", resp.StatusCode, body, runs.Load(), seen.Load())
	}
}

func TestAFallbackHasNone(t *testing.T) {
	var seen atomic.Int64
	bad := backend(t, func(w http.ResponseWriter, q *http.Request) { seen.Add(1); w.WriteHeader(500) })
	for _, tt := range []struct {
		name  string
		edit  func(*resource.Snapshot, *resource.Cluster)
		want  string
		count string
		seen  int64
	}{
		{"where it is refused", func(_ *resource.Snapshot, c *resource.Cluster) {
			c.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.ForceOpen = true })
		},
			"503 circuit breaker open", "success 0 failure 0 rejection 1 missing 0", 0},
		{"where it has no endpoint", func(s *resource.Snapshot, _ *resource.Cluster) { s.Assignments["standby"] = assignment("standby") },
			"503 no healthy upstream", "success 0 failure 1 rejection 0 missing 0", 0},
		{"where it fails", func(*resource.Snapshot, *resource.Cluster) {}, "500 ", "success 0 failure 1 rejection 0 missing 0", 1},
		{"where it is not there", func(s *resource.Snapshot, _ *resource.Cluster) { delete(s.Clusters, "standby") },
			"503 no healthy upstream", "success 0 failure 0 rejection 0 missing 1", 0},
		{"but the answer of the policy", func(s *resource.Snapshot, c *resource.Cluster) {
			s.Assignments["standby"] = assignment("standby")
			s.Clusters["c"].Fallback = &resource.Fallback{Cluster: "standby", Static: &resource.DirectResponse{Status: 203, Body: []byte("ours")}}
		}, "203 ours", "success 1 failure 0 rejection 0 missing 0", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen.Store(0)
			r := newRig(t, func(s *resource.Snapshot) {
				c := withCluster(s, "c")
				c.Breaker, c.Fallback = circuitOf(func(*resource.CircuitBreaker) {}), standby
				to := withCluster(s, "standby", bad)
				to.Fallback = &resource.Fallback{Cluster: "c"} // round in circles
				tt.edit(s, to)
			})
			resp, body := r.get("/")
			if got := fmt.Sprint(resp.StatusCode, " ", body); got != tt.want || seen.Load() != tt.seen {
				t.Errorf("%q after %d requests, want %q after %d", got, seen.Load(), tt.want, tt.seen)
			}
			r.awaitFallbacks("c", tt.count)
		})
	}
}

func TestABodyThatIsNoLongerWholeStaysWithItsCluster(t *testing.T) {
	var seen atomic.Int64
	good := backend(t, func(w http.ResponseWriter, q *http.Request) { seen.Add(1) })
	const long = defaultReplayBuffer + 1
	bad := scripted(t, func(c net.Conn) {
		if readHead(c) == nil {
			_, _ = io.CopyN(io.Discard, c, long)
		}
	})
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", bad)
		c.Breaker, c.Fallback = circuitOf(func(b *resource.CircuitBreaker) { b.RequestVolumeThreshold = 1000 }), standby
		withCluster(s, "standby", good)
	})
	more := make(chan struct{})
	defer close(more)
	resp, err := r.client().Post("http://"+r.addr+"/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 3*long)), endless{more}))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 503 || seen.Load() != 0 {
		t.Errorf("%d, and %d requests at the other cluster", resp.StatusCode, seen.Load())
	}
	r.awaitFallbacks("c", "success 0 failure 0 rejection 0 missing 1")
}

func TestACallFallsBackToAnotherCluster(t *testing.T) {
	good := backend(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "0")
	})
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c")
		c.Fallback = &resource.Fallback{Cluster: "standby", Static: &resource.DirectResponse{Status: 200}}
		withCluster(s, "standby", good)
	})
	req, _ := http.NewRequest("POST", "http://"+r.addr+"/s/m", http.NoBody)
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := r.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Grpc-Status"); got != "0" {
		t.Errorf("the call's status is %q", got)
	}
}
