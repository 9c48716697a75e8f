// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"net/netip"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// Peer is a scripted end of a connection. What it is told to write waits as
// long as the network has no room; what arrives is read at once, unless held.
type Peer struct {
	// OnData is called with what arrives, valid until it returns; nil collects it in
	// Received.
	OnData func(p *Peer, b []byte)
	// OnEOF and OnError are called when the far end has half-closed, and when
	// the connection has failed. Either may be nil.
	OnEOF   func(p *Peer)
	OnError func(p *Peer, err error)

	// Received is what arrived, as long as OnData is nil.
	Received []byte
	// EOF is set when the far end has half-closed; Err when the connection failed.
	EOF bool
	Err error

	end     *endpoint
	out     []byte
	fin     bool
	held    bool
	pumping bool
	rate    int
}

func newPeer(e *endpoint) *Peer {
	p := &Peer{end: e}
	e.peer = p
	return p
}

// Dial connects a new peer to addr. It may write at once.
func (w *World) Dial(addr reactor.Addr) (*Peer, error) {
	e, errno := w.connect(addr, reactor.Addr{})
	if errno != 0 {
		return nil, errno
	}
	return newPeer(e), nil
}

// Write queues a copy of b.
func (p *Peer) Write(b []byte) {
	p.out = append(p.out, b...)
	p.pump()
}

// LocalAddr is where the peer's end of the connection is.
func (p *Peer) LocalAddr() netip.AddrPort { return p.end.local }

// Unsent returns how many bytes wait for room in the network.
func (p *Peer) Unsent() int { return len(p.out) }

// CloseWrite sends FIN after what is queued.
func (p *Peer) CloseWrite() {
	p.fin = true
	p.pump()
}

// Close closes the connection at once; unread input makes it a reset.
func (p *Peer) Close() { p.end.close() }

// Reset closes the connection with RST.
func (p *Peer) Reset() {
	p.end.hardClose = true
	p.end.close()
}

// Hold stops reading, so that the far end's writes fill the window; Release goes on.
func (p *Peer) Hold() { p.held = true }

// Release ends Hold.
func (p *Peer) Release() {
	p.held = false
	p.pump()
}

// LimitReads has the peer read n bytes for each arrival and no more; 0 ends that.
func (p *Peer) LimitReads(n int) { p.rate = n }

// pump does what can be done at this time.
func (p *Peer) pump() {
	if p.pumping || p.end.closed || p.end.connecting {
		return
	}
	p.pumping = true
	defer func() { p.pumping = false }()
	p.push()
	p.pull()
	p.push() // what the script wrote in answer
}

func (p *Peer) push() {
	for len(p.out) > 0 {
		n, errno := p.end.write(p.out)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			p.out = nil
			return
		}
		p.out = p.out[n:]
	}
	if p.fin && !p.end.closed {
		p.end.closeWrite()
	}
}

func (p *Peer) pull() {
	size := 64 << 10
	if p.rate > 0 {
		size = p.rate
	}
	for !p.held && !p.end.closed && !p.EOF && p.Err == nil {
		b, errno := p.end.take(size)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno != 0:
			p.Err = errno
			if p.OnError != nil {
				p.OnError(p, errno)
			}
		case len(b) == 0:
			p.EOF = true
			if p.OnEOF != nil {
				p.OnEOF(p)
			}
		case p.OnData != nil:
			p.OnData(p, b)
		default:
			p.Received = append(p.Received, b...)
		}
		if p.rate > 0 && len(p.end.inbox) > 0 {
			p.end.world.at(p.end.world.now+1+p.end.world.delay(), p.pump)
			return
		}
	}
}
