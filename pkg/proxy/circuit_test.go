// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// refusal are the replies of an open circuit.
func refusal(resp *http.Response) bool {
	return resp.StatusCode == 503 && resp.Header.Get("X-Envoy-Overloaded") == "true"
}

func circuitOf(change func(*resource.CircuitBreaker)) *resource.CircuitBreaker {
	c := &resource.CircuitBreaker{
		Enabled: true, ErrorThresholdPercent: 50, RequestVolumeThreshold: 4, Window: 10 * time.Second, Buckets: 10,
		SleepWindow: time.Hour, Count5xx: true,
	}
	change(c)
	return c
}

func TestAnOpenCircuitSaysWhenToComeAgain(t *testing.T) {
	for _, tt := range []struct {
		name, asked string
		change      func(*resource.CircuitBreaker)
		lo, hi      int
	}{
		{"its own time", "", func(c *resource.CircuitBreaker) { c.SleepWindow = time.Minute }, 50, 60},
		{"the endpoint's", "120", func(c *resource.CircuitBreaker) { c.SleepWindow, c.RetryAfter = time.Minute, true }, 100, 121},
		{"the endpoint's, which is not asked for", "120", func(c *resource.CircuitBreaker) { c.SleepWindow = time.Minute }, 50, 60},
		{"forever", "", func(c *resource.CircuitBreaker) { c.ForceOpen = true }, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := backend(t, answering(500, tt.asked))
			r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b).Breaker = circuitOf(tt.change) })
			eventually(t, "the circuit refuses", func() bool {
				resp, _ := r.get("/")
				if !refusal(resp) {
					return false
				}
				got := 0
				if v := resp.Header.Get("Retry-After"); v != "" {
					n, err := strconv.Atoi(v)
					if err != nil {
						t.Fatal(err)
					}
					got = n
				}
				if got < tt.lo || got > tt.hi {
					t.Fatalf("Retry-After %d, want %d to %d", got, tt.lo, tt.hi)
				}
				return true
			})
			if resp, _ := r.get("/nowhere-else"); resp.StatusCode == 404 && resp.Header.Get("Retry-After") != "" {
				t.Error("Retry-After in a reply of another kind")
			}
		})
	}
}

func TestSlowAnswersOpenACircuit(t *testing.T) {
	release := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			<-release
		}
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = circuitOf(func(c *resource.CircuitBreaker) {
			c.RequestVolumeThreshold, c.WindowCalls, c.SlowDuration, c.SlowPercent = 2, 10, time.Millisecond, 60
		})
	})
	var got atomic.Int32
	for range 8 {
		go func() {
			resp, err := http.Get("http://" + r.addr + "/slow")
			if err == nil {
				_ = resp.Body.Close()
				got.Add(1)
			}
		}()
	}
	eventually(t, "eight are under way", func() bool { return (*r.p.clusters.Load())[0].spec.Load().limits.Requests() == 8 })
	time.AfterFunc(5*time.Millisecond, func() { close(release) })
	eventually(t, "the circuit refuses", func() bool {
		if got.Load() < 8 {
			return false
		}
		resp, _ := r.get("/")
		return refusal(resp)
	})
}
