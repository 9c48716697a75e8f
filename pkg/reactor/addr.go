// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxUnixPath is what sockaddr_un holds, less the terminating zero.
const maxUnixPath = 107

// Addr is where a stream socket listens or connects: an IP address and port, or
// the path of a Unix socket. An abstract Unix name starts with '@'. The zero
// Addr is no address.
type Addr struct {
	netip.AddrPort
	Unix string
}

// TCPAddr returns the Addr of an IP address and port.
func TCPAddr(ap netip.AddrPort) Addr { return Addr{AddrPort: ap} }

// ParseAddr reads "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name" or
// "@name". Host names are refused: resolving them is not a loop's work.
func ParseAddr(s string) (Addr, error) {
	if strings.HasPrefix(s, "unix:") || strings.HasPrefix(s, "@") {
		path := strings.TrimPrefix(s, "unix:")
		switch {
		case path == "" || path == "@":
			return Addr{}, fmt.Errorf("address %q: the name of the unix socket is empty", s)
		case len(path) > maxUnixPath:
			return Addr{}, fmt.Errorf("address %q: %d bytes are more than the %d that a unix socket's name may have", s, len(path), maxUnixPath)
		case strings.IndexByte(path, 0) >= 0:
			return Addr{}, fmt.Errorf("address %q: zero byte in the name of a unix socket", s)
		}
		return Addr{Unix: path}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return Addr{}, fmt.Errorf("address %q: want ip:port, [ipv6]:port, unix:/path or @name", s)
	}
	return Addr{AddrPort: ap}, nil
}

// IsUnix reports whether a names a Unix socket.
func (a Addr) IsUnix() bool { return a.Unix != "" }

// IsZero reports whether a is no address.
func (a Addr) IsZero() bool { return a.Unix == "" && !a.AddrPort.IsValid() }

// String returns what ParseAddr reads; "" for the zero Addr.
func (a Addr) String() string {
	switch {
	case strings.HasPrefix(a.Unix, "@"):
		return a.Unix
	case a.Unix != "":
		return "unix:" + a.Unix
	case !a.AddrPort.IsValid():
		return ""
	}
	return a.AddrPort.String()
}
