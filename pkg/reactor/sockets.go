// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
)

// Binder makes listening sockets. The kernel is one; a simulation is another.
type Binder interface {
	// Listen binds n sockets to one address, or one that is shared when shared
	// is returned as true; of an address that was inherited it may return another
	// number of them. bound has the port that was chosen where addr has 0.
	Listen(addr Addr, n int, o ListenOptions) (fds []int, bound Addr, shared bool, err error)
	// Close closes the sockets of one Listen.
	Close(fds []int, bound Addr)
}

// ListenOptions are the settings of a listening socket.
type ListenOptions struct {
	// Backlog of connections not yet accepted, for each socket; 0 is 4096. The
	// system may bound it (net.core.somaxconn).
	Backlog int
	// KeepAlive of the accepted connections.
	KeepAlive KeepAlive
	// DualStack lets [::] take IPv4 connections too.
	DualStack bool
	// Mode is the permission of a Unix socket's path; 0 leaves it to the umask.
	Mode uint32
	// FreeBind allows an IP address that the machine does not have (yet).
	FreeBind bool
}

// Sockets is the process-wide set of listening sockets, by address. Sockets
// outlive the listeners of a configuration: they are closed when the last user
// has released them. Its methods may be called from any goroutine but a loop's,
// since binding is slow.
type Sockets struct {
	binder Binder

	mu   sync.Mutex // guards sets and users
	sets map[string]*SocketSet
}

// SocketSet is the listening sockets of one address, one for each loop.
type SocketSet struct {
	owner   *Sockets
	key     string
	fds     []int
	sockets []*Socket
	surplus []*Socket // of a predecessor with more loops: connections wait there, too
	users   int
}

// Socket is one listening socket, which a loop takes connections from.
type Socket struct {
	fd     int
	addr   Addr
	shared bool // by several loops
}

// NewSockets returns an empty set; a nil Binder is the kernel.
func NewSockets(b Binder) *Sockets {
	if b == nil {
		b = &kernelBinder{paths: map[string]fileID{}}
	}
	return &Sockets{binder: b, sets: map[string]*SocketSet{}}
}

// Open returns the sockets that listen at addr, n of them, and binds them if
// nobody has yet. Every Open needs a Release. An address that is open already is
// shared, and must have been opened for as many loops. With port 0 each Open
// binds a port of its own.
func (s *Sockets) Open(addr Addr, n int, o ListenOptions) (*SocketSet, error) {
	if addr.IsZero() {
		return nil, errors.New("listen: no address")
	}
	if n < 1 {
		return nil, fmt.Errorf("listen %s: for %d loops", addr, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.sets[addr.String()]; set != nil {
		if len(set.sockets) != n {
			return nil, fmt.Errorf("listen %s: open for %d loops, wanted for %d", addr, len(set.sockets), n)
		}
		set.users++
		return set, nil
	}
	fds, bound, shared, err := s.binder.Listen(addr, n, o)
	if err != nil {
		return nil, listenError(addr, err)
	}
	set := &SocketSet{owner: s, key: bound.String(), fds: fds, users: 1}
	for i := range n {
		set.sockets = append(set.sockets, &Socket{fd: fds[i%len(fds)], addr: bound, shared: (shared || len(fds) < n) && n > 1})
	}
	for _, fd := range fds[min(n, len(fds)):] {
		set.surplus = append(set.surplus, &Socket{fd: fd, addr: bound})
	}
	s.sets[set.key] = set
	return set, nil
}

// listenError says what a user can do about it.
func listenError(addr Addr, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = " (is another sidecar running?)"
	case errors.Is(err, syscall.EACCES) && !addr.IsUnix() && addr.Port() < 1024:
		hint = " (ports below 1024 need privilege)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = " (this machine does not have the address)"
	case errors.Is(err, syscall.EMFILE):
		hint = " (raise the limit on open files: ulimit -n)"
	}
	name := strings.TrimPrefix(addr.String(), "unix:")
	return fmt.Errorf("listen %s: %w%s", name, err, hint)
}

// Addr returns where the sockets listen, with the port that was chosen for 0.
func (s *SocketSet) Addr() Addr { return s.sockets[0].addr }

// Len returns for how many loops there are sockets.
func (s *SocketSet) Len() int { return len(s.sockets) }

// Socket returns the socket of loop i. Where sockets were inherited, the loop may have
// to take connections from more of them: see Of.
func (s *SocketSet) Socket(i int) *Socket { return s.sockets[i] }

// Of returns all sockets that loop i takes connections from, one but for a set that was
// inherited from a process with more loops.
func (s *SocketSet) Of(i int) []*Socket {
	all := []*Socket{s.sockets[i]}
	for j := i; j < len(s.surplus); j += len(s.sockets) {
		all = append(all, s.surplus[j])
	}
	return all
}

// Release ends one Open; the last one closes the sockets. All listeners on them
// must have been removed before.
func (s *SocketSet) Release() {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	if s.users == 0 {
		return
	}
	if s.users--; s.users > 0 {
		return
	}
	delete(s.owner.sets, s.key)
	s.owner.binder.Close(s.fds, s.Addr())
}

// Addr returns where the socket listens.
func (s *Socket) Addr() Addr { return s.addr }

// FD returns the descriptor. It stays owned by the set.
func (s *Socket) FD() int { return s.fd }
