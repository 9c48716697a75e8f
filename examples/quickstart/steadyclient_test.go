// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestAnswersAreReadByTheirFraming(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name, in, body string
		more, close    bool
		err            string
	}{
		{name: "a length", in: ok + "Content-Length: 2\r\n\r\nhi", body: "hi"},
		{name: "the last answer", in: ok + "connection: Close\r\ncontent-length: 0\r\n\r\n", close: true},
		{name: "chunks", in: ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\nA\r\n0123456789\r\n0\r\n\r\n", body: "h0123456789"},
		{name: "half a head", in: ok + "Content-Le", more: true},
		{name: "half a body", in: ok + "Content-Length: 3\r\n\r\nhi", more: true},
		{name: "half a chunk", in: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi", more: true},
		{name: "chunks without an end", in: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", more: true},
		{name: "no length", in: ok + "\r\n", err: "of length -1"},
		{name: "both", in: ok + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", err: "chunked true and of length 0"},
		{name: "two lengths", in: ok + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", err: "two lengths"},
		{name: "no number", in: ok + "Content-Length: -1\r\n\r\n", err: "length"},
		{name: "a long chunk", in: ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n", err: "longer than it says"},
		{name: "a second answer", in: ok + "Content-Length: 0\r\n\r\n" + ok, err: "17 bytes behind"},
		{name: "another version", in: "HTTP/1.0 200 OK\r\n\r\n", err: "status line"},
		{name: "no field", in: ok + "what\r\n\r\n", err: "header field"},
	} {
		a, done, err := parseReply([]byte(tt.in))
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
		case err != nil || done == tt.more || done && (string(a.body) != tt.body || a.close != tt.close || a.status != 200):
			t.Errorf("%s: got %+v, complete %v, %v", tt.name, a, done, err)
		}
	}
}

// scripted answers the first requests, one after the other, as said, and all others
// well; it counts requests and connections. "" ends the connection without an answer.
func scripted(t *testing.T, answers ...string) (address string, requests, conns *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	requests, conns = new(atomic.Int64), new(atomic.Int64)
	serve := func(c net.Conn) {
		defer c.Close() //nolint:errcheck // of a test
		for r := bufio.NewReader(c); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			text := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
			if n := int(requests.Add(1)); n <= len(answers) {
				text = answers[n-1]
			}
			if _, err := io.WriteString(c, text); err != nil || text == "" || strings.HasSuffix(text, "bye") {
				return
			}
		}
	}
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go serve(c) // ends with the connection
		}
	}()
	return l.Addr().String(), requests, conns
}

func TestTheLoadRepeatsNothingAndReconnectsOnlyWhenToldTo(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
	for _, tt := range []struct {
		name     string
		answers  []string
		failures []string
		conns    int64
	}{
		{name: "good", conns: 1},
		{name: "told to close", answers: []string{ok + "Connection: close\r\n\r\nhi"}, conns: 2},
		{name: "no answer", answers: []string{""}, failures: []string{"ended after 0 bytes"}, conns: 2},
		{name: "half an answer", answers: []string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbye"}, failures: []string{"ended after"}, conns: 2},
		{name: "an error", answers: []string{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nhi"}, failures: []string{"503 hi"}, conns: 1},
		{name: "another body", answers: []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nho"}, failures: []string{`"ho"`}, conns: 1},
		{name: "an answer too many", answers: []string{ok + "\r\nhi" + ok + "\r\nhi"}, failures: []string{"behind the answer"}, conns: 2},
	} {
		address, requests, conns := scripted(t, tt.answers...)
		l := startSteady(t, address, "a", 1, 200, func(body []byte) error {
			if string(body) != "hi" {
				return fmt.Errorf("%q", body)
			}
			return nil
		})
		l.await(20)
		got := l.end()
		if got.Sent != int(requests.Load()) {
			t.Errorf("%s: %d requests came, %d were counted", tt.name, requests.Load(), got.Sent)
		}
		if got.Failed != len(tt.failures) || got.Failed == 1 && !strings.Contains(got.Failures[0].String(), tt.failures[0]) {
			t.Errorf("%s: %d failed, %v, want %q", tt.name, got.Failed, got.Failures, tt.failures)
		}
		if conns.Load() != tt.conns {
			t.Errorf("%s: %d connections, want %d", tt.name, conns.Load(), tt.conns)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refused := startSteady(t, l.Addr().String(), "a", 1, 200, func([]byte) error { return errors.New("no answer can be") })
	refused.await(3)
	if got := refused.end(); got.Failed != got.Sent {
		t.Errorf("%d of %d requests to nobody failed", got.Failed, got.Sent)
	}
}

func TestAnOrderlyEndOfAnIdleConnectionIsNoFailure(t *testing.T) {
	address, _, conns := scripted(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye")
	l := newSteady(t, address, "a", 1, 1, func([]byte) error { return nil })
	step := func() {
		t.Helper()
		if n, err := syscall.EpollWait(l.epoll, make([]syscall.EpollEvent, 1), 10000); n != 1 {
			t.Fatalf("nothing came: %v", err)
		}
		l.read(0)
	}
	for range 2 {
		l.send(l.idle[0], time.Now())
		l.idle = l.idle[:0]
		for l.busy > 0 {
			step()
		}
		if conns.Load() == 1 { // which then ends
			step()
		}
	}
	if got := l.take(); got.Sent != 2 || got.Failed > 0 || conns.Load() != 2 {
		t.Errorf("%d of %d requests failed over %d connections: %v", got.Failed, got.Sent, conns.Load(), got.Failures)
	}
	l.close(0)
	_ = syscall.Close(l.epoll)
}
