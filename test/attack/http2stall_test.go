// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// overHTTP2 is a cluster that speaks HTTP/2 without TLS.
const overHTTP2 = "http2_protocol_options: {}"

// http2Backend is an honest server of HTTP/2: /big?n= has no end, all else is short.
func http2Backend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var s http.Server
	s.Protocols = new(http.Protocols)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/big" {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "hello")
			return
		}
		piece := make([]byte, 16<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// backends are what a stalled client's requests may end at.
func backends(t *testing.T) map[string]target {
	return map[string]target{
		"HTTP/1.1": {Upstream: hostile(t, endless)},
		"HTTP/2":   {Upstream: http2Backend(t), Cluster: overHTTP2},
	}
}

// Clients whose windows stay shut hold bounded memory and nobody else up: also not
// those whose requests share the connection to the upstream (CVE-2019-9517,
// CVE-2020-12604).
func TestWindowsThatStayShutHoldUpNobodyElse(t *testing.T) {
	for name, g := range backends(t) {
		t.Run(name, func(t *testing.T) {
			g.Action = "timeout: 0s" // nothing but the idle time would end them
			p := start(t, g)
			p.warm(false)
			before := p.memory()
			h := p.http2(false, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			const stalled = 50 // fewer than streams of a connection to the upstream
			for range stalled {
				h.request(true, get("/big")...)
			}
			h.send()
			h.saw("every response's head", func() bool { return len(h.status) == stalled })
			c := p.client(false)
			for range 20 {
				p.fetch(c, "/x")
			}
			if grown := p.memory() - before; grown > mostGrowth {
				t.Errorf("the sidecar has grown by %d MiB", grown>>20)
			}
		})
	}
}

// fetch gets a short response in calm's time.
func (p *proxy) fetch(c *http.Client, path string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), calm)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.origin(false)+path, nil)
	must(p.t, err)
	resp, err := c.Do(req)
	must(p.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || len(body) == 0 {
		p.t.Fatalf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(body), err)
	}
}

// endless answers /big with a body that has no end, all else shortly.
func endless(_ int, c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
		if req.URL.Path == "/big" {
			answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
		for piece := "4000\r\n" + strings.Repeat("b", 0x4000) + "\r\n"; req.URL.Path == "/big"; {
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	}
}
