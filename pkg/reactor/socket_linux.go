// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Connect makes the socket, sets its options and starts to connect it.
func (k *kernel) Connect(to *Addr, o *DialOptions) (int, syscall.Errno) {
	n, errno := k.encodeSockaddr(to)
	if errno != 0 {
		return -1, errno
	}
	family := int(k.address.Addr.Family)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, asErrno(err)
	}
	if family != syscall.AF_UNIX {
		err = setStreamOptions(fd, o.KeepAlive)
		if o.Buffer > 0 { // before the window's scale is told
			k.Bound(fd, o.Buffer)
		}
	}
	if err == nil && !o.Local.IsZero() {
		err = bindLocal(fd, &o.Local)
	}
	if err != nil {
		k.CloseFD(fd)
		return -1, asErrno(err)
	}
	_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&k.address)), uintptr(n))
	switch errno {
	case 0, syscall.EINPROGRESS, syscall.EINTR: // interrupted or not, it goes on
		return fd, 0
	}
	k.CloseFD(fd)
	return -1, errno
}

// setStreamOptions sets what a TCP connection of ours always has. Accepted
// connections inherit it from their listening socket.
func setStreamOptions(fd int, ka KeepAlive) error {
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if ka == (KeepAlive{}) {
		return nil
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1); err != nil {
		return err
	}
	for _, o := range [...]struct{ name, value int }{
		{syscall.TCP_KEEPIDLE, wholeSeconds(ka.Idle)},
		{syscall.TCP_KEEPINTVL, wholeSeconds(ka.Interval)},
		{syscall.TCP_KEEPCNT, ka.Probes},
	} {
		if o.value <= 0 { // the system's default
			continue
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, o.name, o.value); err != nil {
			return err
		}
	}
	return nil
}

// Bound implements bounder. The kernel counts what it needs for the bytes, too, and
// allows twice as much; one that refuses keeps its own sizes.
func (k *kernel) Bound(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, max(bytes/2, 1))
}

func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func bindLocal(fd int, local *Addr) error {
	sa, err := sockaddr(local)
	if err != nil {
		return err
	}
	if !local.IsUnix() && local.Port() == 0 {
		// Choose the port at connect, when the peer is known: more of them fit.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sa)
}

func asErrno(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return syscall.EINVAL
}

// sockaddr is the form of a that binds; connecting uses encodeSockaddr, which
// allocates nothing.
func sockaddr(a *Addr) (unix.Sockaddr, error) {
	if a.IsUnix() {
		return &unix.SockaddrUnix{Name: a.Unix}, nil // it turns a leading '@' into a zero byte
	}
	ip := a.Addr().Unmap()
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
	}
	if !ip.IsValid() {
		return nil, syscall.EINVAL
	}
	zone, errno := zoneID(ip.Zone())
	if errno != 0 {
		return nil, errno
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16(), ZoneId: zone}, nil
}

func zoneID(zone string) (uint32, syscall.Errno) {
	if zone == "" {
		return 0, 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), 0
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, syscall.ENODEV
	}
	return uint32(ifi.Index), 0
}

// encodeSockaddr puts a into k.address and returns its length.
func (k *kernel) encodeSockaddr(a *Addr) (uint32, syscall.Errno) {
	if a.IsUnix() {
		sa := (*syscall.RawSockaddrUnix)(unsafe.Pointer(&k.address))
		*sa = syscall.RawSockaddrUnix{Family: syscall.AF_UNIX}
		if len(a.Unix) > maxUnixPath {
			return 0, syscall.ENAMETOOLONG
		}
		for i := range len(a.Unix) {
			sa.Path[i] = int8(a.Unix[i])
		}
		n := uint32(unsafe.Offsetof(sa.Path)) + uint32(len(a.Unix))
		if a.Unix[0] == '@' { // abstract: the name is its bytes, with no zero at the end
			sa.Path[0] = 0
			return n, 0
		}
		return n + 1, 0
	}
	ip := a.Addr().Unmap()
	if ip.Is4() {
		sa := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&k.address))
		*sa = syscall.RawSockaddrInet4{Family: syscall.AF_INET, Addr: ip.As4()}
		putPort(&sa.Port, a.Port())
		return syscall.SizeofSockaddrInet4, 0
	}
	if !ip.IsValid() {
		return 0, syscall.EINVAL
	}
	zone, errno := zoneID(ip.Zone())
	sa := (*syscall.RawSockaddrInet6)(unsafe.Pointer(&k.address))
	*sa = syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Addr: ip.As16(), Scope_id: zone}
	putPort(&sa.Port, a.Port())
	return syscall.SizeofSockaddrInet6, errno
}

// putPort and getPort: the field holds the port in network byte order.
func putPort(field *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(field))
	b[0], b[1] = byte(port>>8), byte(port)
}

func getPort(field *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(field))
	return uint16(b[0])<<8 | uint16(b[1])
}

// decodeSockaddr returns zero for Unix sockets. IPv4 inside IPv6 comes out as IPv4.
func decodeSockaddr(any *syscall.RawSockaddrAny) netip.AddrPort {
	switch any.Addr.Family {
	case syscall.AF_INET:
		sa := (*syscall.RawSockaddrInet4)(unsafe.Pointer(any))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), getPort(&sa.Port))
	case syscall.AF_INET6:
		sa := (*syscall.RawSockaddrInet6)(unsafe.Pointer(any))
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, getPort(&sa.Port))
	}
	return netip.AddrPort{}
}
