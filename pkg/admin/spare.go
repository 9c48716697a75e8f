// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// spareDescriptors is how many connections the admin port can take when the
// process has no descriptor left.
const spareDescriptors = 4

// spared keeps descriptors back for its connections: clients of the data path
// that use up all others must not keep out who wants to know why.
type spared struct {
	net.Listener

	mu    sync.Mutex // guards what follows
	spare []*os.File
	over  bool
}

func spareFor(l net.Listener) *spared {
	s := &spared{Listener: l}
	s.refill()
	return s
}

// Accept implements net.Listener.
func (s *spared) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err == nil {
			return &sparing{Conn: c, of: s}, nil
		}
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) || !s.give() {
			return nil, err
		}
	}
}

// Close implements net.Listener.
func (s *spared) Close() error {
	err := s.Listener.Close()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	for s.give() {
	}
	return err
}

// give frees a descriptor, if one was kept.
func (s *spared) give() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spare) == 0 {
		return false
	}
	last := len(s.spare) - 1
	_ = s.spare[last].Close() // nothing was written to it
	s.spare = s.spare[:last]
	return true
}

// refill keeps as many as there should be, or as can be had.
func (s *spared) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.spare) < spareDescriptors && !s.over {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return // the next connection that ends tries again
		}
		s.spare = append(s.spare, f)
	}
}

// sparing is a connection whose descriptor is kept back again when it ends.
type sparing struct {
	net.Conn
	of   *spared
	once sync.Once
}

// Close implements net.Conn.
func (c *sparing) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.of.refill)
	return err
}
