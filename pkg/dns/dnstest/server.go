// SPDX-License-Identifier: Apache-2.0

// Package dnstest is a DNS server for tests and benchmarks, whose answers and
// faults are set while it runs.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone is what a server answers for a name.
type Zone struct {
	Addresses []netip.Addr
	Alias     string // a CNAME in place of addresses
	TTL       uint32 // seconds
	Code      dnsmessage.RCode
	Silent    bool // no answer at all
	Truncated bool // by UDP the answer says only that it is too long
	// Aliases are CNAMEs from each name to the one after it, in place of Alias.
	Aliases []string
	// Before are datagrams that come ahead of the answer, made of what the answer is.
	Before []func(answer []byte) []byte
	// Instead makes what is sent in place of the answer, by UDP and TCP; nil: the answer.
	Instead func(answer []byte) []byte
}

// Server answers by UDP and TCP on one port of loopback. Names without a zone do
// not exist.
type Server struct {
	addr netip.AddrPort
	udp  net.PacketConn
	tcp  net.Listener
	done sync.WaitGroup

	mu      sync.Mutex
	zones   map[string]Zone
	queries map[string]int // by type and name, "A x.test."
	byTCP   int
	changed chan struct{} // closed with each query
}

// Start starts a server; addr is HOST:PORT, port 0 for a free one.
func Start(addr string) (*Server, error) {
	s := &Server{zones: map[string]Zone{}, queries: map[string]int{}, changed: make(chan struct{})}
	var err error
	for range 20 { // the port of the one may be taken for the other
		if s.tcp, err = net.Listen("tcp", addr); err != nil {
			continue
		}
		s.addr = s.tcp.Addr().(*net.TCPAddr).AddrPort()
		if s.udp, err = net.ListenPacket("udp", s.addr.String()); err == nil {
			break
		}
		_ = s.tcp.Close()
	}
	if err != nil {
		return nil, err
	}
	s.done.Go(s.serveUDP)
	s.done.Go(s.serveTCP)
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close stops it; what was bound is free when it returns.
func (s *Server) Close() {
	_ = s.udp.Close()
	_ = s.tcp.Close()
	s.done.Wait()
}

// Set sets what a name, in lower case with its final dot, is answered with.
func (s *Server) Set(name string, z Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones[name] = z
}

// Remove makes a name not exist.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, name)
}

// Addresses is a zone of addresses.
func Addresses(list ...string) Zone {
	z := Zone{TTL: 60}
	for _, a := range list {
		z.Addresses = append(z.Addresses, netip.MustParseAddr(a))
	}
	return z
}

// Queries is how many there were, for example of "A x.test."
func (s *Server) Queries(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[what]
}

// ByTCP is how many queries came by TCP.
func (s *Server) ByTCP() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byTCP
}

// Wait waits until there were n queries; it reports whether there were in time.
func (s *Server) Wait(what string, n int, limit time.Duration) bool {
	end := time.After(limit)
	for {
		s.mu.Lock()
		enough, changed := s.queries[what] >= n, s.changed
		s.mu.Unlock()
		if enough {
			return true
		}
		select {
		case <-changed:
		case <-end:
			return false
		}
	}
}

func (s *Server) serveUDP() {
	b := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(b)
		if err != nil {
			return
		}
		answer, z := s.answer(b[:n], false)
		if answer == nil {
			continue
		}
		for _, f := range z.Before {
			_, _ = s.udp.WriteTo(f(slices.Clone(answer)), from)
		}
		if z.Instead != nil {
			answer = z.Instead(answer)
		}
		_, _ = s.udp.WriteTo(answer, from)
	}
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.done.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			var n [2]byte
			if _, err := io.ReadFull(c, n[:]); err != nil {
				return
			}
			m := make([]byte, binary.BigEndian.Uint16(n[:]))
			if _, err := io.ReadFull(c, m); err != nil {
				return
			}
			answer, z := s.answer(m, true)
			if z.Instead != nil && answer != nil {
				answer = z.Instead(answer)
			}
			if answer != nil {
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		})
	}
}

// answer makes the answer to a query, of the zone that it returns; nil: none.
func (s *Server) answer(raw []byte, tcp bool) ([]byte, Zone) {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil {
		return nil, Zone{}
	}
	q, err := p.Question()
	if err != nil {
		return nil, Zone{}
	}
	name := strings.ToLower(q.Name.String())
	s.mu.Lock()
	z, ok := s.zones[name]
	s.queries[strings.TrimPrefix(q.Type.String(), "Type")+" "+name]++
	if tcp {
		s.byTCP++
	}
	close(s.changed)
	s.changed = make(chan struct{})
	target := s.zones[z.Alias]
	s.mu.Unlock()
	if z.Silent {
		return nil, z
	}
	whole := z
	if !ok {
		z.Code = dnsmessage.RCodeNameError
	}
	cut := z.Truncated && !tcp
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: h.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: z.Code, Truncated: cut,
	})
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(q)
	if z.Code == dnsmessage.RCodeSuccess && !cut {
		_ = b.StartAnswers()
		owner := q.Name
		for i := range max(len(z.Aliases)-1, 0) {
			_ = b.CNAMEResource(dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(z.Aliases[i]), Class: dnsmessage.ClassINET, TTL: z.TTL}, dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(z.Aliases[i+1])})
		}
		if z.Alias != "" {
			to := dnsmessage.MustNewName(z.Alias)
			_ = b.CNAMEResource(dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: z.TTL}, dnsmessage.CNAMEResource{CNAME: to})
			owner, z = to, target
		}
		for _, a := range z.Addresses {
			rh := dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: z.TTL}
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				_ = b.AResource(rh, dnsmessage.AResource{A: a.As4()})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				_ = b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: a.As16()})
			}
		}
	}
	out, err := b.Finish()
	if err != nil {
		return nil, whole
	}
	return out, whole
}
