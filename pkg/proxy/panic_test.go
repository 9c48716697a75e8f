// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// panicky is a filter that fails in the callbacks that the request names.
type panicky struct{}

func (panicky) at(x *filter.Exchange, callback string) {
	if strings.Contains(string(x.Request.Get("x-panic")), callback) {
		panic("asked to: " + callback)
	}
}

func (p panicky) OnRequest(x *filter.Exchange) filter.Verdict {
	p.at(x, "request")
	return filter.Next
}

func (p panicky) OnRequestData(x *filter.Exchange, _ []byte, _ bool) { p.at(x, "upload") }

func (p panicky) OnResponse(x *filter.Exchange) filter.Verdict {
	p.at(x, "response")
	return filter.Next
}

func (p panicky) OnResponseData(x *filter.Exchange, _ []byte, last bool) {
	p.at(x, "download")
	if last {
		p.at(x, "end")
	}
}

func (p panicky) OnDone(x *filter.Exchange) { p.at(x, "done") }

// D13: a panic, whatever callback it is in and whatever called that, ends its
// exchange with the connection and nothing else, and gives back what it held.
func TestAPanicEndsItsConnectionOnly(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		if q.URL.Path == "/slow" {
			<-q.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	reg := filter.NewRegistry(filter.Spec{
		Name: "panicky", TypeURL: "panicky",
		Parse: func([]byte) (any, error) { return nil, nil },
		New:   func(any, filter.Worker) filter.Filter { return panicky{} },
	})
	r := newRigWith(t, reg, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = &resource.CircuitBreaker{
			Enabled: true, ErrorThresholdPercent: 100, RequestVolumeThreshold: 1000, Window: 10 * time.Second, Buckets: 10, SleepWindow: time.Second,
		}
		withCluster(s, "refusing", freeAddr(t))
		withCluster(s, "mirror", b)
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "p", TypeURL: "panicky"}}
		vh := s.Routes["r"].VirtualHosts[0]
		fresh := func(path, cluster string, timeout time.Duration) *resource.Route {
			return &resource.Route{Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: path},
				Action: &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1, Timeout: timeout}}
		}
		mirrored := fresh("/mirrored", "c", 5*time.Second)
		mirrored.Action.Mirrors = []resource.Mirror{{Cluster: "mirror", Fraction: resource.Percent{PerMillion: 1e6}}}
		vh.Routes = append([]*resource.Route{fresh("/slow", "c", 50*time.Millisecond), fresh("/refused", "refusing", time.Second), mirrored}, vh.Routes...)
	})
	good := r.client()
	panics := uint64(0)
	for _, c := range []struct {
		name, path, callbacks string
		panics                uint64
		answered              bool // the panic came after all of the answer
	}{
		{"in a request's head", "/", "request", 1, false},
		{"in a request's body", "/", "upload", 1, false},
		{"in a response's head", "/", "response", 1, false},
		{"in a response's body", "/", "download", 1, false},
		{"in the end of a response", "/", "end", 1, false},
		{"after the end", "/", "done", 1, true},
		{"in a request and after its end", "/", "request done", 2, false},
		{"in a response and after its end", "/", "end done", 2, false},
		{"in a reply that a timer makes", "/slow", "response", 1, false},
		{"in a reply that a timer makes, and after", "/slow", "response done", 2, false},
		{"in a reply to a refused connection", "/refused", "response", 1, false},
		{"beside a mirror", "/mirrored", "response", 1, false},
	} {
		for range 3 {
			conn := r.dial()
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Panic: %s\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody", c.path, c.callbacks)
			got, _ := io.ReadAll(conn) // a reset is as good as an end
			if whole := strings.HasSuffix(string(got), "ok"); whole != c.answered && c.callbacks != "end" && c.callbacks != "end done" {
				t.Errorf("%s: got %q", c.name, got)
			}
			panics += c.panics
			resp, err := good.Get("http://" + r.addr)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s: others notice: %v", c.name, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		eventually(t, c.name+": what it held is given back", func() bool { return r.held() == "" })
		if t.Failed() {
			t.Fatal(r.held())
		}
	}
	// A call of the process itself is told, too.
	told := make(chan Answer, 1)
	if err := r.p.SubmitOffLoop(0, "l", Call{Method: "GET", Authority: "x", Path: "/", Header: [][2]string{{"x-panic", "request"}}}, func(a Answer) { told <- a }); err != nil {
		t.Fatal(err)
	}
	if a := <-told; a.Err == nil {
		t.Errorf("an internal call was answered with %d", a.Status)
	}
	panics++
	r.wantStats(map[string]uint64{"outrigger.panics_total": panics, "outrigger.worker_0.panics_total": panics})
	good.CloseIdleConnections()
	eventually(t, "all connections are gone", func() bool { return r.p.listeners["l"].active.Load() == 0 })
	r.wantStats(map[string]uint64{"http.test.downstream_cx_active": 0, "http.test.downstream_rq_active": 0, "cluster.c.upstream_rq_active": 0})
	t.Logf("%d panics in every callback, by events, timers, wake-ups and calls of our own: all counted, 0 of other connections' requests failed", panics)
}

// held says what requests still hold; only the one good connection is there.
func (r *rig) held() string {
	got := make(chan string, 1)
	w := r.p.workers[0]
	w.loop.PostOffLoop(func() {
		s := ""
		for c, on := range w.clusters {
			if on.stats.rqActive != 0 {
				s += fmt.Sprintf("%s: %d active; ", c.name, on.stats.rqActive)
			}
			l := on.spec.limits
			if n := l.Requests(); n != 0 {
				s += fmt.Sprintf("%s: %d in the limit; ", c.name, n)
			}
			for _, p := range on.all {
				h := p.host
				if h.Active.Load() != 0 || len(p.waiting) != 0 || p.connecting != 0 || p.total != len(p.idle) || int32(p.total) != h.Conns.Load() {
					s += fmt.Sprintf("%s: host active %d conns %d, pool %d idle %d connecting %d waiting %d; ",
						c.name, h.Active.Load(), h.Conns.Load(), p.total, len(p.idle), p.connecting, len(p.waiting))
				}
			}
		}
		if m := r.p.managers["test"].on[0]; m.rqActive != 0 || m.cxActive > 1 || w.downs.n > 1 {
			s += fmt.Sprintf("downstream: %d requests, %d connections, %d listed; ", m.rqActive, m.cxActive, w.downs.n)
		}
		if len(w.ready) != 0 || len(w.doomed) != 0 {
			s += fmt.Sprintf("%d woken, %d doomed; ", len(w.ready), len(w.doomed))
		}
		got <- s
	})
	return <-got
}
