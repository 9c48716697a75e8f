// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// crowd is many raw connections, which the end of the test closes.
type crowd struct {
	t     *testing.T
	mu    sync.Mutex
	conns []net.Conn
	done  sync.WaitGroup
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t}
	t.Cleanup(c.leave)
	return c
}

func (c *crowd) dial(address string) net.Conn {
	c.t.Helper()
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	return conn
}

// leave closes all connections and waits for what runs on them.
func (c *crowd) leave() {
	c.mu.Lock()
	for _, conn := range c.conns {
		_ = conn.Close() // it may be closed
	}
	c.conns = nil
	c.mu.Unlock()
	c.done.Wait()
}

// TestSlowClientsAreClosedByTimersAndOthersServed sends heads and bodies byte by
// byte and leaves answers unread, with the timers shortened.
func TestSlowClientsAreClosedByTimersAndOthersServed(t *testing.T) {
	kinds := []struct {
		name, first string
		slow        string // sent again and again
		conns       int
	}{
		{"heads", "GET / HTTP/1.1\r\nHost: a\r\nX-A: ", "b", 400},
		{"bodies", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", "b", 300},
		{"chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nb\r\n", 100},
		{"silent", "", "", 100},
		{"readers", "GET /bytes?n=100000000 HTTP/1.1\r\nHost: a\r\n\r\n", "", 100},
	}
	app := mesh.StartApp(t, t.TempDir(), "app")
	s := mesh.StartStatic(t, t.TempDir(), mesh.StaticOptions{Upstream: app.Address, Manager: `          request_headers_timeout: 1s
          request_timeout: 2s
          stream_idle_timeout: 2s
          common_http_protocol_options: {idle_timeout: 2s}
`})
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "a", Conns: 10, Rate: 200})
	load.AwaitSent(20)
	base, descriptors := s.RSS(), s.Descriptors()
	began := time.Now()
	crowd := newCrowd(t)
	var slowest [8]atomic.Int64
	var left atomic.Int64
	for k, kind := range kinds {
		for range kind.conns {
			left.Add(1)
			conn := crowd.dial(s.Inbound)
			crowd.done.Go(func() { // ends when the sidecar closes, or with the test
				drip(conn, kind.first, kind.slow)
				took := int64(time.Since(began))
				for old := slowest[k].Load(); took > old && !slowest[k].CompareAndSwap(old, took); old = slowest[k].Load() {
				}
				left.Add(-1)
			})
		}
	}
	peak, all := s.RSS()-base, 0
	mesh.Await(t, 30*time.Second, "all slow connections closed", func() error {
		peak = max(peak, s.RSS()-base)
		open := s.Descriptors() - descriptors
		all = max(all, open)
		// Those to the application stay for others' requests.
		if n := left.Load(); n > 0 || open > 20 {
			return fmt.Errorf("%d clients wait, %d descriptors more than before are open", n, open)
		}
		return nil
	})
	closed := time.Since(began)
	crowd.leave()
	if all < 1000 {
		t.Errorf("at most %d connections were open at a time, which tests little", all)
	}
	tally := load.Stop()
	tally.Flawless(t, "beside slow clients")
	s.AwaitIdle()
	var times []string
	for k, kind := range kinds[:len(kinds)-1] {
		times = append(times, fmt.Sprintf("%d %s %v", kind.conns, kind.name, time.Duration(slowest[k].Load()).Round(100*time.Millisecond)))
	}
	mesh.Conformance(t, "D6", "1000 slow connections, all closed after %v (last of each kind: %v; timers of 1 s and 2 s); %d probes, %d failed, slowest %v; at most %d KiB more memory",
		closed.Round(100*time.Millisecond), times, tally.Sent, tally.Failed, tally.Slowest.Round(time.Millisecond), peak>>10)
}

// drip sends slowly until the other side closes. Who reads nothing of a long
// answer cannot see that: the end is queued behind what it does not read.
func drip(conn net.Conn, first, slow string) {
	if _, err := io.WriteString(conn, first); err != nil {
		return
	}
	if slow == "" {
		if first == "" {
			_, _ = io.Copy(io.Discard, conn) // until it is closed
		}
		return
	}
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	var one [1]byte
	for range ticker.C {
		if _, err := io.WriteString(conn, slow); err != nil {
			return
		}
		// An answer such as 408 is the sidecar's last word.
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		var timeout net.Error
		if _, err := conn.Read(one[:]); err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
			return
		}
	}
}

// TestSlowReadersAndWritersCostBoundedMemory moves bodies of 100 MB through
// clients and an application that hardly read.
func TestSlowReadersAndWritersCostBoundedMemory(t *testing.T) {
	t.Parallel()
	const each, size = 200, 100 << 20
	// The row's own figure, for all 400: 200 pairs of windows of 64 KiB, half as much again.
	const bound = each * 2 * 64 << 10 * 3 / 2
	app := mesh.StartApp(t, t.TempDir(), "app")
	s := mesh.StartStatic(t, t.TempDir(), mesh.StaticOptions{Upstream: app.Address})
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "a", Conns: 10, Rate: 200})
	load.AwaitSent(100)
	load.Take()
	base := s.RSS()
	crowd := newCrowd(t)
	for range each {
		reader := crowd.dial(s.Inbound)
		crowd.done.Go(func() { // ends with the connection
			if _, err := fmt.Fprintf(reader, "GET /bytes?n=%d HTTP/1.1\r\nHost: a\r\n\r\n", size); err == nil {
				slowly(reader)
			}
		})
		writer := crowd.dial(s.Inbound)
		crowd.done.Go(func() { // as above
			block := make([]byte, 64<<10)
			_, err := fmt.Fprintf(writer, "POST /sink?rate=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
			for err == nil {
				_, err = writer.Write(block)
			}
		})
	}
	mesh.Await(t, 20*time.Second, "all bodies under way", func() error {
		if n := app.Seen(); n < 2*each {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	peak := 0
	for range 40 {
		peak = max(peak, s.RSS()-base)
		mesh.Pass(100 * time.Millisecond)
	}
	tally := load.Stop()
	tally.Flawless(t, "beside slow bodies")
	if peak > bound {
		t.Errorf("%d KiB more memory, the bound is %d", peak>>10, bound>>10)
	}
	if !s.Alive() {
		t.Error("the sidecar has ended")
	}
	mesh.Conformance(t, "D5", "%d slow readers and %d slow writers of 100 MB: %d KiB more memory (bound %d); %d requests of others, %d failed",
		each, each, peak>>10, bound>>10, tally.Sent, tally.Failed)
}

// slowly reads a thousand bytes a second.
func slowly(conn net.Conn) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	block := make([]byte, 100)
	for {
		if _, err := conn.Read(block); err != nil {
			return
		}
		<-ticker.C
	}
}
