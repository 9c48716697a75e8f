// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const blackholeBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            name: r
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: /h1}, route: {cluster: h1, timeout: 1s}}
              - {match: {prefix: /}, route: {cluster: h2, timeout: 0s, retry_policy: {retry_on: "connect-failure,refused-stream,reset", num_retries: 3, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], host_selection_retry_max_attempts: 5}}}
  clusters:
  - name: h1
    type: STATIC
    connect_timeout: 0.5s
    load_assignment: {cluster_name: h1, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.77.0.2, port_value: 8001}}}}, {endpoint: {address: {socket_address: {address: 10.77.0.2, port_value: 8002}}}}]}]}
  - name: h2
    type: STATIC
    connect_timeout: 0.5s
    http2_protocol_options: {connection_keepalive: {interval: 0.5s, timeout: 0.5s}}
    load_assignment: {cluster_name: h2, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.77.0.2, port_value: 8001}}}}, {endpoint: {address: {socket_address: {address: 10.77.0.2, port_value: 8002}}}}]}]}
`

// holder answers with its name; what asks for a path with "hold" in it waits until it is
// let go.
type holder struct {
	held chan string
	free chan struct{}
}

func (h *holder) serve(t *testing.T, w *world, port string) {
	t.Helper()
	var l net.Listener
	in(t, w.peer, who{}, func() (err error) {
		l, err = net.Listen("tcp", peerV4+":"+port)
		return err
	})
	s := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "hold") {
			h.held <- port
			select {
			case <-h.free:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(rw, port)
	})}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { _ = s.Close(); <-ended })
}

// ask sends a request from the application's namespace and returns status and body.
func (w *world) ask(t *testing.T, path string) (status int, body string, took time.Duration) {
	began := time.Now()
	c, err := w.dial(t, w.app, application, "127.0.0.1:15001")
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), time.Since(began)
	}
	return res.StatusCode, string(b), time.Since(began)
}

// TestAnUpstreamBehindABlackHoleIsFoundOut drops every packet from and to one of two
// instances, with requests under way: PINGs find that out where the protocol has them,
// and the timeout where it has none; new connections time out; all that may is asked of
// the other. When packets flow again, so do requests.
func TestAnUpstreamBehindABlackHoleIsFoundOut(t *testing.T) {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("iptables is not installed")
	}
	w := newWorld(t)
	h := &holder{held: make(chan string, 64), free: make(chan struct{})}
	h.serve(t, w, "8001")
	h.serve(t, w, "8002")
	path := filepath.Join(folder(t, application), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(blackholeBootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(t, w.app, application, sidecarBinary, "-c", path, "--concurrency", "1", "--drain-time-s", "1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := map[string]bool{}
	for len(seen) < 2 {
		if _, body, _ := w.ask(t, "/"); body == "8001" || body == "8002" {
			seen[body] = true
		}
		if ctx.Err() != nil {
			t.Fatalf("answers of %v only", seen)
		}
	}
	drop := func(how string) {
		for _, rule := range [][]string{{"INPUT", "--dport"}, {"OUTPUT", "--sport"}} {
			run(t, "ip", "netns", "exec", w.peer, "iptables", how, rule[0], "-p", "tcp", rule[1], "8001", "-j", "DROP")
		}
	}
	const n = 8
	type result struct {
		status int
		body   string
		took   time.Duration
	}
	send := func(path string) chan result {
		out := make(chan result, n)
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				status, body, took := w.ask(t, path)
				out <- result{status, body, took}
			})
		}
		go func() { all.Wait(); close(out) }() // ends with the requests
		return out
	}
	// What waits at both, by each protocol.
	two, one := send("/hold"), send("/h1/hold")
	at := map[string]int{}
	for range 2 * n {
		select {
		case port := <-h.held:
			at[port]++
		case <-ctx.Done():
			t.Fatalf("only %v requests came", at)
		}
	}
	drop("-A")
	began := time.Now()
	close(h.free) // those at 8002 are answered, those at 8001 would be
	timedOut := 0
	for r := range one {
		switch {
		case r.status == 200 && r.body == "8002":
		case r.status == 504:
			timedOut++
		default:
			t.Errorf("HTTP/1.1: %+v", r)
		}
	}
	slowest := time.Duration(0)
	for r := range two {
		if r.status != 200 || r.body != "8002" {
			t.Errorf("HTTP/2: %+v, want an answer of the other", r)
		}
	}
	found := time.Since(began)
	if timedOut == 0 || at["8001"] == 0 {
		t.Errorf("%v requests were held, %d timed out", at, timedOut)
	}
	// New connections into the hole end with the connect timeout, and go elsewhere.
	for range 6 {
		status, body, took := w.ask(t, "/")
		if slowest = max(slowest, took); status != 200 || body != "8002" {
			t.Errorf("meanwhile: %d %q", status, body)
		}
	}
	if k := w.stat(t, "cluster.h2.http2.keepalive_timeout"); k != 1 {
		t.Errorf("%d connections were given up for want of a PING's answer, want 1", k)
	}
	if k := w.stat(t, "cluster.h2.upstream_cx_connect_timeout"); k == 0 {
		t.Error("no connect timed out")
	}
	drop("-D")
	for back := false; !back; {
		_, body, _ := w.ask(t, "/")
		if back = body == "8001"; ctx.Err() != nil {
			t.Fatal("nothing comes from the instance that is back")
		}
	}
	t.Logf("CONFORMANCE D4 %d requests under way, %d of them into a black hole: by HTTP/2 all answered by the other %v after it (interval and timeout of 0.5 s each), by HTTP/1.1 %d answered 504 after 1 s; new requests answered by the other, the slowest after %v (connect timeout 0.5 s)",
		2*n, at["8001"], found.Round(10*time.Millisecond), timedOut, slowest.Round(10*time.Millisecond))
}
