// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const defaultBacklog = 4096

// kernelBinder listens on real sockets. It remembers which files are its own
// Unix sockets, so that it removes no successor's. Sockets.mu guards it.
type kernelBinder struct{ paths map[string]fileID }

type fileID struct{ device, inode uint64 }

// Close closes the sockets and takes the path of a Unix socket away, so that
// clients find no file rather than a dead socket.
func (b *kernelBinder) Close(fds []int, bound Addr) {
	if id, ok := b.paths[bound.Unix]; ok {
		delete(b.paths, bound.Unix)
		if identify(bound.Unix) == id {
			_ = os.Remove(bound.Unix)
		}
	}
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

func identify(path string) fileID {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return fileID{}
	}
	return fileID{device: uint64(st.Dev), inode: st.Ino}
}

// Listen binds the first socket without SO_REUSEPORT, so that an address that
// anybody else listens at is an error, also where the other would share it, and
// opens the group only when that one listens: there is no moment in which two
// processes can come to share a port unawares.
func (b *kernelBinder) Listen(addr Addr, n int, o ListenOptions) (fds []int, bound Addr, shared bool, err error) {
	if o.Backlog <= 0 {
		o.Backlog = defaultBacklog
	}
	if addr.IsUnix() {
		fd, err := listenUnix(addr, o)
		if err == nil && !isAbstract(addr) {
			b.paths[addr.Unix] = identify(addr.Unix)
		}
		return []int{fd}, addr, true, err
	}
	defer func() {
		if err != nil {
			b.Close(fds, bound)
		}
	}()
	bound = addr
	for i := range n {
		fd, err := bindTCP(&bound, i > 0, o)
		if err != nil {
			return fds, bound, false, err
		}
		fds = append(fds, fd)
		if i == 0 && n > 1 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return fds, bound, false, os.NewSyscallError("setsockopt", err)
			}
		}
	}
	return fds, bound, false, nil
}

// bindTCP returns a listening socket and fills in the port of addr.
func bindTCP(addr *Addr, reusePort bool, o ListenOptions) (int, error) {
	sa, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	family := syscall.AF_INET6
	if _, ok := sa.(*unix.SockaddrInet4); ok {
		family = syscall.AF_INET
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := setListenOptions(fd, family, reusePort, o); err != nil {
		_ = syscall.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	if err = unix.Bind(fd, sa); err == nil {
		err = syscall.Listen(fd, o.Backlog)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	if addr.Port() == 0 {
		k := kernel{}
		addr.AddrPort = k.LocalAddr(fd)
	}
	return fd, nil
}

func setListenOptions(fd, family int, reusePort bool, o ListenOptions) error {
	set := func(level, name, value int) error { return unix.SetsockoptInt(fd, level, name, value) }
	// Connections of the run before, in TIME_WAIT, are no reason not to listen.
	if err := set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if reusePort {
		if err := set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if family == syscall.AF_INET6 {
		only := 1
		if o.DualStack {
			only = 0
		}
		if err := set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if o.FreeBind {
		if err := set(unix.IPPROTO_IP, unix.IP_FREEBIND, 1); err != nil {
			return err
		}
	}
	return setStreamOptions(fd, o.KeepAlive)
}

// listenUnix binds a path or an abstract name. A path that a dead process left
// behind is taken over; one that somebody listens at, or that is no socket, is not.
func listenUnix(addr Addr, o ListenOptions) (int, error) {
	if err := removeStale(addr); err != nil {
		return -1, err
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: addr.Unix}); err == nil && o.Mode != 0 && !isAbstract(addr) {
		err = os.Chmod(addr.Unix, fs.FileMode(o.Mode)&fs.ModePerm)
	}
	if err == nil {
		err = syscall.Listen(fd, o.Backlog)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func isAbstract(a Addr) bool { return strings.HasPrefix(a.Unix, "@") }

func removeStale(addr Addr) error {
	if isAbstract(addr) {
		return nil
	}
	info, err := os.Lstat(addr.Unix)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil // nothing there, or nothing of ours: bind tells
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: addr.Unix}); err != unix.ECONNREFUSED {
		return nil
	}
	return os.Remove(addr.Unix)
}

var _ Binder = (*kernelBinder)(nil)
