// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answerAll answers each request with a body of n bytes.
func answerAll(n int) func(int, net.Conn) {
	head := "HTTP/1.1 200 OK\r\ncontent-length: " + itoa(n) + "\r\n\r\n"
	body := strings.Repeat("b", n)
	return func(_ int, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, head+body); err != nil {
				return
			}
		}
	}
}

// A client that pipelines requests and reads no answer must not make the proxy
// hold the answers: what waits for it is bounded by watermarks, not by what it
// asks for.
func TestPipelinedRequestsOfAClientThatReadsNothingHoldBoundedMemory(t *testing.T) {
	for _, path := range []string{"/direct", "/big"} {
		t.Run(path, func(t *testing.T) {
			p := start(t, target{Upstream: hostile(t, answerAll(32<<10))})
			p.say(last)
			before := p.memory()
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
			flood := []byte(strings.Repeat("GET "+path+" HTTP/1.1\r\nhost: a\r\n\r\n", 1000))
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
			for range 200 {
				if _, err := c.Write(flood); err != nil {
					break // good: the proxy takes no more
				}
			}
			if grown := p.memory() - before; grown > 24<<20 {
				t.Errorf("a client that reads nothing made the proxy grow by %d MiB", grown>>20)
			}
		})
	}
}
