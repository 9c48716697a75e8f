// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

const preface = http2.ClientPreface

// settings is an empty SETTINGS frame.
const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// closedInTime waits for the proxy's end of c.
func closedInTime(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(calm))
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("still open: %v", err)
	}
}

// What a connection begins with has the time of a head, all of it together: PROXY
// header, ClientHello, preface, SETTINGS, and a header block that goes on and on
// (slowloris; CVE-2026-56853 of Go, whose time began only with the preface).
func TestSlowBeginningsOfHTTP2AreEnded(t *testing.T) {
	block := settings + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" // HEADERS without END_HEADERS
	quick := "request_headers_timeout: 1s"
	for name, c := range map[string]struct {
		g     target
		first string
		hello bool // after a handshake
	}{
		"nothing":                      {first: "", g: target{Manager: quick}},
		"a byte of a preface":          {first: "P", g: target{Manager: quick}},
		"all but a byte of a preface":  {first: preface[:23], g: target{Manager: quick}},
		"no SETTINGS":                  {first: preface, g: target{Manager: quick}},
		"a part of SETTINGS":           {first: preface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00", g: target{Manager: quick}},
		"a part of a frame's head":     {first: preface + settings + "\x00\x00", g: target{Manager: quick}},
		"a part of HEADERS":            {first: preface + settings + "\x00\x01\x00\x01\x05\x00\x00\x00\x01\x82", g: target{Manager: quick}},
		"a block without its end":      {first: preface + block, g: target{Manager: quick}},
		"nothing, HTTP/2 only":         {first: "", g: target{Manager: "codec_type: HTTP2\n          " + quick}},
		"no SETTINGS, HTTP/2 only":     {first: preface, g: target{Manager: "codec_type: HTTP2\n          " + quick}},
		"a part of a ClientHello":      {first: "\x16\x03\x01\x02", g: target{Secure: true}},
		"no ClientHello":               {first: "", g: target{Secure: true}},
		"nothing over TLS":             {hello: true, first: "", g: target{Secure: true, Manager: quick}},
		"a part of a preface over TLS": {hello: true, first: preface[:5], g: target{Secure: true, Manager: quick}},
		"a block without its end, TLS": {hello: true, first: preface + block, g: target{Secure: true, Manager: quick}},
		"a part of a PROXY header":     {first: "PROXY TCP4 1", g: target{Listener: proxyProtocol}},
		"a part of a PROXY header, v2": {first: "\r\n\r\n\x00\r\nQUIT\n\x21\x11", g: target{Listener: proxyProtocol}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.g.Upstream = hostile(t, answerOrHold)
			p := start(t, c.g)
			conn, err := net.Dial("tcp", p.addr)
			must(t, err)
			defer func() { _ = conn.Close() }()
			if c.hello {
				s := tls.Client(conn, clientTLS("h2"))
				must(t, s.Handshake())
				conn = s
			}
			_, err = io.WriteString(conn, c.first)
			must(t, err)
			closedInTime(t, conn)
		})
	}
}

// proxyProtocol makes a listener want a PROXY header within a second.
const proxyProtocol = `listener_filters: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]
    listener_filters_timeout: 1s`

// Frames that end in time do not make a header block end in time.
func TestAHeaderBlockThatTricklesInIsEnded(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, answerOrHold), Manager: "request_headers_timeout: 1s"})
	h := p.http2(false)
	beginBlock(h)
	h.send()
	began := time.Now()
	for i := 0; ; i++ {
		select {
		case <-h.over:
			if n := p.stat("http.main.downstream_rq_header_timeout"); n != 1 || i > 8 {
				t.Errorf("counted %d times, after %d frames and %v", n, i, time.Since(began))
			}
			return
		case <-time.After(300 * time.Millisecond):
			if i < 7 { // more would be a flood
				_ = h.f.WriteContinuation(1, false, []byte("\x00\x01x\x01y"))
				h.send()
			}
		}
		if time.Since(began) > calm {
			t.Fatal("still open")
		}
	}
}

// A body that does not come ends its request, and not those beside it (RUDY).
func TestASlowBodyOfHTTP2EndsItsStreamOnly(t *testing.T) {
	for name, g := range map[string]target{
		"nothing":        {Manager: "stream_idle_timeout: 1s"},
		"byte by byte":   {Manager: "request_timeout: 1s"},
		"empty by empty": {Manager: "request_timeout: 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g.Upstream = hostile(t, answerOrHold)
			p := start(t, g)
			h := p.http2(false)
			slow := h.request(false, post("/x")...)
			h.send()
			stop := make(chan struct{})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for tick := time.NewTicker(100 * time.Millisecond); ; {
					select {
					case <-stop:
						tick.Stop()
						return
					case <-tick.C:
					}
					switch name {
					case "byte by byte":
						_ = h.f.WriteData(slow, false, []byte("x"))
					case "empty by empty":
						_ = h.f.WriteData(slow, false, nil)
					}
					h.send()
				}
			}()
			h.saw("the slow request's end", func() bool { return h.status[slow] == "408" })
			close(stop)
			<-ended
			other := h.request(true, get("/x")...)
			h.send()
			h.saw("the other's answer", func() bool { return h.status[other] == "200" })
		})
	}
}

// Readers that take nothing, or a byte now and then, are ended by the time without
// progress, and what they hold is given back (CVE-2020-12603, CVE-2019-9517).
func TestStalledReadersOfHTTP2AreEnded(t *testing.T) {
	for name, g := range backends(t) {
		for _, how := range []string{"a window of 0", "a window of 1", "nothing read"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				g.Manager, g.Action = "stream_idle_timeout: 1s\n          common_http_protocol_options: {idle_timeout: 1s}", "timeout: 0s"
				p := start(t, g)
				p.warm(false)
				before := p.memory()
				h := p.raw(false)
				_ = h.c.(*net.TCPConn).SetReadBuffer(4 << 10)
				h.out.WriteString(preface)
				window := map[string]uint32{"a window of 0": 0, "a window of 1": 1, "nothing read": 1<<31 - 1}[how]
				must(t, h.f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
				for range 50 {
					h.request(true, get("/big")...)
				}
				h.send()
				p.watchOver(false, "/x")
				eventually(t, "the requests have come", func() bool { return p.stat("cluster.c.upstream_rq_active") >= 50 })
				if how == "nothing read" {
					eventuallyCalm(t, "all are given up", func() bool { return p.stat("http.main.downstream_rq_idle_timeout") >= 50 })
				} else {
					go h.read(h.c)
					h.saw("the end of all", func() bool { return len(h.resets) == 50 })
				}
				eventuallyCalm(t, "the upstream is left alone", func() bool { return p.stat("cluster.c.upstream_rq_active") <= 1 })
				if grown := p.memory() - before; grown > mostGrowth {
					t.Errorf("the sidecar has grown by %d MiB", grown>>20)
				}
			})
		}
	}
}

// eventuallyCalm is eventually with calm's patience.
func eventuallyCalm(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(calm); !ok(); {
		if time.Now().After(limit) {
			t.Fatalf("not within %s: %s", calm, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A listener takes as many connections as it is told to, and serves those it has.
func TestConnectionsBeyondTheLimitAreRefusedAndCounted(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, answerOrHold), Before: connectionLimit})
	eventually(t, "the first look is over", func() bool { return p.stat("http.main.downstream_cx_active") == 0 })
	var held []*http2Peer
	for range 10 {
		h := p.http2(false)
		h.saw("its settings", func() bool { return len(h.got) > 0 })
		held = append(held, h)
	}
	for range 20 {
		c := p.dial()
		if n, err := io.WriteString(c, preface); err == nil && n > 0 {
			closedInTime(t, c)
		}
	}
	for _, h := range held {
		id := h.request(true, get("/x")...)
		h.send()
		h.saw("an answer", func() bool { return h.status[id] == "200" })
	}
	name := "listener." + strings.ReplaceAll(p.addr, ":", "_") + ".downstream_cx_overflow"
	eventually(t, "the refused are counted", func() bool { return p.stat(name) == 20 })
	_ = held[0].c.Close()
	eventually(t, "a place is free", func() bool {
		return strings.HasPrefix(p.say(last), "HTTP/1.1 200 ")
	})
}

const connectionLimit = `{name: l, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 10}}`
