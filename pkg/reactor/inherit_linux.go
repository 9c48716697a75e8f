// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"maps"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketGroup is the listening sockets of one address, as one process gives them to
// another.
type SocketGroup struct {
	Addr Addr
	FDs  []int
}

// Close closes the sockets.
func (g *SocketGroup) Close() {
	for _, fd := range g.FDs {
		_ = syscall.Close(fd)
	}
	g.FDs = nil
}

// Duplicate returns copies of all sockets, which are the caller's to close: the same
// sockets with the same backlogs, for a successor. Sockets of other Binders than the
// kernel's have none.
func (s *Sockets) Duplicate() (all []SocketGroup, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if err != nil {
			for i := range all {
				all[i].Close()
			}
		}
	}()
	for _, set := range s.sets {
		all = append(all, SocketGroup{Addr: set.Addr()})
		g := &all[len(all)-1]
		for _, fd := range set.fds {
			n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return all, os.NewSyscallError("fcntl", err)
			}
			g.FDs = append(g.FDs, n)
		}
	}
	return all, nil
}

// Disown leaves the files of Unix sockets where they are when the sockets are closed: a
// successor listens there.
func (s *Sockets) Disown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.binder.(interface{ disown() }); ok {
		d.disown()
	}
}

func (b *kernelBinder) disown() { b.paths = map[string]fileID{} }

// Own makes the files of inherited Unix sockets this process's, which takes them away
// with the sockets. Until then they are of whoever bound them, and still serves there.
func (s *Sockets) Own() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.binder.(*Inherited); ok {
		maps.Copy(i.paths, i.lent)
		clear(i.lent)
	}
}

// Inherited is a Binder that gives out listening sockets which others have bound, a
// predecessor or a service manager, and binds what is not among them. Each socket is
// given out once. Sockets keep their backlog. The files of Unix sockets stay where they
// are unless Sockets.Own was called.
type Inherited struct {
	kernelBinder
	lent map[string]fileID // files of others; Sockets.mu guards it

	mu     sync.Mutex // guards groups: Unclaimed is called beside the Sockets' own lock
	groups map[string]SocketGroup
}

// NewInherited takes over the sockets of the groups. Those that nobody has asked for
// are closed by CloseUnclaimed.
func NewInherited(groups []SocketGroup) *Inherited {
	i := &Inherited{kernelBinder: kernelBinder{paths: map[string]fileID{}}, lent: map[string]fileID{}, groups: map[string]SocketGroup{}}
	for _, g := range groups {
		key := g.Addr.String()
		if had, ok := i.groups[key]; ok { // a service manager's, one each
			g.FDs = append(had.FDs, g.FDs...)
		}
		i.groups[key] = g
	}
	return i
}

// Has reports whether an address is among those that were inherited and not claimed.
func (i *Inherited) Has(addr Addr) bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.groups[addr.String()]
	return ok
}

// CloseUnclaimed closes the sockets that nobody has asked for, and says whose they were.
func (i *Inherited) CloseUnclaimed() (addrs []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key, g := range i.groups {
		g.Close()
		delete(i.groups, key)
		addrs = append(addrs, key)
	}
	return addrs
}

// Listen implements Binder.
func (i *Inherited) Listen(addr Addr, n int, o ListenOptions) ([]int, Addr, bool, error) {
	i.mu.Lock()
	g, ok := i.groups[addr.String()]
	delete(i.groups, addr.String())
	i.mu.Unlock()
	if !ok {
		return i.kernelBinder.Listen(addr, n, o)
	}
	for _, fd := range g.FDs {
		err := syscall.SetNonblock(fd, true) // a service manager's may block
		if err == nil && !addr.IsUnix() {
			err = setStreamOptions(fd, o.KeepAlive)
		}
		if err != nil {
			g.Close()
			return nil, addr, false, os.NewSyscallError("setsockopt", err)
		}
	}
	if addr.IsUnix() && !isAbstract(addr) {
		i.lent[addr.Unix] = identify(addr.Unix)
	}
	return g.FDs, addr, len(g.FDs) == 1, nil
}

// CheckListening returns an error unless fd is a TCP or Unix stream socket that listens,
// and where it does.
func CheckListening(fd int) (Addr, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return Addr{}, os.NewSyscallError("getsockopt", err)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return Addr{}, os.NewSyscallError("getsockopt", err)
	}
	if kind != unix.SOCK_STREAM || listens == 0 {
		return Addr{}, syscall.EINVAL
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return Addr{}, os.NewSyscallError("getsockname", err)
	}
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		return Addr{Unix: u.Name}, nil
	}
	k := kernel{}
	return TCPAddr(k.LocalAddr(fd)), nil
}

var _ Binder = (*Inherited)(nil)
