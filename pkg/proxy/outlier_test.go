// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func answering(status int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
	}
}

func TestAnEndpointThatFailsTooOftenIsEjectedByItsShare(t *testing.T) {
	good, bad := backend(t, answering(200, "")), backend(t, answering(500, ""))
	other := backend(t, answering(200, ""))
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", good, bad, other).Outlier = &resource.OutlierDetection{
			SuccessRate: resource.SuccessRate{MinHosts: 100},
			Failure:     resource.FailurePercentage{Threshold: 50, MinHosts: 3, Volume: 2, Enforcing: 100},
			Interval:    100 * time.Millisecond, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
	})
	eventually(t, "it is ejected", func() bool {
		for range 10 {
			r.get("/")
		}
		return len(r.p.Ejections()) > 0
	})
	for _, e := range r.p.Ejections() {
		if e.Type != breaker.FailurePercentage || e.Upstream != bad || !e.Enforced {
			t.Errorf("event %+v", e)
		}
	}
	for range 20 {
		if resp, _ := r.get("/"); resp.StatusCode != 200 {
			t.Errorf("status %d with the failing one out", resp.StatusCode)
		}
	}
	eventually(t, "/clusters shows who succeeded", func() bool {
		r.get("/")
		var b bytes.Buffer
		if err := r.p.WriteClusters(&b, false, nil); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(b.String(), "::success_rate::100\n")
	})
}

func TestAnEjectionLastsAsLongAsTheEndpointAsksFor(t *testing.T) {
	for _, heeded := range []bool{true, false} {
		b := backend(t, answering(503, "120"))
		r := newRig(t, func(s *resource.Snapshot) {
			withCluster(s, "c", b).Outlier = &resource.OutlierDetection{
				Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Second, BaseEjection: time.Second, MaxEjection: time.Second,
				MaxEjectionPercent: 100, RetryAfter: heeded,
			}
		})
		eventually(t, "it is ejected", func() bool {
			r.get("/")
			return len(r.p.Ejections()) > 0
		})
		if e := r.p.Ejections()[0]; heeded != (e.For > time.Minute) || e.For > 121*time.Second {
			t.Errorf("heeded %t: ejected for %s", heeded, e.For)
		}
	}
}

// A caller that draws a 429 of its own must not have others miss the endpoint.
func TestWhatIsNoFailureOfTheEndpointLengthensNoEjection(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/greedy" {
			answering(429, "300")(w, q)
			return
		}
		w.WriteHeader(503)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Outlier = &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Second, BaseEjection: time.Second, MaxEjection: time.Second,
			MaxEjectionPercent: 100, RetryAfter: true,
		}
	})
	if resp, _ := r.get("/greedy"); resp.StatusCode != 429 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	eventually(t, "it is ejected", func() bool {
		r.get("/")
		return len(r.p.Ejections()) > 0
	})
	if e := r.p.Ejections()[0]; e.For > 2*time.Second {
		t.Errorf("ejected for %s", e.For)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"120": 2 * time.Minute, "0": 0, "-1": 0, "1.5": 0, "": 0, "soon": 0, "99999999999999999999": 999_999_999 * time.Second,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:05:05 CET": 0, "Fri, 99 Jan 2026 03:05:05 GMT": 0,
	} {
		if got := retryAfter([]byte(v), now.UnixNano()); got != want {
			t.Errorf("%q: got %s, want %s", v, got, want)
		}
	}
}
