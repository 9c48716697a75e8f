// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// badRequests are byte strings that no proxy may forward as they are. A request
// of wants 0 is cut off by the client and needs no answer.
var badRequests = []struct {
	name, bytes string
	want        int // status; 0: none, the connection just ends
}{
	{"content-length and chunked", "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n", 400},
	{"two different lengths", "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
	{"a length with a sign", "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: +1\r\n\r\na", 400},
	{"an obscured chunked", "POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"a bare line feed in a chunk size", "POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400},
	{"a chunk size of too many digits", "POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400},
	{"a space before the colon", "GET / HTTP/1.1\r\nHost: orders\r\nX-A : 1\r\n\r\n", 400},
	{"a folded line", "GET / HTTP/1.1\r\nHost: orders\r\nX-A: 1\r\n 2\r\n\r\n", 400},
	{"an empty header name", "GET / HTTP/1.1\r\nHost: orders\r\n: 1\r\n\r\n", 400},
	{"a zero byte in a value", "GET / HTTP/1.1\r\nHost: orders\r\nX-A: a\x00b\r\n\r\n", 400},
	{"a carriage return in a value", "GET / HTTP/1.1\r\nHost: orders\r\nX-A: a\rb\r\n\r\n", 400},
	{"two hosts", "GET / HTTP/1.1\r\nHost: orders\r\nHost: payments\r\n\r\n", 400},
	{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
	{"a host with a space", "GET / HTTP/1.1\r\nHost: ord ers\r\n\r\n", 400},
	{"a control byte in the target", "GET /a\x01b HTTP/1.1\r\nHost: orders\r\n\r\n", 400},
	{"an unknown version", "GET / HTTP/3.7\r\nHost: orders\r\n\r\n", 505},
	{"almost the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", 505},
	{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 64), 400},
	{"zero bytes", strings.Repeat("\x00", 4096), 400},
	{"a target of a megabyte", "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: orders\r\n\r\n", 414},
	{"a header of a megabyte", "GET / HTTP/1.1\r\nHost: orders\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431},
	{"ten thousand headers", "GET / HTTP/1.1\r\nHost: orders\r\n" + strings.Repeat("X-A: 1\r\n", 10000) + "\r\n", 431},
	{"an endless method", strings.Repeat("G", 1<<20), 501},
	{"a request line cut off", "GET / HT", 0},
	{"a head cut off", "GET / HTTP/1.1\r\nHost: orders\r\nX-A", 0},
	{"a body cut off", "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 1000\r\n\r\nabc", 0},
	{"a chunk cut off", "POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", 0},
}

// TestBadRequestsAreRefusedAndHurtNobodyElse sends each to both listeners of a
// running mesh, under load by others.
func TestBadRequestsAreRefusedAndHurtNobodyElse(t *testing.T) {
	m := mesh.New(t)
	x := m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1")
	seen := x.App.Seen()
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 10, Rate: 200})
	load.AwaitSent(20)
	listeners := map[string]string{"outbound": web.Outbound, "inbound": x.Sidecar.Inbound}
	statuses := map[int]int{}
	for where, address := range listeners {
		for _, b := range badRequests {
			status, err := sendRaw(address, []byte(b.bytes))
			statuses[status]++
			switch {
			case err != nil:
				t.Errorf("%s: %s: %v", where, b.name, err)
			case status != b.want && !(b.want/100 == 4 && status/100 == 4):
				t.Errorf("%s: %s: answered %d, want %d", where, b.name, status, b.want)
			case status != b.want:
				t.Logf("%s: %s: answered %d where %d is usual", where, b.name, status, b.want)
			}
		}
		for range 20 {
			noise := make([]byte, 8<<10)
			_, _ = rand.Read(noise) // it never fails
			if status, err := sendRaw(address, noise); err != nil || status/100 == 2 {
				t.Errorf("%s: noise: answered %d, %v", where, status, err)
			}
		}
	}
	load.AwaitSent(50)
	tally := load.Stop()
	tally.Flawless(t, "beside bad requests")
	if !web.Alive() || !x.Sidecar.Alive() {
		t.Error("a sidecar has ended")
	}
	// The application had the load's requests, and of the bad ones at most those
	// whose body was cut off after a good head.
	if extra := x.App.Seen() - seen - tally.Sent; extra < 0 || extra > 2*4 {
		t.Errorf("the application had %d requests beside the load", extra)
	}
	mesh.Conformance(t, "bad-requests", "%d bad requests to two listeners: answers by status %v (0: closed without); %d requests of others, %d failed",
		2*(len(badRequests)+20), statuses, tally.Sent, tally.Failed)
}

// sendRaw sends bytes, ends its side, and returns the status of the only answer,
// 0 for none. It is an error if the connection stays open or has a second answer.
func sendRaw(address string, b []byte) (int, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // only read
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return 0, err
	}
	sent := make(chan struct{})
	go func() { // ends with the connection
		defer close(sent)
		_, _ = conn.Write(b) // the other side may have enough
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	defer func() { conn.Close(); <-sent }() //nolint:errcheck // as above
	r := bufio.NewReader(conn)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return 0, fmt.Errorf("the connection stays open: %w", err)
		}
		return 0, nil // closed, in order or by a reset
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return response.StatusCode, fmt.Errorf("body of %d: %w", response.StatusCode, err)
	}
	rest, err := io.ReadAll(r)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return response.StatusCode, fmt.Errorf("after %d: %w", response.StatusCode, err)
	}
	if bytes.Contains(rest, []byte("HTTP/1.1")) {
		return response.StatusCode, fmt.Errorf("a second answer after %d: %q", response.StatusCode, rest)
	}
	return response.StatusCode, nil
}
