// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// Limits bound handshakes under way. Zero fields have the defaults.
type Limits struct {
	Down      int // of accepted connections of one loop; default 4096
	Up        int // of dialled connections of one loop; default 4096
	PerSource int // of accepted connections of one loop and source; default 1024
}

const (
	defaultPlaces    = 4096
	defaultPerSource = 1024
	// DefaultTimeout is how long a handshake may take where nothing else is said.
	DefaultTimeout = 10 * time.Second
	// alertTime is how long a refused peer is given to read why.
	alertTime = time.Second
)

// CPU is how many handshakes compute at the same time, over all loops.
type CPU chan struct{}

// NewCPU makes room for n handshakes that compute, at least one.
func NewCPU(n int) CPU { return make(CPU, max(n, 1)) }

// Gate is where connections of one loop are secured. It belongs to the loop.
type Gate struct {
	loop     *reactor.Loop
	accepted CPU
	dialled  CPU
	limits   Limits
	down, up int
	sources  map[netip.Addr]int // by SourceOf
	counters Counters
	parts    parts // of sessions
}

// Counters are what has become of the handshakes of a Gate.
type Counters struct {
	Started  uint64
	Done     uint64 // full and resumed
	Resumed  uint64
	Failures [reasonCount]uint64 // by Reason
	Versions [2]uint64           // done with TLS 1.2, 1.3
}

// NewGate makes the gate of a loop. The CPUs are shared between loops: one for those
// handshakes that anybody may begin, one for our own.
func NewGate(l *reactor.Loop, accepted, dialled CPU, limits Limits) *Gate {
	if limits.Down == 0 {
		limits.Down = defaultPlaces
	}
	if limits.Up == 0 {
		limits.Up = defaultPlaces
	}
	if limits.PerSource == 0 {
		limits.PerSource = defaultPerSource
	}
	return &Gate{loop: l, accepted: accepted, dialled: dialled, limits: limits, sources: map[netip.Addr]int{}}
}

// Counters returns the counters so far. On the loop.
func (g *Gate) Counters() *Counters { return &g.counters }

// InProgress returns how many handshakes are under way. On the loop.
func (g *Gate) InProgress() (down, up int) { return g.down, g.up }

// Owner is told, on the loop, how a handshake ended. Exactly one of its methods is
// called, once, for each handshake; none from inside Accept and Connect.
type Owner interface {
	// OnSecure returns who handles c from here on, by what was negotiated: it sees
	// plaintext, and OnConnect first if c was dialled. nil closes c.
	OnSecure(c *reactor.Conn, s *Session) reactor.Handler
	// OnInsecure says why there is no secure connection. c is closed or closes by
	// itself; nothing more is told about it.
	OnInsecure(c *reactor.Conn, f Failure)
}

// Accept starts the handshake of an accepted connection and returns its handler,
// for reactor.Acceptor or Conn.SetHandler; bytes that c holds already are taken as
// its beginning on Redeliver. timeout counts from now; 0 is DefaultTimeout.
func (g *Gate) Accept(c *reactor.Conn, ctx *ServerContext, timeout time.Duration, o Owner) *Handshake {
	h := &Handshake{gate: g, owner: o, conn: c, server: ctx, source: SourceOf(c.RemoteAddr().Addr())}
	c.AwaitTransport()
	full := g.down >= g.limits.Down || g.sources[h.source] >= g.limits.PerSource
	g.down++
	g.sources[h.source]++
	h.begin(timeout, full)
	return h
}

// Hello is what a dialled connection says where its context leaves that open.
type Hello struct {
	Name     string // to send by SNI, with auto_host_sni
	Protocol string // to offer by ALPN where the context has none; "": nothing
}

// Dial is Loop.Dial with a handshake after the connect. timeout counts from now and
// includes the connect; 0 is DefaultTimeout. What is written before the handshake
// is done waits for it. An error means that o is told nothing.
func (g *Gate) Dial(to reactor.Addr, opts reactor.DialOptions, ctx *ClientContext, hello Hello, timeout time.Duration, o Owner) (*reactor.Conn, error) {
	h := &Handshake{gate: g, owner: o, client: ctx, hello: hello}
	c, err := g.loop.Dial(to, opts, h)
	if err != nil {
		return nil, err
	}
	c.AwaitTransport()
	h.conn = c
	full := g.up >= g.limits.Up
	g.up++
	h.begin(timeout, full)
	return c, nil
}

// SourceOf is whom a connection from a counts for, here and with other limits: with IPv6
// a network of 64 bits, of which whoever has one address has all (RFC 6177).
func SourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, _ := a.Prefix(64) // fails for more bits than a has
	return p.Addr()
}

// leave gives back the place of h.
func (g *Gate) leave(h *Handshake) {
	if h.server == nil {
		g.up--
		return
	}
	g.down--
	if n := g.sources[h.source] - 1; n > 0 {
		g.sources[h.source] = n
	} else {
		delete(g.sources, h.source)
	}
}

// Add adds what another gate has counted.
func (c *Counters) Add(o *Counters) {
	c.Started += o.Started
	c.Done += o.Done
	c.Resumed += o.Resumed
	for i := range o.Failures {
		c.Failures[i] += o.Failures[i]
	}
	for i := range o.Versions {
		c.Versions[i] += o.Versions[i]
	}
}
