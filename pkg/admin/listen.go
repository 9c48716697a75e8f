// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// listen binds HOST:PORT or unix:PATH; path is the socket's, "" for TCP and
// abstract sockets.
func listen(address string) (l net.Listener, path string, err error) {
	socket, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, "", errors.New("want HOST:PORT or unix:PATH")
		}
		if host == "" {
			return nil, "", errors.New("the host is missing: 127.0.0.1, or 0.0.0.0 with a token for all addresses")
		}
		l, err = net.Listen("tcp", address)
		return l, "", err
	}
	if socket == "" {
		return nil, "", errors.New("the path is missing: unix:PATH")
	}
	if strings.HasPrefix(socket, "@") {
		// Anybody in the network namespace can connect to an abstract socket, as no
		// file's mode is in the way.
		return nil, "", errors.New("abstract Unix sockets have no permissions: use a path")
	}
	if err := removeDead(socket); err != nil {
		return nil, "", err
	}
	l, err = net.Listen("unix", socket)
	if err != nil {
		return nil, "", err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = l.Close() // the reason is err
		return nil, "", err
	}
	return l, socket, nil
}

// unixPath is the path of a Unix socket's address, "" for TCP.
func unixPath(address string) string {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return ""
	}
	return path
}

// Socket is what the server listens on, for a successor to go on with: a copy is to be
// made.
func (s *Server) Socket() net.Listener { return s.bound }

// Own makes the file of an inherited Unix socket the server's, which removes it at its
// end: nobody else serves there any more.
func (s *Server) Own() { s.path = unixPath(s.config.Address) }

// Disown leaves the file of a Unix socket where it is when the server closes: a
// successor listens there.
func (s *Server) Disown() {
	s.path = ""
	if u, ok := s.bound.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

// removeDead removes a socket that nobody listens on. Any other file stays, and
// binding fails.
func removeDead(path string) error {
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Type() != os.ModeSocket {
		return nil // binding tells what is wrong
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// limited closes connections beyond a number at once, rather than let them wait:
// a client that holds many must not keep the next one from learning that.
type limited struct {
	net.Listener
	most int64
	open atomic.Int64
}

func limitConnections(l net.Listener, most int64) net.Listener {
	return &limited{Listener: l, most: most}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			return &counted{Conn: c, of: l}, nil
		}
		l.open.Add(-1)
		_ = c.Close() // refused
	}
}

type counted struct {
	net.Conn
	of   *limited
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// freshConns are connections that have not sent anything yet. net/http waits five
// seconds for their first request when it shuts down; nobody else does.
type freshConns struct {
	mu   sync.Mutex // guards what follows
	list map[net.Conn]struct{}
	over bool
}

// changed is the server's ConnState hook.
func (f *freshConns) changed(c net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(f.list, c)
	case f.over:
		_ = c.Close() // it came too late
	default:
		if f.list == nil {
			f.list = map[net.Conn]struct{}{}
		}
		f.list[c] = struct{}{}
	}
}

func (f *freshConns) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for c := range f.list {
		_ = c.Close() // it had nothing to say
	}
}
