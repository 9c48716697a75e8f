// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// retrying makes the route of a snapshot retry on 5xx, and its cluster have a budget.
func retrying(s *resource.Snapshot, addrs ...string) {
	withCluster(s, "c", addrs...).Default = resource.Thresholds{
		MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, RetryBudget: true, BudgetPercent: 50, MinRetries: 10,
	}
	s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{
		On: resource.Retry5xx, NumRetries: 3, BaseInterval: time.Millisecond, MaxInterval: time.Millisecond,
	}
}

// fails answers 500 to everything and counts.
func fails(t testing.TB, calls *atomic.Int64) string {
	return backend(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
}

func TestABudgetEndsWhereNothingWorks(t *testing.T) {
	const requests = 1000
	var calls atomic.Int64
	dead := fails(t, &calls)
	r := newRig(t, func(s *resource.Snapshot) { retrying(s, dead) })
	c := r.client()
	for range requests {
		getWith(t, c, r.addr, nil)
	}
	// What a full reserve has, and no more.
	if got := calls.Load(); got != requests+100 {
		t.Errorf("%d calls of %d requests, want %d", got, requests, requests+100)
	}
}

func TestRetriesOfProxiesInARowDoNotMultiply(t *testing.T) {
	const requests = 600
	var calls atomic.Int64
	next := fails(t, &calls)
	var first *rig
	for range 3 {
		first = newRig(t, func(s *resource.Snapshot) { retrying(s, next) })
		next = first.addr
	}
	c := first.client()
	for range requests {
		getWith(t, c, first.addr, nil)
	}
	if got := calls.Load(); got != requests+100 {
		t.Errorf("%d calls of %d requests, want %d: the last proxy's", got, requests, requests+100)
	}
}

func TestWhatWasRetriedBehindIsNotRetriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name      string
		direction resource.Direction
		edge      bool
		marked    bool
		calls     int64
		mark      bool
	}{
		{"a failure that nobody has retried", resource.Unspecified, false, false, 4, true},
		{"one that was", resource.Unspecified, false, true, 1, true},
		{"the application beside us sees nothing of it", resource.Outbound, false, true, 1, false},
		{"nor of ours", resource.Outbound, false, false, 4, false},
		{"a client outside of an edge sees nothing", resource.Unspecified, true, false, 4, false},
		{"an application may not say it", resource.Inbound, false, true, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int64
			b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				if tt.marked {
					w.Header().Set(retriedHeader, "true")
				}
				w.WriteHeader(http.StatusBadGateway)
			})
			r := newRig(t, func(s *resource.Snapshot) {
				retrying(s, b)
				s.Listeners["l"].Direction = tt.direction
				if m := s.Listeners["l"].FilterChains[0].HTTP; tt.edge {
					m.UseRemoteAddress, m.XFFTrustedHops = true, 1
				}
			})
			h := getWith(t, r.client(), r.addr, http.Header{"X-Forwarded-For": {"192.0.2.1"}})
			if got := h.Get(retriedHeader) != ""; got != tt.mark || calls.Load() != tt.calls {
				t.Errorf("%d calls, told: %t, want %d, %t", calls.Load(), got, tt.calls, tt.mark)
			}
		})
	}
}

func TestAnAnswerThatSucceedsIsNotMarked(t *testing.T) {
	for _, d := range []resource.Direction{resource.Unspecified, resource.Outbound, resource.Inbound} {
		b := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(retriedHeader, "true") })
		r := newRig(t, func(s *resource.Snapshot) {
			retrying(s, b)
			s.Listeners["l"].Direction = d
		})
		if h := getWith(t, r.client(), r.addr, nil); h.Get(retriedHeader) != "" {
			t.Errorf("direction %v: the mark passed", d)
		}
	}
}

func TestAProxyInARowThatDiesIsRetriedByTheOneBefore(t *testing.T) {
	live := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	behind := newRig(t, func(s *resource.Snapshot) { retrying(s, live) })
	r := newRig(t, func(s *resource.Snapshot) { retrying(s, freeAddr(t), behind.addr) })
	for range 20 {
		if resp, _ := r.get("/"); resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

// An application in between has a sidecar on both of its sides: one proxy, which knows
// what it has given up of the application's calls.
func TestTheSidecarBesideAnApplicationSaysWhatItHasGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		passes []string // headers that the application passes on
		mark   bool
	}{
		{"by request id", []string{"X-Request-Id"}, true},
		{"an application that passes on nothing", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int64
			dead := fails(t, &calls)
			outbound := freeAddr(t)
			c := &http.Client{Transport: new(http.Transport)}
			t.Cleanup(c.CloseIdleConnections)
			app := backend(t, func(w http.ResponseWriter, q *http.Request) {
				h := http.Header{}
				for _, name := range tt.passes {
					h[name] = q.Header[name]
				}
				if got := getWith(t, c, outbound, h); got.Get(retriedHeader) != "" {
					t.Error("the application sees the mark")
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			r := newRig(t, func(s *resource.Snapshot) {
				retrying(s, dead)
				out := *s.Listeners["l"]
				ap := netip.MustParseAddrPort(outbound)
				out.Name, out.Direction = "out", resource.Outbound
				out.Addresses = []resource.Address{{Host: ap.Addr().String(), Port: ap.Port()}}
				s.Listeners["out"] = &out
				withCluster(s, "app", app)
				in := *s.Listeners["l"]
				in.Direction = resource.Inbound
				m := *in.FilterChains[0].HTTP
				m.Routes = &resource.RouteConfig{VirtualHosts: []*resource.VirtualHost{{
					Name: "in", Domains: []string{"*"}, Routes: []*resource.Route{{
						Match:  resource.RouteMatch{Kind: resource.PathPrefix, Path: "/"},
						Action: &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: "app", Weight: 1}}, TotalWeight: 1},
					}},
				}}}
				m.RouteConfigName = ""
				in.FilterChains = []*resource.FilterChain{{Name: "in", HTTP: &m}}
				s.Listeners["l"] = &in
			})
			h := getWith(t, r.client(), r.addr, nil)
			if got := h.Get(retriedHeader) != ""; got != tt.mark || calls.Load() != 4 {
				t.Errorf("%d calls, told: %t, want 4, %t", calls.Load(), got, tt.mark)
			}
		})
	}
}

// getWith returns the headers of the answer to a GET.
func getWith(t testing.TB, c *http.Client, addr string, h http.Header) http.Header {
	t.Helper()
	q, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	if h != nil {
		q.Header = h
	}
	resp, err := c.Do(q)
	if err != nil {
		t.Error(err)
		return nil
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.Header
}
