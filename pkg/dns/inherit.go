// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// Sockets are the server's, for a successor to go on with: copies are to be made.
func (s *Server) Sockets() ([]net.Listener, []net.PacketConn) { return s.streams, s.packets }

// Leave stops taking queries, since a successor does on the same sockets; those that
// are under way are answered, and Serve returns then.
func (s *Server) Leave() {
	s.leaving.Store(true)
	now := time.Unix(1, 0) // of this process's own waits: the sockets are another's, too
	for _, p := range s.packets {
		_ = p.SetReadDeadline(now)
	}
	for _, l := range s.streams {
		if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(now)
		}
	}
}

// inherited takes the listener at an address out of a list, nil where there is none.
func inherited(list *[]net.Listener, at netip.AddrPort) net.Listener {
	i := slices.IndexFunc(*list, func(l net.Listener) bool { return l.Addr().String() == at.String() })
	if i < 0 {
		return nil
	}
	l := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return l
}

func inheritedPacket(list *[]net.PacketConn, at net.Addr) net.PacketConn {
	i := slices.IndexFunc(*list, func(p net.PacketConn) bool { return p.LocalAddr().String() == at.String() })
	if i < 0 {
		return nil
	}
	p := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return p
}

// closeInherited closes what is of no address of this server.
func (s *Server) closeInherited() {
	for _, l := range s.config.Streams {
		_ = l.Close()
	}
	for _, p := range s.config.Packets {
		_ = p.Close()
	}
	s.config.Streams, s.config.Packets = nil, nil
}
