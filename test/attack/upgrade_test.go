// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	websocket = "upgrade_configs: [{upgrade_type: websocket}]"
	handshake = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	switched  = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
)

// wiretap is a backend that keeps all bytes it is sent, and answers the first
// head with raw bytes; it answers nothing else.
type wiretap struct {
	mu     sync.Mutex
	got    strings.Builder
	ended  bool // the proxy has ended the connection: no more comes
	answer string
}

func (w *wiretap) serve(_ int, c net.Conn) {
	in := bufio.NewReader(c)
	for answered := false; ; {
		line, err := in.ReadString('\n')
		w.mu.Lock()
		w.got.WriteString(line)
		w.ended = err != nil
		w.mu.Unlock()
		if err != nil {
			return
		}
		if line == "\r\n" && !answered {
			answered = true
			_, _ = io.WriteString(c, w.answer)
		}
	}
}

func (w *wiretap) seen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}

// unanswered sends raw bytes to a proxy whose endpoint says nothing. It returns what
// the client was answered by the time that the proxy had done all that it does, and
// all that the endpoint has got.
func (p *proxy) unanswered(w *wiretap, raw string) (answered, seen string) {
	p.t.Helper()
	c := p.dial().(*net.TCPConn)
	_, _ = io.WriteString(c, raw)
	eventually(p.t, "the endpoint has the head", func() bool { return strings.Contains(w.seen(), "\r\n\r\n") })
	// Each look at statistics goes through every loop, behind what had come before: the
	// second is answered when what the first met is written.
	for range 2 {
		p.stat("http.main.downstream_rq_active")
	}
	buf := make([]byte, 64<<10)
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Read(func(fd uintptr) bool { // once: it does not wait for more
			n, _ := syscall.Read(int(fd), buf)
			answered = string(buf[:max(n, 0)])
			return true
		})
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	eventually(p.t, "the endpoint's connection ends with the client's", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.ended
	})
	return answered, w.seen()
}

// CVE-2024-23326: Envoy took 200 for consent to an upgrade, and what came behind
// it went past every rule. Only 101 to what was asked for opens a tunnel.
func TestCVE202423326OnlyA101OpensATunnel(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
		"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n",
		strings.Replace(switched, "websocket", "h2c", 1),
		strings.Replace(switched, "upgrade: websocket\r\n", "", 1),
		strings.Replace(switched, "connection: upgrade\r\n", "", 1),
	} {
		w := &wiretap{answer: answer}
		p := start(t, target{Upstream: hostile(t, w.serve), Manager: websocket})
		got := p.say(handshake + smuggled)
		if strings.HasPrefix(got, "HTTP/1.1 101 ") || strings.Contains(w.seen(), "smuggled") {
			t.Errorf("%.60q: the backend saw %q and the client %q", answer, w.seen(), got)
		}
	}
}

// CVE-2026-2833: Pingora let bytes through before the upstream had agreed.
func TestCVE20262833NothingGoesThroughBeforeTheUpstreamAgrees(t *testing.T) {
	w := &wiretap{} // never answers
	p := start(t, target{Upstream: hostile(t, w.serve), Manager: websocket})
	got, seen := p.unanswered(w, handshake+smuggled+smuggled)
	if got != "" {
		t.Errorf("answered %q", got)
	}
	if strings.Count(seen, "HTTP/1.1\r\n") != 1 || strings.Contains(seen, "smuggled") {
		t.Errorf("the backend saw %q", seen)
	}
	// A flood ahead of the agreement is not kept: the client is not read.
	c := p.dial()
	_, _ = io.WriteString(c, handshake)
	block := make([]byte, 1<<20)
	sent := 0
	for range 256 {
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Write(block)
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 64<<20 {
		t.Errorf("%d bytes were taken ahead of the agreement", sent)
	}
}

// CVE-2025-64763: Envoy passed on what a client sent behind CONNECT before it was
// answered, which an upstream that refuses reads as requests.
func TestCVE202564763EarlyDataOfCONNECTWaitsForTheAnswer(t *testing.T) {
	const ask = "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"
	w := &wiretap{} // never answers
	p := start(t, target{Upstream: hostile(t, w.serve), Connect: "enabled: true"})
	if got, seen := p.unanswered(w, ask+smuggled); strings.Contains(seen, "smuggled") || got != "" {
		t.Errorf("without an answer the backend saw %q and the client %q", seen, got)
	}
	for _, answer := range []string{"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"} {
		w := &wiretap{answer: answer}
		p := start(t, target{Upstream: hostile(t, w.serve), Connect: "enabled: true"})
		got := p.say(ask + smuggled)
		if strings.Contains(w.seen(), "smuggled") || strings.Count(got, "HTTP/1.1 ") > 1 || strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%.20q: the backend saw %q and the client %q", answer, w.seen(), got)
		}
	}
	// Terminated, and nobody there.
	p = start(t, target{Upstream: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Connect: "connect_config: {}"})
	if got := p.say(ask + smuggled); !strings.HasPrefix(got, "HTTP/1.1 503 ") || strings.Count(got, "HTTP/1.1 ") != 1 {
		t.Errorf("without an endpoint the client got %q", got)
	}
	// And not enabled at all.
	w = &wiretap{}
	p = start(t, target{Upstream: hostile(t, w.serve)})
	if got := p.say(ask + smuggled); !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Count(got, "HTTP/1.1 ") != 1 || w.seen() != "" {
		t.Errorf("not enabled: the backend saw %q and the client got %q", w.seen(), got)
	}
}

// h2c smuggling (Bishop Fox, 2020): an upgrade to h2c that a backend accepts is a
// tunnel for requests that no route sees.
func TestSmugglingByH2cIsNotOffered(t *testing.T) {
	for _, ask := range []string{
		"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"connection: Upgrade\r\nUpgrade: H2C\r\n",
		"connection: upgrade\r\nupgrade: websocket, h2c\r\n",
		"connection: upgrade\r\nupgrade: h2c, websocket\r\n",
		"connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n",
		"connection: upgrade\r\nupgrade: h2c/1\r\n",
		"upgrade: websocket\r\n", // not nominated
	} {
		w := &wiretap{answer: "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nEVIL"}
		p := start(t, target{Upstream: hostile(t, w.serve), Manager: websocket})
		got := p.say("GET /first HTTP/1.1\r\nhost: a\r\n" + ask + "\r\n" + last)
		seen := strings.ToLower(w.seen())
		if strings.Contains(seen, "h2c") || strings.Contains(seen, "upgrade") || strings.Contains(seen, "http2-settings") {
			t.Errorf("%q: the backend saw %q", ask, seen)
		}
		if !strings.HasPrefix(got, "HTTP/1.1 502 ") && !strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Contains(got, "EVIL") {
			t.Errorf("%q: the client got %q", ask, got)
		}
	}
}

// What flows in a tunnel is no HTTP: nothing in it is a request or a response of
// this connection, and the connections of both sides end with it.
func TestBytesOfATunnelAreNeverRequests(t *testing.T) {
	w := &wiretap{answer: switched + "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nSTRAY"}
	p := start(t, target{Upstream: hostile(t, w.serve), Manager: websocket})
	c := p.dial()
	_, _ = io.WriteString(c, handshake+smuggled)
	r := bufio.NewReader(c)
	var got strings.Builder
	for !strings.HasSuffix(got.String(), "STRAY") {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatalf("got %q: %v", got.String(), err)
		}
		got.WriteByte(b)
	}
	eventually(t, "the bytes arrive", func() bool { return strings.HasSuffix(w.seen(), smuggled) })
	_ = c.Close()
	lines := p.logged(1)
	if f := strings.Fields(lines[0]); f[1] != "/chat" || f[2] != "101" {
		t.Errorf("logged %q", lines)
	}
	// The next client gets none of it.
	next := p.say("GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
	if strings.Contains(next, "STRAY") || !strings.HasPrefix(next, "HTTP/1.1 502 ") {
		t.Errorf("the next client got %q", next)
	}
}
