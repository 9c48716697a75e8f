// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// answerWith answers each request with raw bytes that the request's path names,
// and keeps the connection if the proxy does.
func answerWith(answers map[string]string) func(int, net.Conn) {
	return func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			raw, known := answers[req.URL.Path]
			if !known { // an honest answer that says whose it is
				body := req.URL.Path + " " + req.Header.Get("x-canary")
				raw = fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
			}
			if _, err := io.WriteString(c, raw); err != nil {
				return
			}
		}
	}
}

// An upstream is trusted no more than a client: a head that is no head becomes
// 502, a field cannot be split, and a body that breaks off never ends cleanly.
func TestAHostileUpstreamBecomesAnErrorAndNoResponseOfItsOwn(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"
	answers := map[string]string{
		"/both":          "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
		"/lengths":       "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 40\r\n\r\n" + evil,
		"/signed":        "HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\n" + evil,
		"/lf":            "HTTP/1.1 200 OK\ncontent-length: 0\n\n" + evil,
		"/cr":            "HTTP/1.1 200 OK\r\nx: a\rset-cookie: evil\r\ncontent-length: 0\r\n\r\n",
		"/nul":           "HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
		"/fold":          "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
		"/space":         "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
		"/name":          "HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 0\r\n\r\n",
		"/status":        "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
		"/status0":       "HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
		"/version":       "HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n",
		"/coding":        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"/switch":        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + evil,
		"/http09":        "<html>" + evil,
		"/head":          "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("a", 128<<10) + "\r\n\r\n",
		"/fields":        "HTTP/1.1 200 OK\r\n" + strings.Repeat("x: y\r\n", 5000) + "\r\n",
		"/endless":       "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("a", 4<<20),
		"/informational": strings.Repeat("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", 1000) + evil,
		"/100body":       "HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\nhello" + evil,
	}
	p := start(t, target{Upstream: hostile(t, answerWith(answers)), Cluster: "circuit_breakers: {thresholds: [{max_connections: 100}]}"})
	for path := range answers {
		answer := p.say("GET " + path + " HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
		final := answer
		for strings.HasPrefix(final, "HTTP/1.1 10") {
			_, final, _ = strings.Cut(final, "\r\n\r\n")
		}
		if !strings.HasPrefix(final, "HTTP/1.1 502 ") || strings.Contains(answer, "EVIL") || strings.Contains(answer, "set-cookie") {
			t.Errorf("%s: the client got %.300q", path, answer)
		}
	}

	broken := map[string]string{
		"/short":       "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nshort",
		"/chunk":       "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"/badchunk":    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n",
		"/bareLF":      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
		"/trailer":     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx y\r\n\r\n",
		"/extensions":  "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 4096)+"\r\na\r\n", 100) + "0\r\n\r\n",
		"/lasttrailer": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + strings.Repeat("x: y\r\n", 100000) + "\r\n",
	}
	p = start(t, target{Upstream: hostile(t, func(_ int, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			_, _ = io.WriteString(c, broken[req.URL.Path])
		}
	})})
	for path := range broken {
		c := p.dial()
		_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nhost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			continue // closed without a head: no clean end either
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode == 200 {
			t.Errorf("%s: the body %q ended cleanly", path, body)
		}
	}
}

// Bytes behind a response, a body of HEAD, an answer that comes before the
// request has ended: none of them may answer the next request.
func TestNoResponseReachesAnotherClient(t *testing.T) {
	const stray = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-stray: 1\r\n\r\nSTRAY"
	answers := map[string]string{
		"/excess":    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + stray,
		"/chunked":   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + stray,
		"/nocontent": "HTTP/1.1 204 No Content\r\n\r\n" + stray,
		"/unchanged": "HTTP/1.1 304 Not Modified\r\ncontent-length: 60\r\n\r\n" + stray,
		"/head":      "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + stray,
		"/204body":   "HTTP/1.1 204 No Content\r\ncontent-length: 90\r\n\r\n" + stray,
		"/close":     "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok" + stray,
		"/http10":    "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok" + stray,
	}
	p := start(t, target{Upstream: hostile(t, answerWith(answers))})
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(patience))
			r := bufio.NewReader(c)
			for n := range 200 {
				mine := fmt.Sprintf("/mine/%d/%d", client, n)
				canary := fmt.Sprintf("canary-%d-%d", client, n)
				_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nhost: a\r\nx-canary: %s\r\n\r\n", mine, canary)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || string(body) != mine+" "+canary {
					t.Errorf("%s got %q, %v", mine, body, err)
					return
				}
			}
		})
	}
	for range 30 {
		for path := range answers {
			method := "GET"
			if path == "/head" {
				method = "HEAD"
			}
			c := p.dial()
			_, _ = io.WriteString(c, method+" "+path+" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
			all, _ := io.ReadAll(c)
			if strings.Contains(string(all), "STRAY") {
				t.Errorf("%s: the client got %q", path, all)
			}
			_ = c.Close()
		}
	}
	wg.Wait()
}

// An answer that comes before the request has ended: both connections are given
// up, so that the rest of the body is taken for a request by nobody.
func TestAnEarlyAnswerEndsBothConnections(t *testing.T) {
	var mu sync.Mutex
	var extra []string
	p := start(t, target{Upstream: hostile(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
		rest, _ := io.ReadAll(r)
		if s := string(rest); strings.Contains(s, "second") {
			mu.Lock()
			extra = append(extra, s)
			mu.Unlock()
		}
	})})
	for range 20 {
		c := p.dial()
		_, _ = io.WriteString(c, "POST /first HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\npart")
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil || !resp.Close {
			t.Fatalf("the early answer: %v, connection: close %v", err, resp.Close)
		}
		_, _ = io.WriteString(c, "GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
		if b, _ := r.ReadByte(); b != 0 {
			t.Fatal("something was answered behind the early answer")
		}
		_ = c.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(extra) > 0 {
		t.Errorf("the upstream was given %q behind the first request", extra)
	}
}

// What one request carried is never seen in another one's head, body or log
// line, whatever its end was.
func TestNothingOfARequestIsSeenInAnother(t *testing.T) {
	var mu sync.Mutex
	leaks := 0
	p := start(t, target{Upstream: hostile(t, func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			if strings.HasPrefix(req.URL.Path, "/plain") && (req.Header.Get("x-canary") != "" || len(body) > 0 || len(req.Header) > 4) {
				mu.Lock()
				leaks++
				mu.Unlock()
			}
			if req.URL.Path == "/reset" {
				_ = c.(*net.TCPConn).SetLinger(0)
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"); err != nil {
				return
			}
		}
	})})
	lines := 0
	for n := range 60 {
		secret := fmt.Sprintf("SECRET%d", n)
		for _, raw := range []string{
			"POST /a HTTP/1.1\r\nhost: a\r\nx-canary: " + secret + "\r\ncontent-length: 12\r\n\r\n" + "SECRET-BODY-",
			"POST /reset HTTP/1.1\r\nhost: a\r\nx-canary: " + secret + "\r\ntransfer-encoding: chunked\r\n\r\n5\r\nSECRE\r\n0\r\nx-canary: SECRET\r\n\r\n",
			"GET /direct HTTP/1.1\r\nhost: a\r\nx-canary: " + secret + strings.Repeat("S", 9000) + "\r\n\r\n",
			"POST /b HTTP/1.1\r\nhost: a\r\nx-canary: " + secret + "\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
			"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n",
			"GET /plain\x01 HTTP/1.1\r\nhost: a\r\n\r\n",
		} {
			c := p.dial()
			_, _ = io.WriteString(c, raw)
			_, _ = http.ReadResponse(bufio.NewReader(c), nil) // whatever it is
			_ = c.Close()
			lines++
		}
	}
	for _, line := range p.logged(lines) {
		plain := strings.Contains(line, "/plain") || strings.HasPrefix(line, "- ")
		if plain && (strings.Contains(line, "SECRET") || !strings.HasSuffix(line, "[-]")) {
			t.Errorf("the log line of a request without secrets: %q", line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if leaks > 0 {
		t.Errorf("%d requests reached the upstream with something of another one", leaks)
	}
}
