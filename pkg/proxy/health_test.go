// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// checkedOften are health checks 100 times a second.
func checkedOften() *resource.HealthCheck {
	const every = 10 * time.Millisecond
	return &resource.HealthCheck{
		Timeout: 5 * time.Second, Interval: every, NoTrafficInterval: every, NoTrafficHealthyInterval: every, UnhealthyInterval: every,
		UnhealthyEdgeInterval: every, HealthyEdgeInterval: every, UnhealthyThreshold: 1, HealthyThreshold: 1, ReuseConnection: true, Uneject: true,
		Path: "/healthz", Method: "GET", Expected: []resource.StatusSpan{{From: 200, To: 201}},
	}
}

// until waits for something to be so.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) healthy(cluster string, n int) {
	r.t.Helper()
	r.until("so many healthy endpoints", func() bool { return r.p.slots[cluster].spec.Load().lb.View().HealthyLen() == n })
}

// sick is a server of HTTP that can be told to fail its health checks.
type sick struct {
	addr   string
	status atomic.Int32
	header atomic.Pointer[string] // of other responses
	served atomic.Int32
}

func newSick(t *testing.T) *sick {
	s := new(sick)
	s.status.Store(200)
	s.addr = backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/healthz" {
			w.WriteHeader(int(s.status.Load()))
			return
		}
		s.served.Add(1)
		if h := s.header.Load(); h != nil {
			w.Header().Set(*h, "true")
		}
	})
	return s
}

func TestAnEndpointThatFailsItsHealthCheckGetsNoRequests(t *testing.T) {
	a, b := newSick(t), newSick(t)
	events := filepath.Join(t.TempDir(), "events")
	r := newRig(t, func(s *resource.Snapshot) {
		h := checkedOften()
		h.EventLog = events
		withCluster(s, "c", a.addr, b.addr).Health = h
	})
	r.healthy("c", 2)
	a.status.Store(503)
	r.healthy("c", 1)
	n := a.served.Load()
	for range 10 {
		r.get("/")
	}
	if a.served.Load() != n || b.served.Load() < 10 {
		t.Errorf("the one that fails got %d requests, the other %d", a.served.Load()-n, b.served.Load())
	}
	var text strings.Builder
	if err := r.p.WriteClusters(&text, false, nil); err != nil || !strings.Contains(text.String(), "c::"+a.addr+"::health_flags::/failed_active_hc\n") {
		t.Errorf("%v %s", err, text.String())
	}
	x, err := r.p.Explain(Query{Authority: "x"})
	if err != nil || !strings.Contains(x.Endpoints[0].Reason, "failed_active_hc: left out while others are healthy, health check ") || !strings.Contains(x.Endpoints[0].Reason, "ago: status 503") {
		t.Errorf("explained as %+v %v", x.Endpoints, err)
	}
	stats := r.stats()
	for name, least := range map[string]uint64{"attempt": 3, "success": 2, "failure": 1, "healthy": 1} {
		if got := stats["cluster.c.health_check."+name].Value; got < least {
			t.Errorf("%s is %d", name, got)
		}
	}
	if got := stats["cluster.c.membership_healthy"].Value; got != 1 {
		t.Errorf("%d are healthy", got)
	}
	r.until("the event", func() bool {
		log, _ := os.ReadFile(events)
		return strings.Contains(string(log), `"eject_unhealthy_event":{"failure_type":"ACTIVE","http_status_code":503}`)
	})
	a.status.Store(200)
	r.healthy("c", 2)
}

func TestHealthChecksComeAndGoWithTheConfiguration(t *testing.T) {
	a, b := newSick(t), newSick(t)
	a.status.Store(503)
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", a.addr, b.addr) })
	r.healthy("c", 2)
	c := *r.snap.Clusters["c"]
	c.Health = checkedOften()
	r.snap.Clusters["c"] = &c
	r.apply(r.snap)
	r.healthy("c", 1)
	// Another update does not lose what is known, and a new endpoint waits for its check.
	d := c
	d.IdleTimeout = time.Minute
	d.Health = checkedOften()
	d.Health.InitialJitter, d.Health.NoTrafficInterval, d.Health.NoTrafficHealthyInterval = time.Hour, time.Hour, time.Hour
	r.snap.Clusters["c"], r.snap.Assignments["c"] = &d, assignment("c", a.addr, b.addr, "127.0.0.1:1")
	r.apply(r.snap)
	hosts := r.p.slots["c"].spec.Load().lb.View().Hosts()
	if !hosts[0].Failed() || hosts[1].Failed() || !hosts[2].Failed() {
		t.Errorf("%v %v %v", hosts[0].Failed(), hosts[1].Failed(), hosts[2].Failed())
	}
	e := d
	e.Health = nil
	r.snap.Clusters["c"] = &e
	r.apply(r.snap)
	r.healthy("c", 3)
	r.snap.Clusters["c"] = &c
	r.apply(r.snap)
	r.until("checks", func() bool { return r.p.health.Use().Waiting+r.p.health.Use().Running > 0 })
	delete(r.snap.Clusters, "c")
	r.apply(r.snap)
	r.until("their end", func() bool { u := r.p.health.Use(); return u.Waiting+u.Running == 0 })
}

func TestAResponseCanFailItsEndpoint(t *testing.T) {
	a := newSick(t)
	name := "X-Envoy-Immediate-Health-Check-Fail"
	r := newRig(t, func(s *resource.Snapshot) {
		h := checkedOften()
		h.Interval, h.NoTrafficHealthyInterval = time.Hour, time.Hour
		withCluster(s, "c", a.addr).Health = h
	})
	r.healthy("c", 1)
	a.header.Store(&name)
	r.get("/")
	r.healthy("c", 0)
	if n := r.stats()["cluster.c.health_check.passive_failure"].Value; n != 1 {
		t.Errorf("passive_failure is %d", n)
	}
}

func TestAPassedHealthCheckTakesAnEjectedEndpointBack(t *testing.T) {
	down := atomic.Bool{}
	down.Store(true)
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/healthz" && down.Load() {
			w.WriteHeader(500)
		}
	})
	for _, on := range []bool{true, false} {
		r := newRig(t, func(s *resource.Snapshot) {
			c := withCluster(s, "c", addr)
			c.Health = checkedOften()
			c.Health.Uneject = on
			c.Outlier = &resource.OutlierDetection{Consecutive5xx: 1, Enforcing5xx: 100, Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100, UnejectChecked: on}
		})
		r.healthy("c", 1)
		r.get("/")
		r.until("the ejection", func() bool { return r.stats()["cluster.c.outlier_detection.ejections_enforced_total"].Value == 1 })
		n := r.stats()["cluster.c.health_check.success"].Value
		r.until("checks and merge ticks", func() bool { return r.stats()["cluster.c.health_check.success"].Value > n+20 })
		if on {
			r.healthy("c", 1)
		} else if h := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]; !h.Ejected() {
			t.Error("taken back though the configuration says not to")
		}
	}
}

func TestConnectionsEndWithTheirEndpointsHealth(t *testing.T) {
	for _, on := range []bool{true, false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
			}
		}()
		t.Cleanup(func() { _ = l.Close() })
		health := newSick(t)
		_, port, _ := net.SplitHostPort(health.addr)
		n, _ := net.LookupPort("tcp", port)
		r := newRig(t, func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: tcpTo("c")}
			c := withCluster(s, "c", l.Addr().String())
			c.Health, c.CloseOnHealthFailure = checkedOften(), on
			s.Assignments["c"].Localities[0].Endpoints[0].Check = &resource.EndpointCheck{Port: uint16(n)}
		})
		r.healthy("c", 1)
		c := r.dial()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		echo := func() error {
			if _, err := io.WriteString(c, "x"); err != nil {
				return err
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			return err
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		health.status.Store(503)
		r.healthy("c", 0)
		if !on {
			if err := echo(); err != nil {
				t.Errorf("close_connections_on_host_health_failure is off: %v", err)
			}
			continue
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("close_connections_on_host_health_failure is on: %v", err)
		}
	}
}

func TestHealthChecksAreSecuredAsRequestsAre(t *testing.T) {
	m := newMint(t)
	for _, trusted := range []bool{true, false} {
		for name, over2 := range map[string]bool{"http/1.1": false, "h2": true} {
			var peer, protocol, scheme atomic.Pointer[string]
			ts := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
				id, alpn := q.TLS.PeerCertificates[0].URIs[0].String(), q.TLS.NegotiatedProtocol
				peer.Store(&id)
				protocol.Store(&alpn)
				scheme.Store(&q.Proto)
			}))
			ts.TLS = m.config(m.issue(shopID, time.Now().Add(time.Hour)))
			ts.TLS.ClientAuth = tls.RequireAndVerifyClientCert
			ts.TLS.NextProtos = []string{"h2", "http/1.1"}
			ts.Config.Protocols = new(http.Protocols)
			ts.Config.Protocols.SetHTTP1(true)
			ts.Config.Protocols.SetHTTP2(true)
			ts.EnableHTTP2 = true
			ts.StartTLS()
			t.Cleanup(ts.Close)
			r := newRig(t, func(s *resource.Snapshot) {
				c := withCluster(s, "c", ts.Listener.Addr().String())
				v := m.trust(shopID)
				if !trusted {
					v = m.trust(webID)
				}
				tls := &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{m.issue(webID, time.Now().Add(time.Hour))}, Validation: v}, MaxSessionKeys: 1}
				// The criteria choose it, though no metadata of the endpoint does.
				c.SocketMatches = []resource.SocketMatch{{Name: "tls", Match: map[string]string{"mutualTLS": "true"}, TLS: tls}}
				c.Health = checkedOften()
				c.Health.HTTP2, c.Health.MatchCriteria = over2, map[string]string{"mutualTLS": "true"}
			})
			if !trusted {
				r.until("a failure", func() bool { return r.stats()["cluster.c.health_check.network_failure"].Value > 1 })
				if peer.Load() != nil {
					t.Error("a check went to whom the cluster does not trust")
				}
				continue
			}
			r.healthy("c", 1)
			if *peer.Load() != webID || *protocol.Load() != name {
				t.Errorf("over %s: %s, %s, %s", name, *peer.Load(), *protocol.Load(), *scheme.Load())
			}
		}
	}
}
