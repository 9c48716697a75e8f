// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestRequestsSayHowTheyAreRetried(t *testing.T) {
	const outside = "192.0.2.1" // as an edge sees it
	for _, tt := range []struct {
		name   string
		status int
		answer http.Header
		ask    http.Header
		calls  int64
	}{
		{"by the policy", 503, nil, nil, 3},
		{"more often", 503, nil, http.Header{"X-Envoy-Max-Retries": {"4"}}, 5},
		{"by a header's presence", 200, http.Header{"X-Busy": {"1"}}, http.Header{"X-Envoy-Retry-On": {"retriable-headers"}, "X-Envoy-Retriable-Header-Names": {"x-other, X-Busy"}}, 3},
		{"not by a header that is not there", 200, nil, http.Header{"X-Envoy-Retry-On": {"retriable-headers"}, "X-Envoy-Retriable-Header-Names": {"X-Busy"}}, 1},
		{"not by a header without the condition", 200, http.Header{"X-Busy": {"1"}}, http.Header{"X-Envoy-Retriable-Header-Names": {"X-Busy"}}, 1},
		{"less often, from outside", 503, nil, http.Header{"X-Envoy-Max-Retries": {"1"}, "X-Forwarded-For": {outside}}, 2},
		{"not at all, from outside", 503, nil, http.Header{"X-Envoy-Max-Retries": {"0"}, "X-Forwarded-For": {outside}}, 1},
		{"never more often, from outside", 503, nil, http.Header{"X-Envoy-Max-Retries": {"9"}, "X-Forwarded-For": {outside}}, 3},
		{"nor for more, from outside", 200, http.Header{"X-Busy": {"1"}}, http.Header{"X-Envoy-Retry-On": {"retriable-headers"}, "X-Envoy-Retriable-Header-Names": {"X-Busy"}, "X-Forwarded-For": {outside}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int64
			b := backend(t, func(w http.ResponseWriter, q *http.Request) {
				calls.Add(1)
				for name := range q.Header {
					if name != "X-Envoy-Expected-Rq-Timeout-Ms" && name != "X-Envoy-External-Address" && name != "X-Envoy-Internal" && strings.HasPrefix(name, "X-Envoy-") {
						t.Errorf("%s reached the endpoint", name)
					}
				}
				for name, v := range tt.answer {
					w.Header()[name] = v
				}
				w.WriteHeader(tt.status)
			})
			r := newRig(t, func(s *resource.Snapshot) {
				retrying(s, b)
				s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry.NumRetries = 2
				m := s.Listeners["l"].FilterChains[0].HTTP
				m.UseRemoteAddress, m.XFFTrustedHops = true, 1
			})
			getWith(t, r.client(), r.addr, tt.ask)
			if got := calls.Load(); got != tt.calls {
				t.Errorf("%d calls, want %d", got, tt.calls)
			}
		})
	}
}

// A retry waits as long as the endpoint asks for, on a virtual clock.
func TestARetryWaitsAsLongAsTheEndpointAsks(t *testing.T) {
	for _, tt := range []struct {
		name        string
		headers     func(now time.Duration) string
		least, most time.Duration
	}{
		{"seconds", func(time.Duration) string { return "retry-after: 7\r\n" }, 7 * time.Second, 10600 * time.Millisecond},
		{"a time", func(time.Duration) string { return "x-reset: @20\r\n" }, 19 * time.Second, 31 * time.Second},
		{"the first that is there", func(time.Duration) string { return "x-reset: @20\r\nretry-after: 2\r\n" }, 2 * time.Second, 3100 * time.Millisecond},
		{"longer than the policy lets it: our own time", func(time.Duration) string { return "retry-after: 61\r\n" }, 0, time.Second},
		{"a time that has passed", func(time.Duration) string { return "x-reset: 1\r\n" }, 0, time.Second},
		{"no number", func(time.Duration) string { return "retry-after: Mon, 30 Nov 2026 10:00:00 GMT\r\n" }, 0, time.Second},
		{"nothing", func(time.Duration) string { return "" }, 0, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.9:80")
				a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
				a.Timeout = 0
				a.Retry = &resource.RetryPolicy{
					On: resource.Retry5xx, NumRetries: 1, BaseInterval: 25 * time.Millisecond, MaxInterval: 250 * time.Millisecond,
					RateLimited: &resource.RateLimitedBackOff{MaxInterval: time.Minute, Headers: []resource.ResetHeader{
						{Name: "retry-after"}, {Name: "x-reset", UnixTimestamp: true},
					}},
				}
			})
			var first, second time.Duration
			r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
				if first != 0 {
					second = r.world.Now()
					p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
					return
				}
				first = r.world.Now()
				head := tt.headers(first)
				if before, at, ok := strings.Cut(head, "@"); ok {
					n, rest, _ := strings.Cut(at, "\r\n")
					secs, _ := strconv.Atoi(n)
					wall := r.p.workers[0].loop.Wall()
					head = before + strconv.FormatInt(wall/int64(time.Second)+int64(secs), 10) + "\r\n" + rest
				}
				p.Write([]byte("HTTP/1.1 503 Busy\r\n" + head + "content-length: 0\r\n\r\n"))
			})
			c := r.dial()
			c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			r.until("the answer", time.Hour, func() bool { return len(c.Received) > 0 })
			if took := second - first; took < tt.least || took > tt.most {
				t.Errorf("tried again after %v, want %v to %v", took, tt.least, tt.most)
			}
			s := &r.p.workers[0].clusterOn(r.p.slots["c"]).stats
			limited := uint64(0)
			if tt.least > 0 {
				limited = 1
			}
			if s.retryRateLimited != limited || s.retryExponential != 1-limited {
				t.Errorf("%d waits for the endpoint, %d of our own", s.retryRateLimited, s.retryExponential)
			}
			r.settled()
		})
	}
}

func TestRetriesAvoidEndpointsThatThePolicyNames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		avoid resource.HostPredicates
		want  bool // the other endpoint alone gets retries
	}{
		{"nothing", resource.HostPredicates{}, false},
		{"canaries", resource.HostPredicates{OmitCanaries: true}, true},
		{"by metadata", resource.HostPredicates{OmitMetadata: []map[string]string{{"stage": "none"}, {"stage": "test"}}}, true},
		{"by metadata that it does not have", resource.HostPredicates{OmitMetadata: []map[string]string{{"stage": "test", "zone": "b"}}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var dead, canary, plain atomic.Int64
			bad := fails(t, &dead)
			retries := func(n *atomic.Int64) http.HandlerFunc {
				return func(_ http.ResponseWriter, q *http.Request) {
					if q.Header.Get("X-Envoy-Attempt-Count") != "1" {
						n.Add(1)
					}
				}
			}
			first, second := backend(t, retries(&canary)), backend(t, retries(&plain))
			r := newRig(t, func(s *resource.Snapshot) {
				retrying(s, bad, first, second)
				s.Routes["r"].VirtualHosts[0].RequestAttemptCount = true
				e := &s.Assignments["c"].Localities[0].Endpoints[1]
				e.Canary, e.Metadata = true, resource.Metadata{"envoy.lb": {"stage": "test", "zone": "a"}}
				p := s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry
				p.HostAttempts, p.Avoid = 5, tt.avoid
			})
			for range 30 {
				if resp, _ := r.get("/"); resp.StatusCode != http.StatusOK {
					t.Fatalf("status %d", resp.StatusCode)
				}
			}
			if n := canary.Load() + plain.Load(); n == 0 || n != dead.Load() || (canary.Load() == 0) != tt.want {
				t.Errorf("the canary has %d retries, the other %d, after %d failures", canary.Load(), plain.Load(), dead.Load())
			}
		})
	}
}

func TestARequestTooLongToBeRetriedIsCounted(t *testing.T) {
	var calls atomic.Int64
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		calls.Add(1)
		buf := make([]byte, 64<<10)
		for {
			if _, err := q.Body.Read(buf); err != nil {
				break
			}
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		retrying(s, b)
		s.Routes["r"].VirtualHosts[0].Routes[0].RetryBuffer = 1000
	})
	for _, size := range []int{900, 300_000} {
		calls.Store(0)
		resp, err := r.client().Post("http://"+r.addr, "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want, abandoned := int64(4), uint64(0)
		if size > 1000 {
			want, abandoned = 1, 1
		}
		if got := calls.Load(); got != want {
			t.Errorf("%d bytes: %d calls, want %d", size, got, want)
		}
		if got := statsOf(t, r)["cluster.c.retry_or_shadow_abandoned"]; got != abandoned {
			t.Errorf("%d bytes: %d abandoned, want %d", size, got, abandoned)
		}
	}
}

// spanNames keeps the names of finished spans.
type spanNames chan string

func (n spanNames) Export(s *trace.Span) { n <- string(s.Name) }

func TestATrustedProxyNamesTheSpan(t *testing.T) {
	for _, tt := range []struct {
		name      string
		direction resource.Direction
		from      string
		want      string
	}{
		{"of a trusted caller", resource.Inbound, "127.0.0.1", "placeOrder"},
		{"not of others", resource.Inbound, "192.0.2.1", "ours"},
		{"not of our own application", resource.Outbound, "127.0.0.1", "ours"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := backend(t, func(_ http.ResponseWriter, q *http.Request) {
				if q.Header.Get("X-Envoy-Decorator-Operation") != "" && tt.direction == resource.Inbound {
					t.Error("the header goes on")
				}
			})
			names := make(spanNames, 1)
			r := newRigOf(t, Options{Workers: 1, TraceExporter: func(resource.TraceExporter, string) (trace.Exporter, error) { return names, nil }}, func(s *resource.Snapshot) {
				withCluster(s, "c", b)
				s.Listeners["l"].Direction = tt.direction
				s.Routes["r"].VirtualHosts[0].Routes[0].Decorator = "ours"
				m := s.Listeners["l"].FilterChains[0].HTTP
				m.UseRemoteAddress, m.XFFTrustedHops = true, 1
				all := resource.Percent{PerMillion: 1e6}
				m.Tracing = &resource.Tracing{ClientSampling: all, RandomSampling: all, OverallSampling: all, Provider: &resource.Tracer{
					Propagation: []string{"tracecontext"}, Exporters: []resource.TraceExporter{{}},
				}}
			})
			getWith(t, r.client(), r.addr, http.Header{"X-Envoy-Decorator-Operation": {"placeOrder"}, "X-Forwarded-For": {tt.from}})
			if got := <-names; got != tt.want {
				t.Errorf("the span is %q, want %q", got, tt.want)
			}
		})
	}
}
