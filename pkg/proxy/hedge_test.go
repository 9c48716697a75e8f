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

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// reply is what an endpoint of a hedging test says to one request.
type reply struct {
	after  time.Duration // 0: never
	status int           // 0: it resets the connection
}

func (p reply) send(w *sim.World, to *sim.Peer) {
	if p.after == 0 {
		return
	}
	w.At(p.after, func() {
		if p.status == 0 {
			to.Reset()
			return
		}
		to.Write(fmt.Appendf(nil, "HTTP/1.1 %d X\r\ncontent-length: 3\r\n\r\n%03d", p.status, p.status))
	})
}

// hedging makes the route hedge after 100 ms, at a virtual cluster of two endpoints.
func hedging(s *resource.Snapshot, retries int) *resource.Cluster {
	c := withCluster(s, "c", "10.0.0.8:80", "10.0.0.9:80")
	a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
	a.Timeout = 2 * time.Second
	a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
	a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: retries, BaseInterval: 20 * time.Millisecond, PerTryTimeout: 100 * time.Millisecond}
	return c
}

// Each case says what the attempts get in their order, what the client gets and when,
// and how the attempts ended.
func TestTheFirstGoodAnswerOfHedgedAttemptsWins(t *testing.T) {
	ms := time.Millisecond
	const big = 100_000 // more than is kept for a retry
	for _, tt := range []struct {
		name     string
		edit     func(*resource.Cluster)
		header   string
		body     int
		retries  int
		replies  []reply
		want     int
		from, to time.Duration

		hedges, timedOut, answered, reset, cancelled int
	}{
		{name: "in time: nothing is hedged", retries: 1, replies: []reply{{50 * ms, 200}}, want: 200, from: 50 * ms, to: 60 * ms, answered: 1},
		{name: "the second", retries: 1, replies: []reply{{0, 0}, {30 * ms, 201}}, want: 201, from: 130 * ms, to: 165 * ms, hedges: 1, answered: 1, timedOut: 1},
		{name: "the first, late", retries: 1, replies: []reply{{150 * ms, 200}, {0, 0}}, want: 200, from: 150 * ms, to: 160 * ms, hedges: 1, answered: 1, cancelled: 1},
		{name: "the second is bad", retries: 1, replies: []reply{{300 * ms, 200}, {30 * ms, 503}}, want: 200, from: 300 * ms, to: 310 * ms, hedges: 1, answered: 2},
		{name: "the first is bad", retries: 1, replies: []reply{{150 * ms, 503}, {90 * ms, 200}}, want: 200, from: 190 * ms, to: 230 * ms, hedges: 1, answered: 2},
		{name: "both are bad", retries: 1, replies: []reply{{300 * ms, 502}, {30 * ms, 503}}, want: 502, from: 300 * ms, to: 310 * ms, hedges: 1, answered: 2},
		{name: "the second is reset", retries: 1, replies: []reply{{300 * ms, 200}, {30 * ms, 0}}, want: 200, from: 300 * ms, to: 310 * ms, hedges: 1, answered: 1, reset: 1},
		{name: "the first is reset", retries: 1, replies: []reply{{150 * ms, 0}, {90 * ms, 200}}, want: 200, from: 190 * ms, to: 230 * ms, hedges: 1, answered: 1, reset: 1},
		{name: "the third", retries: 2, replies: []reply{{0, 0}, {0, 0}, {30 * ms, 200}}, want: 200, from: 230 * ms, to: 330 * ms, hedges: 2, answered: 1, timedOut: 2},
		{name: "none", retries: 1, replies: []reply{{0, 0}, {0, 0}}, want: 504, from: 2000 * ms, to: 2010 * ms, hedges: 1, timedOut: 2},
		{name: "no retry is left: the first goes on", retries: 0, replies: []reply{{300 * ms, 200}}, want: 200, from: 300 * ms, to: 310 * ms, answered: 1},
		{name: "a body that is no longer whole: the first goes on", retries: 1, body: big, replies: []reply{{300 * ms, 200}}, want: 200, from: 320 * ms, to: 340 * ms, answered: 1},
		{name: "no retry is allowed", edit: func(c *resource.Cluster) { c.Default.MaxRetries = 0 }, retries: 1, replies: []reply{{300 * ms, 200}}, want: 200, from: 300 * ms, to: 310 * ms, answered: 1},
		{name: "no other request is allowed", edit: func(c *resource.Cluster) { c.Default.MaxRequests = 1 }, retries: 1, replies: []reply{{300 * ms, 200}}, want: 200, from: 300 * ms, to: 310 * ms, hedges: 1, answered: 1},
		{name: "the request does not want it", header: "x-envoy-hedge-on-per-try-timeout: false\r\n", retries: 1, replies: []reply{{150 * ms, 500}, {30 * ms, 200}}, want: 200, from: 130 * ms, to: 165 * ms, answered: 1, timedOut: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSim(t, 3, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
				c := hedging(s, tt.retries)
				c.Breaker = &resource.CircuitBreaker{Enabled: true, ErrorThresholdPercent: 100, RequestVolumeThreshold: 100, Window: 10 * time.Second, Buckets: 10, Count5xx: true, CountTimeout: true, CountReset: true}
				if tt.edit != nil {
					tt.edit(c)
				}
			})
			sent, hosts := 0, map[string]bool{}
			for _, addr := range []string{"10.0.0.8:80", "10.0.0.9:80"} {
				r.serve(addr, func(p *sim.Peer, _ string) {
					if sent == len(tt.replies) {
						t.Error("one attempt more than expected")
						return
					}
					hosts[addr] = true
					tt.replies[sent].send(r.world, p)
					sent++
				})
			}
			c := r.dial()
			c.Write(fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n", tt.header, tt.body))
			if tt.body > 0 { // when the head has gone on
				r.world.At(20*ms, func() { c.Write([]byte(strings.Repeat("x", tt.body))) })
			}
			start := r.world.Now()
			r.until("the answer", 10*time.Second, func() bool { return len(c.Received) > 0 })
			took := r.world.Now() - start
			if got := string(c.Received); !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", tt.want)) || strings.Count(got, "HTTP/1.1") != 1 {
				t.Errorf("got %q, want one %d", got, tt.want)
			}
			if took < tt.from || took > tt.to {
				t.Errorf("answered after %v, want %v to %v", took, tt.from, tt.to)
			}
			if len(hosts) != min(sent, 2) {
				t.Errorf("%d attempts went to %d endpoints", sent, len(hosts))
			}
			if err := r.world.Run(5 * time.Second); err != nil {
				t.Fatal(err)
			}
			r.settled()
			spec := r.p.slots["c"].spec.Load()
			var total, success, failed, timeouts uint64
			for _, h := range spec.lb.View().Hosts() {
				total += h.Stats.RqTotal.Load()
				success += h.Stats.RqSuccess.Load()
				failed += h.Stats.RqError.Load()
				timeouts += h.Stats.RqTimeout.Load()
			}
			st := &r.p.workers[0].clusterOn(r.p.slots["c"]).stats
			if got, want := [...]int{int(st.hedges), int(timeouts), int(success + failed), int(st.rqCancelled)}, [...]int{tt.hedges, tt.timedOut, tt.answered + tt.reset, tt.cancelled}; got != want || int(st.rqRxReset) != tt.reset {
				t.Errorf("hedged, timed out, ended by the endpoint, cancelled: %v, want %v; %d reset, want %d", got, want, st.rqRxReset, tt.reset)
			}
			if ended := success + failed + timeouts + st.rqCancelled; total != uint64(sent) || ended != total {
				t.Errorf("%d attempts came, %d are counted and %d ended", sent, total, ended)
			}
			m := spec.circuit.Metrics(int64(r.world.Now()))
			if n := m.Total[breaker.Success] + m.Total[breaker.Failure] + m.Total[breaker.Timeout] + m.Total[breaker.BadRequest]; n != total {
				t.Errorf("the circuit heard of %d attempts of %d", n, total)
			}
		})
	}
}

func TestAClientThatGoesEndsHedgedAttempts(t *testing.T) {
	r := newSim(t, 4, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) { hedging(s, 3) })
	sent := 0
	for _, addr := range []string{"10.0.0.8:80", "10.0.0.9:80"} {
		r.serve(addr, func(*sim.Peer, string) { sent++ })
	}
	c := r.dial()
	c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	r.until("three attempts", time.Second, func() bool { return sent == 3 })
	c.Reset()
	if err := r.world.Run(time.Second); err != nil {
		t.Fatal(err)
	}
	if sent != 3 {
		t.Errorf("%d attempts, the last of a client that had gone", sent)
	}
	r.settled()
}

// Of HTTP/2, the attempts at one endpoint are streams of one connection, and one wins
// while that is being read.
func TestHedgedStreamsOfOneConnection(t *testing.T) {
	var n atomic.Int64
	late := make(chan struct{})
	gone := make(chan struct{}, 100)
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		if n.Add(1)%2 == 1 {
			select {
			case <-q.Context().Done():
				gone <- struct{}{}
			case <-late:
			}
			return
		}
		io.WriteString(w, "second")
	})
	defer close(late)
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", b)
		c.HTTP2 = true
		a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
		a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
		a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 1, BaseInterval: time.Millisecond, PerTryTimeout: 20 * time.Millisecond}
	})
	for range 10 {
		if resp, body := r.get("/"); resp.StatusCode != http.StatusOK || body != "second" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
		<-gone // the other stream was reset
	}
	if got := statsOf(t, r); got["outrigger.cluster.c.hedges_total"] != 10 || got["cluster.c.upstream_cx_total"] != 1 {
		t.Errorf("%d hedges on %d connections", got["outrigger.cluster.c.hedges_total"], got["cluster.c.upstream_cx_total"])
	}
}
