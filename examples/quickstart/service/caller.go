// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// callLimit is how long a call may take.
const callLimit = 5 * time.Second

// caller calls one service through the sidecar over HTTP/1.1. It does what
// http.Client does, but without goroutines for each connection, as a whole mesh with
// its load runs on one machine here, and it never repeats a request: that is what the
// sidecar is for. It may be used by any number of goroutines.
type caller struct {
	address string // of the sidecar's outbound listener
	host    string // the service's name, by which the sidecar finds it

	mu   sync.Mutex
	idle []*callerConn // the last used one last
}

// callerConn is a connection with one request at a time.
type callerConn struct {
	net.Conn
	raw syscall.RawConn
	in  *bufio.Reader
	out []byte
}

// get sends GET / with the header fields of the request that have the names, and
// returns the answer's body of at most maxAnswer bytes.
func (c *caller) get(from http.Header, names []string) (status int, body []byte, err error) {
	conn, err := c.take()
	if err != nil {
		return 0, nil, err
	}
	status, body, keep, err := conn.exchange(c.host, from, names)
	if err != nil || !keep {
		_ = conn.Close() // nothing is under way
		return status, body, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
	return status, body, nil
}

// take is an idle connection that has not ended, or another one.
func (c *caller) take() (*callerConn, error) {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			break
		}
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if conn.open() {
			return conn, nil
		}
		_ = conn.Close() // the other side has closed it
	}
	conn, err := net.DialTimeout("tcp", c.address, callLimit)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &callerConn{Conn: conn, raw: raw, in: bufio.NewReader(conn)}, nil
}

// open reports whether an idle connection still is: then there is nothing to read.
func (c *callerConn) open() bool {
	var err error
	failed := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return failed == nil && errors.Is(err, syscall.EAGAIN)
}

func (c *callerConn) exchange(host string, from http.Header, names []string) (status int, body []byte, keep bool, err error) {
	if err := c.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return 0, nil, false, err
	}
	b := append(append(append(c.out[:0], "GET / HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	for _, name := range names {
		for _, v := range from[name] {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	c.out = append(b, "\r\n"...)
	if _, err := c.Write(c.out); err != nil {
		return 0, nil, false, err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, false, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return response.StatusCode, body, !response.Close, err
}
