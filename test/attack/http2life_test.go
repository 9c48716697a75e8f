// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// D4: a client that has gone without a word is found out by a PING, and its
// connection is closed; one that answers stays.
func TestAKeepAlivePINGFindsClientsThatAreGone(t *testing.T) {
	p := start(t, target{
		Upstream: hostile(t, answerOrHold),
		Manager:  "http2_protocol_options: {connection_keepalive: {interval: 0.5s, timeout: 2s}}",
	})
	gone, alive := p.http2(false), p.http2(false)
	hold := gone.request(true, get("/hold")...)
	gone.send()
	pings := 0
	for open := true; open; {
		alive.mu.Lock()
		pings += len(alive.pings)
		alive.mu.Unlock()
		alive.pong()
		select {
		case <-gone.over:
			open = false
		case <-alive.over:
			t.Fatal("a client that answers was closed")
		case <-time.After(20 * time.Millisecond):
		}
	}
	if gone.status[hold] != "" || pings == 0 {
		t.Errorf("answered %q, %d pings to the other", gone.status[hold], pings)
	}
	if n := p.stat("outrigger.http2.keepalive_timeout_total"); n != 1 {
		t.Errorf("counted %d times", n)
	}
	eventuallyCalm(t, "its request is given up", func() bool { return p.stat("cluster.c.upstream_rq_active") == 0 })
	id := alive.request(true, get("/x")...)
	alive.send()
	alive.saw("an answer", func() bool { return alive.status[id] == "200" })
}

// D4: an upstream that has gone without a word is found out by a PING: what waits
// for it fails, or is asked of another connection, long before any other timeout.
func TestAKeepAlivePINGFindsUpstreamsThatAreGone(t *testing.T) {
	p := start(t, target{
		Upstream: upstreamHTTP2(t, func(s *scripted) {
			if s.n > 0 {
				s.honest()
				return
			}
			for { // reads all, says nothing
				if _, err := s.in.ReadFrame(); err != nil {
					return
				}
			}
		}),
		Cluster: "http2_protocol_options: {connection_keepalive: {interval: 0.5s, timeout: 1s}}",
		Action:  "timeout: 0s",
	})
	allServed(t, p.askAll(5), 5)
	if n := p.stat("cluster.c.http2.keepalive_timeout"); n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// A sidecar that is told to end asks its clients to go in two steps (RFC 9113 §6.8):
// no stream that is on its way meanwhile is lost.
func TestADrainTakesTwoGOAWAYsAndLosesNoRequest(t *testing.T) {
	for _, transport := range []string{"cleartext", "TLS"} {
		t.Run(transport, func(t *testing.T) {
			p := start(t, target{
				Upstream: http2Backend(t), Cluster: overHTTP2, Secure: transport == "TLS",
				Args: []string{"--drain-time-s", "20"},
			})
			h := p.http2(transport == "TLS")
			ask := func(n int) {
				for range n {
					h.request(true, get("/x")...)
				}
				h.send()
			}
			ask(20)
			must(t, syscall.Kill(p.pid, syscall.SIGTERM))
			for asked := false; !asked; {
				ask(1)
				h.mu.Lock()
				asked = h.goAway != nil
				h.mu.Unlock()
				<-time.After(time.Millisecond)
			}
			if h.last != 1<<31-1 || *h.goAway != http2.ErrCodeNo {
				t.Errorf("the first GOAWAY: %d %v", h.last, *h.goAway)
			}
			ask(20) // on their way as it came
			h.saw("a PING", func() bool { return len(h.pings) > 0 })
			h.pong()
			if code, err := h.ended(); err != nil || code != http2.ErrCodeNo {
				t.Errorf("ended with %v %v", code, err)
			}
			if h.last != h.next-2 {
				t.Errorf("the last GOAWAY: %d, sent up to %d", h.last, h.next-2)
			}
			for id := uint32(1); id < h.next; id += 2 {
				if h.status[id] != "200" || h.data[id] == 0 {
					t.Errorf("stream %d: %q, %d bytes, reset %v", id, h.status[id], h.data[id], h.resets[id])
				}
			}
			select {
			case <-p.ended:
			case <-time.After(calm):
				t.Error("the sidecar still runs")
			}
		})
	}
}

// Well-behaved clients do not notice the drain of another sidecar's connection: what
// a GOAWAY of their own server says they follow by themselves.
func TestAClientOfGoFollowsTheAgeOfItsConnection(t *testing.T) {
	p := start(t, target{
		Upstream: hostile(t, answerOrHold),
		Manager:  "common_http_protocol_options: {max_requests_per_connection: 7}",
	})
	c := p.client(false)
	for range 100 {
		p.fetch(c, "/x")
	}
	if n := p.stat("http.main.downstream_cx_http2_total"); n < 10 {
		t.Errorf("%d connections for 100 requests", n)
	}
}
