// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// call makes a call of gRPC with an empty message.
func (r *rig) call(c *http.Client, path string, fields ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequest("POST", "http://"+r.addr+path, strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/grpc+proto")
	q.Header.Set("Te", "trailers")
	for i := 0; i < len(fields); i += 2 {
		q.Header.Set(fields[i], fields[i+1])
	}
	resp, err := c.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(body)
}

func routeTo(path string, edit func(*resource.Route)) *resource.Route {
	r := &resource.Route{Name: path, Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: path}}
	edit(r)
	return r
}

func TestACallIsAnsweredInItsOwnTerms(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %v", http2), func(t *testing.T) {
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c")
				s.Clusters["c"].Fallback = &resource.Fallback{Static: &resource.DirectResponse{Status: 200, Body: []byte("not for calls")}}
				withCluster(s, "full", "127.0.0.1:9").Default.MaxRequests = 0
				vh := s.Routes["r"].VirtualHosts[0]
				vh.Domains = []string{r2host}
				vh.Routes = append([]*resource.Route{
					routeTo("/denied", func(r *resource.Route) {
						r.Direct = &resource.DirectResponse{Status: 403, Body: []byte("100 %\n")}
					}),
					routeTo("/fine", func(r *resource.Route) { r.Direct = &resource.DirectResponse{Status: 200} }),
					routeTo("/away", func(r *resource.Route) { r.Redirect = &resource.Redirect{Host: "other.example"} }),
					routeTo("/full", func(r *resource.Route) {
						r.Action = &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: "full", Weight: 1}}, TotalWeight: 1}
					}),
					routeTo("/nowhere", func(r *resource.Route) {
						r.Action = &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: "gone", Weight: 1}}, TotalWeight: 1}
					}),
				}, vh.Routes...)
			})
			c := protocolClient(t, http2)
			for _, test := range []struct{ path, host, status, message string }{
				{"/s/m", "elsewhere", "12", ""},
				{"/s/m", r2host, "14", "no healthy upstream"},
				{"/denied", r2host, "7", "100 %25%0A"},
				{"/fine", r2host, "2", ""},
				{"/away", r2host, "2", ""},
				{"/full", r2host, "14", "upstream connect error or disconnect/reset before headers. reset reason: overflow"},
				{"/nowhere", r2host, "14", ""},
			} {
				q, _ := http.NewRequest("POST", "http://"+r.addr+test.path, strings.NewReader("\x00\x00\x00\x00\x00"))
				q.Host = test.host
				q.Header.Set("Content-Type", "application/grpc+json")
				resp, err := c.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				h := resp.Header
				if err != nil || resp.StatusCode != 200 || len(body) > 0 || h.Get("Content-Type") != "application/grpc+json" ||
					h.Get("Grpc-Status") != test.status || h.Get("Grpc-Message") != test.message {
					t.Errorf("%s of %s: %d %v %q, %v; want status %s, message %q", test.path, test.host, resp.StatusCode, h, body, err, test.status, test.message)
				}
				if test.path == "/away" && !strings.HasPrefix(h.Get("Location"), "http://other.example/") {
					t.Errorf("a redirect has lost its location: %v", h)
				}
			}
			resp, body := r.call(c, "/denied", "Content-Type", "application/grpc-web", "Host", r2host)
			if resp.StatusCode != 404 || resp.Header.Get("Grpc-Status") != "" { // its host is the address
				t.Errorf("what is no call of gRPC is answered %d %v %q", resp.StatusCode, resp.Header, body)
			}
		})
	}
}

const r2host = "calls.example"

// A call's deadline is exact, and its endpoint hears what is left of it.
func TestTheDeadlineOfACallIsKeptAndPassedOn(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name      string
		conf      resource.GRPCTimeout
		timeout   string // of the caller
		want      time.Duration
		untouched bool
	}{
		{"not configured: the route's timeout", resource.GRPCTimeout{}, "100m", 300 * ms, true},
		{"the caller's", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute}, "100m", 100 * ms, false},
		{"the caller's is longer than the route's timeout", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute}, "2S", 2000 * ms, false},
		{"limited", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Max: 50 * ms}, "1H", 50 * ms, false},
		{"none is limited, too", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Max: 50 * ms}, "", 50 * ms, false},
		{"shortened", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Offset: 30 * ms}, "100m", 70 * ms, false},
		{"not shortened to nothing", resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Offset: 130 * ms}, "100m", 100 * ms, false},
		{"as the duration", resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration}, "100m", 100 * ms, false},
		{"as the duration, longer than the route's", resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration}, "250m", 250 * ms, false},
		{"as the duration, not named: the route's", resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration}, "", 200 * ms, true},
		{"not a timeout", resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration}, "soon", 200 * ms, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newSim(t, 1, sim.Link{Latency: ms}, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.2:80")
				a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
				a.Timeout, a.GRPCTimeout = 300*ms, c.conf
				if c.conf.Kind == resource.GRPCTimeoutDuration {
					a.MaxDuration = 200 * ms
				}
			})
			var seen string
			r.serve("10.0.0.2:80", func(_ *sim.Peer, head string) { seen = head })
			p := r.dial()
			field := ""
			if c.timeout != "" {
				field = "grpc-timeout: " + c.timeout + "\r\n"
			}
			r.until("connected", time.Second, func() bool { return true })
			began := r.world.Now()
			p.Write([]byte("POST /s/m HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\n" + field + "content-length: 0\r\n\r\n"))
			answer := ""
			p.OnData = func(_ *sim.Peer, b []byte) { answer += string(b) }
			r.until("answered", 10*time.Second, func() bool { return strings.Contains(answer, "\r\n\r\n") })
			took := r.world.Now() - began
			if took < c.want || took > c.want+10*ms {
				t.Errorf("answered after %v, want %v\n%s", took, c.want, answer)
			}
			status := "grpc-status: 4\r\n"
			if c.conf.Kind == resource.GRPCTimeoutIgnored {
				status = "grpc-status: 14\r\n" // as Envoy
			}
			if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.Contains(answer, status) {
				t.Errorf("answered %q, want %q", answer, status)
			}
			_, told, _ := strings.Cut(seen+"\r\n", "grpc-timeout: ")
			told, _, _ = strings.Cut(told, "\r\n")
			if c.untouched {
				if told != c.timeout {
					t.Errorf("the endpoint was told %q, want %q", told, c.timeout)
				}
				return
			}
			if left, ok := grpc.ParseTimeout([]byte(told)); !ok || left >= c.want || left < c.want-10*ms {
				t.Errorf("the endpoint was told %q, want a little less than %v", told, c.want)
			}
		})
	}
}

func TestAnAnswerThatHasBegunEndsWithItsDeadlineInTrailers(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		io.WriteString(w, "\x00\x00\x00\x00\x01x")
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).HTTP2 = true
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.GRPCTimeout.Kind = resource.GRPCTimeoutRoute
	})
	resp, body := r.call(protocolClient(t, true), "/s/m", "Grpc-Timeout", "1500m")
	if body != "\x00\x00\x00\x00\x01x" || resp.Trailer.Get("Grpc-Status") != "4" {
		t.Errorf("%q, trailers %v", body, resp.Trailer)
	}
	eventually(t, "the endpoint is let go", func() bool {
		active := uint64(1)
		w := r.p.workers[0]
		if err := r.p.ask(t.Context(), w, func() { active = w.clusterOn(r.p.slots["c"]).stats.rqActive }); err != nil {
			t.Fatal(err)
		}
		return active == 0
	})
}

// answerOnly answers a call with a status in the head, as servers do that have no
// message to send.
func answerOnly(w http.ResponseWriter, status string) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", status)
}

func TestCallsAreRetriedByTheirStatus(t *testing.T) {
	for _, c := range []struct {
		on     resource.RetryOn
		header string
		status string
		again  bool
	}{
		{resource.RetryGRPCUnavailable, "", "14", true},
		{resource.RetryGRPCUnavailable, "", "8", false},
		{resource.RetryGRPCResourceExhausted, "", "8", true},
		{resource.RetryGRPCCancelled, "", "1", true},
		{resource.RetryGRPCDeadlineExceeded, "", "4", true},
		{resource.RetryGRPCInternal, "", "13", true},
		{resource.Retry5xx, "", "14", false},
		{0, "unavailable,internal", "13", true},
		{0, "unavailable", "0", false},
	} {
		t.Run(fmt.Sprintf("%v %s %s", c.on, c.header, c.status), func(t *testing.T) {
			var n atomic.Int64
			b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
				io.Copy(io.Discard, q.Body)
				if n.Add(1) == 1 {
					answerOnly(w, c.status)
				} else {
					answerOnly(w, "0")
				}
			})
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", b).HTTP2 = true
				s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: c.on, NumRetries: 1, BaseInterval: time.Millisecond}
			})
			fields := []string{"X-Any", "x"}
			if c.header != "" {
				fields = []string{"X-Envoy-Retry-Grpc-On", c.header}
			}
			resp, _ := r.call(protocolClient(t, true), "/s/m", fields...)
			want, attempts := c.status, int64(1)
			if c.again {
				want, attempts = "0", 2
			}
			if resp.Header.Get("Grpc-Status") != want || n.Load() != attempts {
				t.Errorf("status %s after %d attempts, want %s after %d", resp.Header.Get("Grpc-Status"), n.Load(), want, attempts)
			}
		})
	}
}

func TestEndpointsAreJudgedByTheStatusOfCalls(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, status string){
		"in the head": answerOnly,
		"in trailers": func(w http.ResponseWriter, status string) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			io.WriteString(w, "\x00\x00\x00\x00\x00")
			w.Header().Set("Grpc-Status", status)
		},
	} {
		for status, ejected := range map[string]bool{"14": true, "13": true, "5": false, "0": false} {
			t.Run(name+" "+status, func(t *testing.T) {
				b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
					io.Copy(io.Discard, q.Body)
					answer(w, status)
				})
				r := newRig(t, func(s *resource.Snapshot) {
					c := withCluster(s, "c", b)
					c.HTTP2 = true
					c.Outlier = &resource.OutlierDetection{
						Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 100}
				})
				c := protocolClient(t, true)
				for range 5 {
					r.call(c, "/s/m")
				}
				if ejected {
					eventually(t, "the endpoint is ejected", func() bool { return len(r.p.Ejections()) > 0 })
					return
				}
				host := r.p.slots["c"].spec.Load().lb.View()
				if n := host.HealthyLen(); n != 1 || len(r.p.Ejections()) > 0 {
					t.Errorf("%d endpoints are healthy", n)
				}
			})
		}
	}
}
