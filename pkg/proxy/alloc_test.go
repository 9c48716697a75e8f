// SPDX-License-Identifier: Apache-2.0

//go:build !race

package proxy

import (
	"bytes"
	"net"
	"runtime"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// rawBackend answers each request head with the same bytes, without allocating.
func rawBackend(t testing.TB, response []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						if _, err := c.Write(response); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// allFeatures switches on what a mesh sidecar has on.
func allFeatures(s *resource.Snapshot) {
	m := s.Listeners["l"].FilterChains[0].HTTP
	field := func(name, format string) resource.LogField {
		f, err := substitution.Parse(format)
		if err != nil {
			panic(err)
		}
		return resource.LogField{Name: name, Format: &f}
	}
	m.AccessLog = []*resource.AccessLog{{File: &resource.FileLog{Path: "/dev/null", Format: &resource.LogFormat{JSON: []resource.LogField{
		field("start_time", "%START_TIME%"), field("method", "%REQ(:METHOD)%"), field("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
		field("status", "%RESPONSE_CODE%"), field("flags", "%RESPONSE_FLAGS%"), field("duration", "%DURATION%"),
		field("custom", "%REQ(X-CUSTOM)%"), field("upstream", "%UPSTREAM_HOST%"),
	}}}}}
	m.Tracing = &resource.Tracing{
		ClientSampling: resource.Percent{PerMillion: 1e6}, RandomSampling: resource.Percent{PerMillion: 1e4}, OverallSampling: resource.Percent{PerMillion: 1e6},
		Provider: &resource.Tracer{ServiceName: "test", Propagation: []string{"tracecontext", "b3"}, TraceID128: true},
	}
	c := s.Clusters["c"]
	c.LB.Policy = resource.LeastRequest
	c.Fallback = &resource.Fallback{Cached: &resource.CachedFallback{MaxAge: 600e9, MaxBody: 64 << 10}}
	c.Breaker = &resource.CircuitBreaker{Enabled: true, ErrorThresholdPercent: 50, RequestVolumeThreshold: 20, Window: 10e9, Buckets: 10, SleepWindow: 5e9, Count5xx: true, CountTimeout: true, CountConnectFailure: true}
	c.Outlier = &resource.OutlierDetection{Consecutive5xx: 5, Enforcing5xx: 100, Interval: 10e9, BaseEjection: 30e9, MaxEjection: 300e9, MaxEjectionPercent: 10}
	s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx | resource.RetryConnectFailure, NumRetries: 2}
}

func TestARequestAllocatesNothing(t *testing.T) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello")
	b := rawBackend(t, response)
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b, rawBackend(t, response))
		allFeatures(s)
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nUser-Agent: test/1\r\nAccept: */*\r\nX-Custom: abc\r\n\r\n")
	buf := make([]byte, 4096)
	one := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		n := 0
		for !bytes.HasSuffix(buf[:n], []byte("hello")) {
			k, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	for range 2000 {
		one()
	}
	const n = 5000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		one()
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.4f allocations per request", per)
	if per > 0.02 {
		t.Errorf("%.4f allocations per request, want none", per)
	}
}
