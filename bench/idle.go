// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	idleLimit = 5 * time.Second // for one request of an idle connection

	// A proxy is at rest when its memory has changed by no more than restChange
	// bytes for restFor, which is longer than a sidecar waits before it gives back
	// what a configuration needed.
	restFor    = 4 * time.Second
	restChange = 64 << 10
	restPoll   = 200 * time.Millisecond
	restLimit  = 40 * time.Second

	// idleRounds bounds the rounds of what is steady.
	idleRounds = 3
	idleStride = 97 // every so many connections is asked again at the end
)

// What the first requests make resident for good, such as pages of the program and
// rings of records, is no connection's: before connections are counted, a share of
// them sends requests enough for all of that.
const (
	servedShare    = 10 // one in so many
	servedRequests = 10 // of each of these
)

const idleRequest = "GET /api/v1/things?id=5 HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1.0\r\n\r\n"

// atRest are the proxies of the idle and cluster parts: the mesh's with their
// features on, as they serve.
func (s *session) atRest(kinds ...string) []proxy {
	var out []proxy
	for _, p := range proxies {
		for _, k := range kinds {
			mesh := k == "envoy" || k == "sidecar"
			if p.Kind == k && p.Features == mesh && !p.Resilience && s.o.measures(p.Name) {
				out = append(out, p)
			}
		}
	}
	return out
}

// runIdle measures fresh processes before traffic and with idle connections.
func (s *session) runIdle(ctx context.Context) error {
	n := s.idleConnections()
	if n < s.o.IdleConnections {
		s.say("%d idle connections instead of %d: the limit of open files is %d", n, s.o.IdleConnections, s.openFiles)
	}
	for round := range min(s.o.Rounds, idleRounds) {
		for _, p := range s.atRest("nginx", "haproxy", "envoy", "sidecar") {
			for _, k := range []struct {
				port string
				to   *[]IdleRow
				open func(net.Conn) net.Conn
			}{
				{"main", &s.result.Idle, func(c net.Conn) net.Conn { return c }},
				{"tls", &s.result.IdleTLS, s.secureIdle()},
			} {
				x, err := s.idleRound(ctx, p, n, k.port, k.open)
				if err != nil {
					return fmt.Errorf("%s with %d idle connections (%s): %w", p.Name, n, k.port, err)
				}
				x.Round = round
				row := idleRow(*k.to, p.Name)
				if row == nil {
					*k.to = append(*k.to, IdleRow{Proxy: p.Name, Connections: n})
					row = &(*k.to)[len(*k.to)-1]
				}
				row.Rounds = append(row.Rounds, x)
				s.say("%-10s at rest %.1f MB resident, %.0f bytes for each of %d idle connections (%s)",
					p.Name, float64(x.AtRest.RSS)/1e6, x.BytesPerConnection, n, k.port)
			}
		}
	}
	return nil
}

// secureIdle puts TLS on a connection.
func (s *session) secureIdle() func(net.Conn) net.Conn {
	conf := s.tls.client("http/1.1")
	return func(c net.Conn) net.Conn { return tls.Client(c, conf) }
}

func (s *session) idleRound(ctx context.Context, p proxy, n int, port string, open func(net.Conn) net.Conn) (x IdleRound, err error) {
	set := s.settings()
	set.Listeners = plainAndTLS()
	if port == "main" {
		set.Listeners = set.Listeners[:1]
	}
	in, _, err := s.startWithSettings(ctx, p, set)
	if err != nil {
		return x, err
	}
	defer s.spawn.end(in.process)
	if x.AtRest, err = s.restingMemory(ctx, in); err != nil {
		return x, err
	}
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			_ = c.(*net.TCPConn).SetLinger(0) // leave no port in TIME_WAIT
			_ = c.Close()
		}
	}()
	d := net.Dialer{Timeout: idleLimit, KeepAlive: -1}
	connect := func(n, requests int) error {
		for range n {
			c, err := d.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", in.ports[port]))
			if err != nil {
				return err
			}
			c = open(c)
			conns = append(conns, c)
			for range requests {
				if err := exchange(c); err != nil {
					return err
				}
			}
		}
		return nil
	}
	first := n / servedShare
	if err := connect(first, servedRequests); err != nil {
		return x, err
	}
	if x.Served, err = s.restingMemory(ctx, in); err != nil {
		return x, err
	}
	if err := connect(n-first, 1); err != nil {
		return x, err
	}
	if x.Connected, err = s.restingMemory(ctx, in); err != nil {
		return x, err
	}
	for i := 0; i < n; i += idleStride {
		if err := exchange(conns[i]); err != nil {
			x.Failed++
		}
	}
	if x.Failed > 0 {
		s.fault("%s: %d of %d idle connections asked again did not answer", p.Name, x.Failed, (n+idleStride-1)/idleStride)
	}
	x.BytesPerConnection = float64(x.Connected.RSS-x.Served.RSS) / float64(n-first)
	return x, in.ended()
}

// exchange sends one request and reads the whole response, which must be a 200
// that keeps the connection.
func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(idleLimit)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(idleRequest)); err != nil {
		return err
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return err
	}
	if a.StatusCode != http.StatusOK || a.Close {
		return fmt.Errorf("answered %s, close %t", a.Status, a.Close)
	}
	return nil
}

// restingMemory waits until a proxy has nothing left to do and gives nothing back
// any more, then reads. A runtime with a collector returns what a start has left
// only after a while; one that still changes after restLimit is read as it is.
func (s *session) restingMemory(ctx context.Context, in *instance) (memory, error) {
	limit := restLimit
	if s.o.Quick {
		limit = 300 * time.Millisecond
	}
	began := time.Now()
	var since time.Time
	var held memory
	for {
		now, err := readMemory(in.pid())
		if err != nil {
			return now, fmt.Errorf("%s: %w", in.Name, err)
		}
		moved := max(now.RSS-held.RSS, held.RSS-now.RSS)
		switch {
		case moved > restChange:
			held, since = now, time.Now()
		case time.Since(since) >= restFor:
			return now, nil
		}
		if time.Since(began) >= limit {
			return now, nil
		}
		if err := pause(ctx, restPoll); err != nil {
			return now, err
		}
	}
}
