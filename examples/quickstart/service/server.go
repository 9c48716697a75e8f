// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxRequest is how many bytes a request may have; the connection ends within a longer one.
const maxRequest = 1 << 20

// server is a small HTTP/1.1 server. It does what http.Server does for requests
// without a body, but reads only where a request is to come: watching for callers that
// go away costs as much as the rest, and a whole mesh with its load runs on one machine
// here.
type server struct {
	handle func(r *http.Request) (status int, contentType string, body []byte)

	mu       sync.Mutex
	stopping bool
	conns    map[net.Conn]bool // true: a request is under way
	done     sync.WaitGroup
}

// serve accepts connections until stop.
func (s *server) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if !s.rests(c) {
			_ = c.Close() // nothing was read
			continue
		}
		s.done.Go(func() { // ends with the connection
			s.converse(c)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
			_ = c.Close() // all is written
		})
	}
}

// rests notes that a connection waits for a request. It is not to where the server
// stops.
func (s *server) rests(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[c] = false
	return true
}

func (s *server) converse(c net.Conn) {
	limited := &io.LimitedReader{R: c}
	in := bufio.NewReader(limited)
	var out []byte
	for {
		limited.N = maxRequest
		if _, err := in.Peek(1); err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		status, contentType, body := s.handle(r)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		keep := s.rests(c) && !r.Close
		out = fmt.Appendf(out[:0], "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", status, http.StatusText(status), contentType, len(body))
		if !keep {
			out = append(out, "Connection: close\r\n"...)
		}
		out = append(append(out, "\r\n"...), body...)
		if _, err := c.Write(out); err != nil || !keep {
			return
		}
	}
}

// stop lets requests under way end, but not beyond ctx, and closes the connections. The
// listener is to be closed before.
func (s *server) stop(ctx context.Context) {
	s.mu.Lock()
	s.stopping = true
	for c, busy := range s.conns {
		if !busy {
			_ = c.SetReadDeadline(time.Now()) // ends the wait for a request
		}
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { // ends with the connections, or the process
		s.done.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
