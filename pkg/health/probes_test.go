// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// server is a server of HTTP whose answer can be changed.
type server struct {
	addr     string
	answer   atomic.Pointer[http.HandlerFunc]
	conns    atomic.Int32
	requests atomic.Int32
}

func newServer(t *testing.T, http2 bool) *server {
	s := &server{}
	s.status(200)
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		(*s.answer.Load())(w, r)
	}))
	ts.Config.Protocols = new(http.Protocols)
	ts.Config.Protocols.SetHTTP1(!http2)
	ts.Config.Protocols.SetUnencryptedHTTP2(http2)
	ts.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.conns.Add(1)
		}
	}
	ts.Start()
	t.Cleanup(ts.Close)
	s.addr = ts.Listener.Addr().String()
	return s
}

func (s *server) handle(f http.HandlerFunc) { s.answer.Store(&f) }

func (s *server) status(code int) {
	s.handle(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func TestAHostIsCheckedByHTTPAndComesBack(t *testing.T) {
	for name, over2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, over2)
			r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.HTTP2 = over2 }), s.addr)
			if r.host().Healthy() && r.cluster.Stats().Successes == 0 {
				t.Error("a host is healthy that no check has seen")
			}
			r.healthy(1)
			s.status(503)
			r.healthy(0)
			if why := r.cluster.Explain(r.host()); !strings.Contains(why, "ago: status 503") {
				t.Errorf("explained as %q", why)
			}
			s.status(302) // no redirect is followed
			r.checked(5)
			if !r.host().Failed() {
				t.Error("a redirect counts as healthy")
			}
			s.status(200)
			r.healthy(1)
			r.checked(5)
			if n := s.conns.Load(); n != 1 {
				t.Errorf("%d connections for %d requests", n, s.requests.Load())
			}
			st := r.cluster.Stats()
			if st.Successes == 0 || st.Failures < 5 || st.Network != 0 || st.Healthy != 1 || st.Attempts < st.Successes+st.Failures {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestTheRequestIsWhatTheConfigurationSays(t *testing.T) {
	for name, over2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, over2)
			var got atomic.Pointer[http.Request]
			var body atomic.Pointer[string]
			s.handle(func(w http.ResponseWriter, q *http.Request) {
				b, _ := io.ReadAll(q.Body)
				text := string(b)
				body.Store(&text)
				got.Store(q)
				_, _ = io.WriteString(w, "all is well here")
			})
			r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) {
				h.HTTP2, h.Path, h.Method, h.Host, h.Send, h.Remove = over2, "/a%2fb?x=%20y", "POST", "h.example", []byte("ping"), []string{"user-agent"}
				h.Headers = []resource.HeaderValue{{Name: "x-a", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "x-b", Value: "3", Action: resource.OverwriteIfExists}}
				h.Receive = [][]byte{[]byte("all"), []byte("well")}
			}), s.addr)
			r.healthy(1)
			q := got.Load()
			if q.RequestURI != "/a%2fb?x=%20y" || q.Method != "POST" || q.Host != "h.example" || *body.Load() != "ping" ||
				q.UserAgent() != "" || strings.Join(q.Header["X-A"], ",") != "1,2" || q.Header.Get("X-B") != "" {
				t.Errorf("%s %s of %s, %q, %v", q.Method, q.RequestURI, q.Host, *body.Load(), q.Header)
			}
			s.handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well, all") })
			r.healthy(0)
		})
	}
}

func TestWhatAResponseSaysOfItsHost(t *testing.T) {
	s := newServer(t, false)
	s.handle(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Envoy-Degraded", "true")
		w.Header().Set("X-Envoy-Upstream-Healthchecked-Cluster", "orders-v2")
	})
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) {
		h.ServiceName = &resource.StringMatch{Kind: resource.MatchPrefix, Value: "orders"}
		h.Retriable = []resource.StatusSpan{{From: 500, To: 501}}
	}), s.addr)
	until(t, "a degraded host", func() bool { return r.members.View().DegradedLen() == 1 })
	s.handle(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Envoy-Upstream-Healthchecked-Cluster", "orders-v2")
	})
	r.healthy(1)
	s.handle(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Envoy-Upstream-Healthchecked-Cluster", "billing")
	})
	r.healthy(0)
	if st := r.cluster.Stats(); st.VerifiedCluster < 3 || st.Degraded != 0 {
		t.Errorf("%+v", st)
	}
}

func TestAHungHostIsTimedOut(t *testing.T) {
	for name, check := range map[string]func(*resource.HealthCheck){
		"HTTP/1.1": func(*resource.HealthCheck) {},
		"HTTP/2":   func(h *resource.HealthCheck) { h.HTTP2 = true },
		"gRPC":     func(h *resource.HealthCheck) { h.Kind = resource.CheckGRPC },
		"TCP": func(h *resource.HealthCheck) {
			h.Kind, h.Send, h.Receive = resource.CheckTCP, []byte("x"), [][]byte{[]byte("y")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { check(h); h.Timeout = 50 * time.Millisecond }), addr)
			r.checked(2)
			if st := r.cluster.Stats(); st.Network < 2 || st.Network != st.Failures || !r.host().TimedOut() {
				t.Errorf("%+v, timed out: %v", st, r.host().TimedOut())
			}
		})
	}
}

func TestAnAnswerThatNeverEndsIsTimedOut(t *testing.T) {
	addr := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		_, _ = io.Copy(io.Discard, c)
	})
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Timeout = 50 * time.Millisecond }), addr)
	r.checked(1)
	if !r.host().Failed() || !r.host().TimedOut() {
		t.Error("half an answer is healthy")
	}
}

func TestAHostThatCannotBeReachedFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Kind = resource.CheckTCP }), addr)
	r.checked(1)
	if why := r.cluster.Explain(r.host()); !r.host().Failed() || !strings.Contains(why, "connection refused") {
		t.Errorf("explained as %q", why)
	}
}

func TestAnIdleConnectionThatTheHostHasClosedIsNoFailure(t *testing.T) {
	var conns atomic.Int32
	addr := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		conns.Add(1)
		q, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil && q.URL.Path == "/healthz" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	r := newRig(t, Config{}, Hooks{}, quick(func(*resource.HealthCheck) {}), addr)
	r.checked(5)
	if st := r.cluster.Stats(); st.Failures != 0 || conns.Load() < 5 {
		t.Errorf("%+v with %d connections", st, conns.Load())
	}
}

func TestAHostIsCheckedByGRPC(t *testing.T) {
	g, about := grpc.NewServer(), grpchealth.NewServer()
	healthv1.RegisterHealthServer(g, about)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Kind, h.Service, h.Host = resource.CheckGRPC, "orders", "o.example" }), l.Addr().String())
	r.checked(2)
	if why := r.cluster.Explain(r.host()); !strings.Contains(why, "gRPC status NotFound") {
		t.Errorf("explained as %q", why)
	}
	about.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	r.healthy(1)
	about.SetServingStatus("orders", healthv1.HealthCheckResponse_NOT_SERVING)
	r.healthy(0)
	if st := r.cluster.Stats(); st.Network != 0 {
		t.Errorf("an answer counts as a failure of the network: %+v", st)
	}
	g.Stop()
	until(t, "a failure of the network", func() bool { return r.cluster.Stats().Network > 0 })
}

func TestAHostIsCheckedByTCP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var answer atomic.Pointer[string]
	pong := "+PONG\r\n"
	answer.Store(&pong)
	var conns atomic.Int32
	serve := func(c net.Conn) {
		conns.Add(1)
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil || line != "PING\r\n" {
				return
			}
			_, _ = io.WriteString(c, *answer.Load())
		}
	}
	listen(t, "unix", path, serve)
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) {
		h.Kind, h.Send, h.Receive, h.Timeout = resource.CheckTCP, []byte("PING\r\n"), [][]byte{[]byte("PO"), []byte("NG")}, 100*time.Millisecond
	}), path)
	r.healthy(1)
	r.checked(5)
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
	other := "-LOADING\r\n"
	answer.Store(&other)
	r.healthy(0)
}

func TestEndpointsAreCheckedElsewhereOrNotAtAll(t *testing.T) {
	s := newServer(t, false)
	var host atomic.Pointer[string]
	s.handle(func(_ http.ResponseWriter, q *http.Request) { host.Store(&q.Host) })
	r := newRig(t, Config{}, Hooks{}, quick(func(*resource.HealthCheck) {}), "127.0.0.1:1", "127.0.0.1:2")
	a := endpoints("127.0.0.1:1", "127.0.0.1:2")
	_, port, _ := net.SplitHostPort(s.addr)
	e := a.Localities[0].Endpoints
	n, _ := net.LookupPort("tcp", port)
	e[0].Check = &resource.EndpointCheck{Port: uint16(n), Hostname: "own.example"}
	e[1].Check = &resource.EndpointCheck{Disabled: true}
	r.members.Update(r.res, a)
	r.healthy(2)
	if *host.Load() != "own.example" {
		t.Errorf("asked for %q", *host.Load())
	}
	// The port changes while a connection is kept: it is of no use by then.
	other := newServer(t, false)
	_, port, _ = net.SplitHostPort(other.addr)
	n, _ = net.LookupPort("tcp", port)
	b := endpoints("127.0.0.1:1", "127.0.0.1:2")
	b.Localities[0].Endpoints[0].Check = &resource.EndpointCheck{Port: uint16(n)}
	b.Localities[0].Endpoints[1].Check = e[1].Check
	r.members.Update(r.res, b)
	until(t, "the other port is checked", func() bool { return other.requests.Load() > 1 })
	if why := r.cluster.Explain(r.members.View().Hosts()[1]); !strings.Contains(why, "as the endpoint says") {
		t.Errorf("explained as %q", why)
	}
}

func degraded(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Envoy-Degraded", "true") }
