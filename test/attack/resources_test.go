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

// silent reads and never answers.
func silent(_ int, c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// A mirror that never answers holds its copies no longer than the route's
// timeout: else each costs a connection and the memory of a request for ever.
func TestAMirrorThatNeverAnswersIsGivenUp(t *testing.T) {
	p := start(t, target{
		Upstream: hostile(t, answerWith(nil)), Mirror: hostile(t, silent),
		Action: "timeout: 1s, request_mirror_policies: [{cluster: m}]",
	})
	p.say(last)
	before := p.descriptors()
	for range 50 {
		p.say("GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
	}
	eventually(t, "the copies are given up", func() bool { return p.descriptors() <= before+4 })
}

// Connections that come and go in every state leave nothing behind.
func TestChurnOfConnectionsLeavesNothingBehind(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, func(n int, c net.Conn) {
		if n%3 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		if n%3 == 1 {
			silent(n, c)
			return
		}
		answerWith(nil)(n, c)
	}), Cluster: "common_http_protocol_options: {idle_timeout: 1s}"}) // else good connections rest in the pool
	p.say(last)
	before := p.descriptors()
	pieces := []string{
		"", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET",
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345",
		"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx",
		"GET /x HTTP/1.1\r\n\r\n", "\r\n\r\n\r\n\r\n",
	}
	for n := range 600 {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, pieces[n%len(pieces)])
		if n%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_ = c.Close()
	}
	eventually(t, "all connections are closed", func() bool { return p.descriptors() <= before+8 })
	eventually(t, "no exchange is left", func() bool {
		return p.stat("http.main.downstream_rq_active") == 0 && p.stat("cluster.c.upstream_rq_active") == 0 && p.stat("cluster.c.upstream_rq_pending_active") == 0
	})
	if answer := p.say(last); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("after it all: %q", answer)
	}
}

// Every variant of a client that is slow on purpose is ended by a timer, while
// others are served.
func TestSlowClientsOfEveryKindAreEnded(t *testing.T) {
	p := start(t, target{
		Upstream: hostile(t, answerWith(nil)),
		Manager:  "request_headers_timeout: 1s\n          stream_idle_timeout: 1s\n          common_http_protocol_options: {idle_timeout: 1s}",
	})
	const post = "POST / HTTP/1.1\r\nhost: a\r\n"
	for _, first := range []string{
		"", "\r\n", "\r", "G", "GET / HTTP/1.1\r\nhost: a\r\nx:", "GET / HTTP/1.1\r\nhost: a\r\n\r",
		post + "content-length: 10\r\n\r\n", post + "content-length: 10\r\n\r\n1",
		post + "transfer-encoding: chunked\r\n\r\n", post + "transfer-encoding: chunked\r\n\r\n5", post + "transfer-encoding: chunked\r\n\r\n5;",
		post + "transfer-encoding: chunked\r\n\r\n5\r\nabc", post + "transfer-encoding: chunked\r\n\r\n1\r\na", post + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
		post + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y",
		post + "content-length: 0\r\n\r\nGET",
	} {
		t.Run(fmt.Sprintf("%.60q", first), func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, first)
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("still open: %v", err)
			}
		})
	}
}

// A head that trickles in byte by byte is bounded by the time of the whole head,
// not by the pause between two bytes.
func TestATricklingHeadIsEndedByTheTimeOfTheWhole(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, answerWith(nil)), Manager: "request_headers_timeout: 1s"})
	for _, before := range []string{"", "GET /direct HTTP/1.1\r\nhost: a\r\n\r\n"} {
		c := p.dial()
		_, _ = io.WriteString(c, before+"GET / HTTP/1.1\r\nx: ")
		began := time.Now()
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					_, _ = io.WriteString(c, "a")
				}
			}
		}()
		all, _ := io.ReadAll(c)
		close(stop)
		<-ended
		if d := time.Since(began); d > 5*time.Second || !strings.Contains(string(all), "HTTP/1.1 408 ") {
			t.Errorf("ended after %v with %q", d, all)
		}
	}
}

// An upstream that floods a client which reads nothing is held back.
func TestAnEndlessResponseToASlowReaderHoldsBoundedMemory(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, func(_ int, c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
		piece := strings.Repeat("1\r\na\r\n", 10000) // the smallest chunks there are
		for {
			if _, err := io.WriteString(c, piece); err != nil {
				return
			}
		}
	})})
	p.say(last)
	before := p.memory()
	for range 20 {
		c := p.dial()
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	}
	<-time.After(2 * time.Second) // of flooding
	if grown := p.memory() - before; grown > 100<<20 {
		t.Errorf("20 clients that read nothing made the proxy grow by %d MiB", grown>>20)
	}
}

// More requests than limits allow are refused at once and leave no count behind.
func TestAFullPoolRefusesAndRecovers(t *testing.T) {
	release := make(chan struct{})
	p := start(t, target{
		Upstream: hostile(t, func(n int, c net.Conn) {
			r := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				<-release
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}),
		Cluster: "circuit_breakers: {thresholds: [{max_connections: 2, max_pending_requests: 3, max_requests: 4}]}",
	})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free) // before the backend waits for its connections
	const clients = 12
	codes := make(chan string, clients)
	for n := range clients {
		c := p.dial()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
		go func() {
			if n%4 == 3 { // some leave at once
				_ = c.Close()
				codes <- "gone"
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			codes <- strings.TrimSpace(line)
		}()
	}
	eventually(t, "some are under way", func() bool { return p.stat("cluster.c.upstream_rq_active") > 0 })
	free()
	for range clients {
		if code := <-codes; code != "gone" && code != "HTTP/1.1 200 OK" && code != "HTTP/1.1 503 Service Unavailable" {
			t.Errorf("a client got %q", code)
		}
	}
	for range 50 { // as many as there are slots, one after the other
		if answer := p.say("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			t.Fatalf("after the flood: %q", answer)
		}
	}
}
