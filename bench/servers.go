// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"sync"
)

// servers are the backends of gRPC and TCP, in this program and so on its CPU.
type servers struct {
	grpc, source, echo int // ports

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	closed    bool
	running   sync.WaitGroup
}

func (s *session) startServers() (*servers, error) {
	v := &servers{conns: map[net.Conn]struct{}{}}
	for _, x := range []struct {
		port  *int
		serve func(net.Conn)
	}{{&v.grpc, serveGRPC}, {&v.source, serveSource}, {&v.echo, serveEcho}} {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			v.close()
			return nil, err
		}
		*x.port = l.Addr().(*net.TCPAddr).Port
		v.listeners = append(v.listeners, l)
		v.running.Go(func() { v.accept(l, x.serve) })
	}
	return v, nil
}

func (v *servers) accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		if !v.hold(c) {
			_ = c.Close()
			return
		}
		v.running.Go(func() {
			defer v.drop(c)
			serve(c)
		})
	}
}

func (v *servers) hold(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return false
	}
	v.conns[c] = struct{}{}
	return true
}

func (v *servers) drop(c net.Conn) {
	v.mu.Lock()
	delete(v.conns, c)
	v.mu.Unlock()
	_ = c.Close()
}

// close ends the servers and waits for them.
func (v *servers) close() {
	v.mu.Lock()
	v.closed = true
	for _, l := range v.listeners {
		_ = l.Close()
	}
	for c := range v.conns {
		_ = c.Close()
	}
	v.mu.Unlock()
	v.running.Wait()
}

const transferSize = 256 << 10

// serveSource sends until the peer has enough.
func serveSource(c net.Conn) {
	b := make([]byte, transferSize)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func serveEcho(c net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		if n > 0 {
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
