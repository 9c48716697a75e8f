// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Names says which names are the mesh's. Any goroutine may ask.
type Names interface {
	// Has is asked with a name in lower case, without a final dot.
	Has(name string) bool
}

// Config is what a server works with.
type Config struct {
	// Address is a loopback address and port. Where it is 127.0.0.1, ::1 is served
	// as well if the host has it: redirected queries come to the family they had.
	Address   netip.AddrPort
	Names     Names
	Addresses *Addresses
	Resolvers []netip.AddrPort // tried in turn
	Timeout   time.Duration    // of one resolver; 0: 2 s
	// MaxForwards bounds queries under way to resolvers, MaxConns TCP clients; 0: 256 and 64.
	MaxForwards, MaxConns int
	// Streams and Packets are sockets of a predecessor, which the server uses where they
	// are of its addresses, and closes otherwise.
	Streams []net.Listener
	Packets []net.PacketConn
}

// Counts are what a server has done since its start.
type Counts struct {
	Queries   atomic.Uint64 // datagrams and messages that came
	Mesh      atomic.Uint64 // answered from the mesh's names
	Forwarded atomic.Uint64 // answered by a resolver
	Failed    atomic.Uint64 // no resolver answered: SERVFAIL
	Refused   atomic.Uint64 // more than MaxForwards at once: SERVFAIL, or more than MaxConns: closed
	Malformed atomic.Uint64
	Spoofed   atomic.Uint64 // answers of resolvers with a foreign id or question
}

// idleTCP ends TCP connections on which nothing is asked.
const idleTCP = 10 * time.Second

// Server answers queries. Serve may be called once.
type Server struct {
	config   Config
	counts   Counts
	packets  []net.PacketConn
	streams  []net.Listener
	forwards chan struct{} // one for each query under way
	conns    chan struct{}
	working  sync.WaitGroup
	leaving  atomic.Bool
}

// Listen binds UDP and TCP on the same port.
func Listen(ctx context.Context, c Config) (*Server, error) {
	if !c.Address.Addr().IsLoopback() {
		return nil, fmt.Errorf("%s is not loopback: others could use it to amplify; want 127.0.0.1:PORT", c.Address)
	}
	setDefault(&c.Timeout, 2*time.Second)
	setDefault(&c.MaxForwards, 256)
	setDefault(&c.MaxConns, 64)
	s := &Server{config: c, forwards: make(chan struct{}, c.MaxForwards), conns: make(chan struct{}, c.MaxConns)}
	defer s.closeInherited()
	if err := s.bind(ctx, c.Address); err != nil {
		s.close()
		return nil, err
	}
	if c.Address.Addr().Is4() {
		err := s.bind(ctx, netip.AddrPortFrom(netip.IPv6Loopback(), s.Address().Port()))
		if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT) {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func setDefault[T int | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

func (s *Server) bind(ctx context.Context, a netip.AddrPort) error {
	var lc net.ListenConfig
	l, err := inherited(&s.config.Streams, a), error(nil)
	if l == nil {
		if l, err = lc.Listen(ctx, "tcp", a.String()); err != nil {
			return err
		}
	}
	s.streams = append(s.streams, l)
	p := inheritedPacket(&s.config.Packets, l.Addr())
	if p == nil {
		if p, err = lc.ListenPacket(ctx, "udp", l.Addr().String()); err != nil {
			return err
		}
	}
	s.packets = append(s.packets, p)
	return nil
}

// Address is where the server listens, with the port it got.
func (s *Server) Address() netip.AddrPort {
	return s.streams[0].Addr().(*net.TCPAddr).AddrPort()
}

// Counts are the server's; they go on counting.
func (s *Server) Counts() *Counts { return &s.counts }

// Serve answers until ctx ends, and returns when nothing is under way any more.
func (s *Server) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	for _, p := range s.packets {
		s.working.Go(func() { s.servePackets(ctx, p) })
	}
	for _, l := range s.streams {
		s.working.Go(func() { s.serveStreams(ctx, l) })
	}
	s.working.Wait()
}

// Close closes the sockets of a server that never served.
func (s *Server) Close() { s.close() }

func (s *Server) close() {
	for _, p := range s.packets {
		_ = p.Close()
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
}

func (s *Server) servePackets(ctx context.Context, p net.PacketConn) {
	b := make([]byte, mostUDP)
	for ctx.Err() == nil {
		n, from, err := p.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) || err != nil && s.leaving.Load() {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		s.counts.Queries.Add(1)
		q, answer := s.local(b[:n])
		if answer == nil && q != nil {
			s.relayPacket(ctx, p, from, append([]byte(nil), b[:n]...), q)
			continue
		}
		if answer != nil {
			_, _ = p.WriteTo(answer, from)
		}
	}
}

// relayPacket forwards on a goroutine, or refuses where too many are under way.
func (s *Server) relayPacket(ctx context.Context, p net.PacketConn, from net.Addr, raw []byte, q *query) {
	select {
	case s.forwards <- struct{}{}:
	default:
		s.counts.Refused.Add(1)
		if answer, err := q.reply(dnsmessage.RCodeServerFailure, nil); err == nil {
			_, _ = p.WriteTo(answer, from)
		}
		return
	}
	s.working.Go(func() {
		defer func() { <-s.forwards }()
		answer := s.forwarded(ctx, raw, q, false)
		if len(answer) > q.udpBytes {
			answer, _ = q.truncate()
		}
		if answer != nil {
			_, _ = p.WriteTo(answer, from)
		}
	})
}

// local answers what needs no resolver; with a query and no answer it must be
// forwarded, with neither it is dropped.
func (s *Server) local(raw []byte) (*query, []byte) {
	q, code, err := parseQuery(raw)
	if err != nil {
		s.counts.Malformed.Add(1)
		return nil, nil
	}
	if code != 0 {
		s.counts.Malformed.Add(1)
		answer, _ := q.reply(code, nil)
		return &q, answer
	}
	if q.question.Class != dnsmessage.ClassINET || !s.config.Names.Has(q.name) {
		return &q, nil
	}
	v4, v6, err := s.config.Addresses.Of(q.name)
	if err != nil {
		s.counts.Failed.Add(1)
		answer, _ := q.reply(dnsmessage.RCodeServerFailure, nil)
		return &q, answer
	}
	s.counts.Mesh.Add(1)
	answer, _ := q.reply(dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder, h dnsmessage.ResourceHeader) error {
		switch q.question.Type {
		case dnsmessage.TypeA:
			return b.AResource(h, dnsmessage.AResource{A: v4.As4()})
		case dnsmessage.TypeAAAA:
			return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: v6.As16()})
		}
		return nil // the name is there, with nothing of that type
	})
	return &q, answer
}

// forwarded is a resolver's answer, or SERVFAIL.
func (s *Server) forwarded(ctx context.Context, raw []byte, q *query, tcp bool) []byte {
	answer, err := s.forward(ctx, raw, q, tcp)
	if err == nil && answer != nil {
		s.counts.Forwarded.Add(1)
		return answer
	}
	s.counts.Failed.Add(1)
	answer, _ = q.reply(dnsmessage.RCodeServerFailure, nil)
	return answer
}

func (s *Server) serveStreams(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// No descriptor is free: wait for one.
			timer := time.NewTimer(10 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
			s.working.Go(func() {
				defer func() { <-s.conns }()
				s.serveStream(ctx, c)
			})
		default:
			s.counts.Refused.Add(1)
			_ = c.Close()
		}
	}
}

// serveStream answers one query after the other.
func (s *Server) serveStream(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	for {
		_ = c.SetDeadline(time.Now().Add(idleTCP))
		raw, err := readMessage(c)
		if err != nil {
			return
		}
		s.counts.Queries.Add(1)
		q, answer := s.local(raw)
		if q == nil {
			return
		}
		if answer == nil {
			answer = s.forwarded(ctx, raw, q, true)
		}
		_ = c.SetDeadline(time.Now().Add(idleTCP))
		if answer == nil || writeMessage(c, answer) != nil {
			return
		}
	}
}
