// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// countingBackend reads a request up to its end given, counts it, and answers with
// the next of the answers; an empty one closes.
func countingBackend(t *testing.T, received, sent *atomic.Uint64, end string, answers ...string) string {
	var mu sync.Mutex
	return scripted(t, func(c net.Conn) {
		for {
			var in []byte
			for !bytes.HasSuffix(in, []byte(end)) {
				buf := make([]byte, 4096)
				n, err := c.Read(buf)
				received.Add(uint64(n))
				if err != nil {
					return
				}
				in = append(in, buf[:n]...)
			}
			mu.Lock()
			answer := answers[0]
			if len(answers) > 1 {
				answers = answers[1:]
			}
			mu.Unlock()
			if answer == "" {
				return
			}
			sent.Add(uint64(len(answer))) // before: who has read all of it looks at once
			_, _ = io.WriteString(c, answer)
		}
	})
}

// wireLog makes the proxy log the four numbers to a file.
func wireLog(t *testing.T, s *resource.Snapshot) (path string) {
	f, err := substitution.Parse("%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED%\n")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "log")
	s.Listeners["l"].FilterChains[0].HTTP.AccessLog = []*resource.AccessLog{{File: &resource.FileLog{Path: path, Format: &resource.LogFormat{Text: f}}}}
	return path
}

// What a record and the counters say is what sockets saw, whatever the messages
// are made of.
func TestWireBytesAreThoseOfTheWire(t *testing.T) {
	const plain = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
	for _, c := range []struct {
		name, request, end, answers, last string
		noUpstream                        bool
	}{
		{"heads and bodies", "POST / HTTP/1.1\r\nHost:   x\r\nContent-Length: 4\r\n\r\nbody", "body", plain, "hello", false},
		{"chunks, extensions and trailers", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;ext=1\r\nbody\r\n1\r\nx\r\n0\r\nt: 1\r\n\r\n", "t: 1\r\n\r\n",
			"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a\r\nhello\r\n3\r\nabc\r\n0\r\nt: 2\r\n\r\n", "t: 2\r\n\r\n", false},
		{"informational answers", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + plain, "hello", false},
		{"empty lines before the request", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", plain, "hello", false},
		{"a long answer", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: 300005\r\n\r\n%shello", strings.Repeat("x", 300000)), "hello", false},
		{"a retry", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", "|" + plain, "hello", false},
		{"a reply of the proxy", "GET /direct HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", plain, "teapot", true},
		{"no request", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "\r\n\r\n", plain, "connection: close\r\n\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var upReceived, upSent atomic.Uint64
			b := countingBackend(t, &upReceived, &upSent, c.end, strings.Split(c.answers, "|")...)
			var path string
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", b)
				vh := s.Routes["r"].VirtualHosts[0]
				vh.Routes = append([]*resource.Route{{Match: resource.RouteMatch{Path: "/direct"}, Direct: &resource.DirectResponse{Status: 418, Body: []byte("teapot")}}}, vh.Routes...)
				path = wireLog(t, s)
			})
			conn := r.dial()
			const times = 3 // each message is counted by itself
			var sent, received uint64
			var want strings.Builder
			done := 0
			for range times {
				before, beforeSent := upReceived.Load(), upSent.Load()
				n, err := io.WriteString(conn, c.request)
				if err != nil {
					t.Fatal(err)
				}
				sent += uint64(n)
				var got []byte
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				for buf := make([]byte, 64<<10); !bytes.HasSuffix(got, []byte(c.last)); {
					n, err := conn.Read(buf)
					if got = append(got, buf[:n]...); err != nil {
						t.Fatalf("%v behind %q", err, got)
					}
				}
				received += uint64(len(got))
				fmt.Fprintf(&want, "%d %d %d %d\n", n, len(got), upReceived.Load()-before, upSent.Load()-beforeSent)
				if done++; bytes.Contains(got, []byte("connection: close")) {
					break
				}
			}
			eventually(t, "the log", func() bool {
				b, _ := os.ReadFile(path)
				return strings.Count(string(b), "\n") == done
			})
			if got, _ := os.ReadFile(path); string(got) != want.String() {
				t.Errorf("logged\n%swhat sockets counted is\n%s", got, want.String())
			}
			stats := map[string]uint64{
				"http.test.downstream_cx_rx_bytes_total": sent, "http.test.downstream_cx_tx_bytes_total": received,
				"cluster.c.upstream_cx_tx_bytes_total": upReceived.Load(), "cluster.c.upstream_cx_rx_bytes_total": upSent.Load(),
			}
			if c.noUpstream {
				delete(stats, "cluster.c.upstream_cx_tx_bytes_total")
				delete(stats, "cluster.c.upstream_cx_rx_bytes_total")
			}
			r.wantStats(stats)
		})
	}
}

// The first read tells which protocol it is: it is counted once all the same.
func TestTheBytesOfAnHTTP2ConnectionAreCountedOnce(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", "127.0.0.1:1") })
	conn := r.dial()
	hello := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // no settings
	if _, err := io.WriteString(conn, hello); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil { // the answer: all was read
		t.Fatal(err)
	}
	r.wantStats(map[string]uint64{"http.test.downstream_cx_http2_total": 1, "http.test.downstream_cx_rx_bytes_total": uint64(len(hello))})
}
