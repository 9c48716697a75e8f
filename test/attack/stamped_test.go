// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stamped is a connection that knows when the kernel had the bytes that were read last,
// however late who reads them was woken: clients that share a CPU with an attacker would
// measure him, not the sidecar.
type stamped struct {
	*net.TCPConn
	raw syscall.RawConn

	mu             sync.Mutex
	wrote, arrived time.Time
}

func newStamped(c *net.TCPConn) (*stamped, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var on error
	if err := raw.Control(func(fd uintptr) {
		on = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}); err != nil {
		return nil, err
	}
	return &stamped{TCPConn: c, raw: raw}, on
}

func (c *stamped) Read(b []byte) (n int, err error) {
	var control [64]byte
	var told int
	if waited := c.raw.Read(func(fd uintptr) bool {
		n, told, _, _, err = unix.Recvmsg(int(fd), b, control[:], 0)
		return err != unix.EAGAIN
	}); waited != nil {
		return 0, waited
	}
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(control[:told])
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			c.mu.Lock()
			c.arrived = at
			c.mu.Unlock()
		}
	}
	return n, err
}

func (c *stamped) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.wrote.IsZero() {
		c.wrote = time.Now()
	}
	c.mu.Unlock()
	return c.TCPConn.Write(b)
}

// took is how long it was from the first write since it was asked last to the arrival of
// what was read last.
func (c *stamped) took() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.arrived.Sub(c.wrote)
	c.wrote, c.arrived = time.Time{}, time.Time{}
	return d
}

// stampedBy makes c dial such connections and returns the last of them.
func stampedBy(t testing.TB, c *http.Client) func() *stamped {
	tr, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport of ours")
	}
	var mu sync.Mutex
	var last *stamped
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		s, err := newStamped(conn.(*net.TCPConn))
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		last = s
		return s, nil
	}
	return func() *stamped {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}
