// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCountTellsWhenRequestsWereLost(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1000 + ms)) }
	samples := []sample{
		{at: at(0), took: time.Hour},
		{at: at(10), took: time.Millisecond},
		{at: at(15), err: "reset"},
		{at: at(20), err: "reset"},
		{at: at(25), took: 3 * time.Millisecond},
		{at: at(45), err: "status 503"},
		{at: at(60), idle: true, err: "EOF"},
		{at: at(60), idle: true, took: 5 * time.Millisecond},
	}
	r := count(samples, at(5), at(40))
	if r.Sent != 6 || r.Failed != 3 || r.Idle != 2 || r.IdleLost != 1 {
		t.Errorf("got %d sent, %d failed, %d idle, %d of them lost", r.Sent, r.Failed, r.Idle, r.IdleLost)
	}
	if r.Broken != 15*time.Millisecond || r.After != 5*time.Millisecond {
		t.Errorf("lost until %s, and %s after mending", r.Broken, r.After)
	}
	if r.P50 != 3*time.Millisecond || r.P99 != 5*time.Millisecond {
		t.Errorf("p50 %s and p99 %s: an answer from before the fault counts, or one is left out", r.P50, r.P99)
	}
	if !slices.Equal(r.Why, []string{"reset", "EOF", "status 503"}) {
		t.Errorf("reasons: %q", r.Why)
	}
	if r := count(samples[:4], at(5), time.Time{}); r.Broken != 15*time.Millisecond || r.After != 0 {
		t.Errorf("a fault that takes its own time: lost until %s, and %s after", r.Broken, r.After)
	}
}

func TestTheSumLeavesOutWhatNobodyCouldAnswer(t *testing.T) {
	r := &report{Rows: []result{
		{Proxy: "sidecar", Sent: 10, Failed: 1, Idle: 4, IdleLost: 2}, {Proxy: "sidecar", Sent: 5}, {Proxy: "sidecar", Sent: 9, Failed: 9, Hopeless: true}, {Proxy: "envoy", Sent: 7, Failed: 7},
	}}
	if got, want := r.sum("sidecar"), "sidecar: 1 of 15 requests lost under 2 faults, 2 of 4 idle connections"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (&report{}).sum("envoy"); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestOnlyTheSidecarsBarDecides(t *testing.T) {
	rows := []result{
		{Fault: "a", Proxy: "envoy", Bar: true, Failed: 1},
		{Fault: "b", Proxy: "sidecar", Failed: 1},
		{Fault: "c", Proxy: "sidecar", Bar: true, Sent: 7},
	}
	if err := (&report{Rows: rows}).verdict(); err != nil {
		t.Error(err)
	}
	for _, lost := range []result{{Fault: "d", Proxy: "sidecar", Bar: true, Failed: 1}, {Fault: "d", Proxy: "sidecar", Bar: true, IdleLost: 1}} {
		if err := (&report{Rows: append(rows, lost)}).verdict(); err == nil || !strings.Contains(err.Error(), "d: ") {
			t.Errorf("got %v for %+v", err, lost)
		}
	}
}

// TestAClientOpensAnotherConnectionOnlyWhereItIsTold: an answer with Connection: close
// loses nothing, a connection that ends without notice loses the request, and neither
// is sent twice.
func TestAClientOpensAnotherConnectionOnlyWhereItIsTold(t *testing.T) {
	calls := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- r.URL.Path
		if r.URL.Path == "/close" {
			w.Header().Set("Connection", "close")
		}
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	c := &client{address: server.Listener.Addr().String()}
	defer c.close()
	for _, path := range []string{"/close", "/", "/"} {
		if err := c.call(t.Context(), path); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if err := c.call(t.Context(), "/fail"); err == nil || err.Error() != "status 503" {
		t.Errorf("got %v, want the status", err)
	}
	if n := len(calls); n != 4 {
		t.Errorf("%d requests came, 4 were called", n)
	}
}

func TestAClientLosesWhatIsClosedWithoutNotice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ended := make(chan int)
	go func() { // ends with the one connection
		conn, err := l.Accept()
		if err != nil {
			close(ended)
			return
		}
		r := bufio.NewReader(conn)
		n := 0
		for req, err := http.ReadRequest(r); err == nil; req, err = http.ReadRequest(r) {
			_ = req.Body.Close()
			if n++; n == 2 {
				break
			}
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
		}
		_ = conn.Close()
		ended <- n
	}()
	c := &client{address: l.Addr().String()}
	defer c.close()
	if err := c.call(t.Context(), "/"); err != nil {
		t.Fatal(err)
	}
	if err := c.call(t.Context(), "/"); err == nil {
		t.Error("a request whose connection was closed is taken for answered")
	}
	if n := <-ended; n != 2 {
		t.Errorf("%d requests came, want 2: none is sent again", n)
	}
}

func TestEveryFaultCanBeNamed(t *testing.T) {
	seen := map[string]bool{}
	for i := range faults {
		f := &faults[i]
		if f.name == "" || f.what == "" || f.cause == nil || seen[f.name] {
			t.Errorf("fault %d (%q) has no name of its own, no text or no cause", i, f.name)
		}
		seen[f.name] = true
	}
	o := options{only: []string{"killed", "flood"}, proxies: []string{"sidecar", "nginx"}, rate: 0, conns: 1, last: time.Second, repeats: 1}
	err := o.validate()
	for _, want := range []string{`"flood" is none of killed`, `"nginx" is none of sidecar, envoy`, "--rate: must be 1 to 20000, is 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
