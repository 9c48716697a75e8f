// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// handshakers is how many clients connect at the same time, each one connection
// after the other.
const handshakers = 8

const lastRequest = "GET " + smallPath + " HTTP/1.1\r\nHost: " + tlsHost + "\r\nUser-Agent: bench/1.0\r\nConnection: close\r\n\r\n"

// loadHandshakes opens a connection for each request. Every one is seen to be
// resumed, or not, as it should be: the first of each client, which brings the
// ticket, is made before the count.
func loadHandshakes(resumed bool) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		tallies := make([]tally, handshakers)
		confs := make([]*tls.Config, handshakers)
		for i := range confs {
			confs[i] = t.s.tls.client("http/1.1")
			if !resumed {
				continue
			}
			confs[i].ClientSessionCache = tls.NewLRUClientSessionCache(1)
			if _, err := handshake(ctx, t, confs[i]); err != nil {
				return outcome{}, err
			}
		}
		began := time.Now()
		until := began.Add(t.duration)
		var all sync.WaitGroup
		for i := range tallies {
			all.Go(func() {
				v := &tallies[i]
				for now := time.Now(); now.Before(until) && ctx.Err() == nil; now = time.Now() {
					did, err := handshake(ctx, t, confs[i])
					switch {
					case err != nil:
						v.fail(err)
					case did != resumed:
						v.fail(fmt.Errorf("resumed is %t", did))
					default:
						v.done(now)
					}
				}
			})
		}
		all.Wait()
		out := sum(tallies)
		out.Seconds = time.Since(began).Seconds()
		return out, ctx.Err()
	}
}

// handshake makes one connection with one request and reads to its end.
func handshake(ctx context.Context, t *target, conf *tls.Config) (resumed bool, err error) {
	d := net.Dialer{Timeout: idleLimit, KeepAlive: -1}
	raw, err := d.DialContext(ctx, "tcp4", t.address())
	if err != nil {
		return false, err
	}
	// The proxy closes first, and so has what TIME_WAIT holds.
	defer func() { _ = raw.Close() }()
	if err := raw.SetDeadline(time.Now().Add(idleLimit)); err != nil {
		return false, err
	}
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		return false, err
	}
	if _, err := c.Write([]byte(lastRequest)); err != nil {
		return false, err
	}
	r := bufio.NewReaderSize(c, 1024)
	a, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	n, err := io.Copy(io.Discard, a.Body)
	switch {
	case err != nil:
		return false, err
	case a.StatusCode != http.StatusOK || n != int64(bodies[0].size):
		return false, fmt.Errorf("answered %s with %d bytes", a.Status, n)
	case !a.Close:
		return false, errors.New("the connection was not closed")
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("after the answer: %w", err)
	}
	return c.ConnectionState().DidResume, nil
}
