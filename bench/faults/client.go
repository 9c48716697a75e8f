// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	dialLimit   = time.Second
	answerLimit = 5 * time.Second
)

// load is a number of clients that call one address at a steady rate.
type load struct {
	address string
	busy    int           // connections that send all the time
	idle    int           // connections that send once before and once after
	every   time.Duration // between two requests of a busy connection
	slow    int           // connections of clients that read a long answer slowly
}

// sample is one request as its client saw it.
type sample struct {
	at   time.Time // when it was sent
	took time.Duration
	idle bool   // of a connection that was idle before
	err  string // why it failed; empty where it did not
}

// client has one connection and never sends a request a second time. A connection that
// the answer says is to be closed is opened again for the next request; one that is
// closed without notice has lost whatever is sent on it.
type client struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close() // only read from and written to here
		c.conn = nil
	}
}

// call sends one request and reads its answer.
func (c *client) call(ctx context.Context, path string) error {
	if c.conn == nil {
		d := net.Dialer{Timeout: dialLimit}
		conn, err := d.DialContext(ctx, "tcp", c.address)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 4<<10)
	}
	err := c.exchange(path)
	if err != nil {
		c.close()
	}
	return err
}

func (c *client) exchange(path string) error {
	if err := c.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nhost: faults\r\nuser-agent: faults\r\n\r\n", path); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if resp.Close {
		c.close()
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// run calls until the context ends, then has the idle ones send their last request, and
// returns what all have seen in the order of sending.
func (l *load) run(ctx context.Context) []sample {
	var mu sync.Mutex
	var all []sample
	keep := func(list []sample) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, list...)
	}
	var wg sync.WaitGroup
	for i := range l.busy {
		wg.Go(func() { keep(l.busyClient(ctx, i)) })
	}
	for range l.idle {
		wg.Go(func() { keep(l.idleClient(ctx)) })
	}
	for range l.slow {
		wg.Go(func() { l.slowClient(ctx) })
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b sample) int { return a.at.Compare(b.at) })
	return all
}

// busyClient spreads the clients' first requests over the interval.
func (l *load) busyClient(ctx context.Context, i int) (seen []sample) {
	c := &client{address: l.address}
	defer c.close()
	first := time.NewTimer(l.every * time.Duration(i) / time.Duration(l.busy))
	defer first.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-first.C:
	}
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for {
		seen = append(seen, c.sample("/", false))
		select {
		case <-ctx.Done():
			return seen
		case <-tick.C:
		}
	}
}

func (l *load) idleClient(ctx context.Context) []sample {
	c := &client{address: l.address}
	defer c.close()
	first := c.sample("/", false)
	<-ctx.Done()
	return []sample{first, c.sample("/", true)}
}

// sample does not end with the load's context: a request that was sent is waited for.
func (c *client) sample(path string, idle bool) sample {
	s := sample{at: time.Now(), idle: idle}
	if err := c.call(context.Background(), path); err != nil {
		s.err = err.Error()
	}
	s.took = time.Since(s.at)
	return s
}

// slowClient asks for a long answer and reads of it a little at a time. What becomes of
// it is not counted: the others are.
func (l *load) slowClient(ctx context.Context) {
	for ctx.Err() == nil {
		d := net.Dialer{Timeout: dialLimit}
		conn, err := d.DialContext(ctx, "tcp", l.address)
		if err != nil {
			return
		}
		end := context.AfterFunc(ctx, func() { _ = conn.Close() })
		_, err = fmt.Fprintf(conn, "GET /long HTTP/1.1\r\nhost: faults\r\n\r\n")
		buf := make([]byte, 512)
		tick := time.NewTicker(10 * time.Millisecond)
		for err == nil {
			<-tick.C
			_, err = conn.Read(buf)
		}
		tick.Stop()
		end()
		_ = conn.Close()
	}
}
