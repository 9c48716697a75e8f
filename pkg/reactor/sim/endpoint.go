// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"net/netip"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// endpoint is one end of a stream. It belongs to a loop's machine, or to a Peer.
type endpoint struct {
	world  *World
	fd     int
	far    *endpoint // nil until connected
	local  netip.AddrPort
	remote netip.AddrPort
	// original is where it was going that was diverted here.
	original netip.AddrPort

	machine *machine // watching it; nil for a Peer's
	token   uint64
	queued  bool // in machine.ready
	peer    *Peer

	connecting bool
	failed     syscall.Errno // of the connect, or the reset that came
	inbox      []byte        // arrived and not read
	underway   int           // bytes that the far end has sent and that have not arrived
	arrival    int64         // of the last thing sent to us: the order is kept
	finArrived bool
	finSent    bool
	full       bool // the last write was short: tell when there is room
	hardClose  bool // close resets
	closed     bool
}

func (w *World) newEndpoint() (*endpoint, syscall.Errno) {
	e := &endpoint{world: w}
	if e.fd = w.install(e); e.fd < 0 {
		return nil, syscall.EMFILE
	}
	return e, 0
}

// trigger is an edge: something has changed that the owner wants to know of.
func (e *endpoint) trigger() {
	if e.closed {
		return
	}
	if e.peer != nil {
		e.peer.pump()
		return
	}
	if e.machine != nil && !e.queued {
		e.queued = true
		e.machine.ready = append(e.machine.ready, e)
	}
}

// flags are the level at this time; they are reported on an edge only.
func (e *endpoint) flags() (f reactor.EventFlags) {
	if e.connecting {
		return 0
	}
	if len(e.inbox) > 0 || e.finArrived || e.failed != 0 {
		f |= reactor.EventIn
	}
	if e.failed != 0 || e.room() > 0 {
		f |= reactor.EventOut
	}
	if e.finArrived {
		f |= reactor.EventHangup
	}
	if e.failed != 0 || e.finArrived && e.finSent {
		f |= reactor.EventBroken
	}
	return f
}

// room is how many bytes the far end may still be sent.
func (e *endpoint) room() int {
	if e.far == nil {
		return 0
	}
	return e.world.link.Window - e.far.underway - len(e.far.inbox)
}

// send has f happen at the far end, after all that was sent before.
func (e *endpoint) send(f func(far *endpoint)) {
	far := e.far
	if far == nil {
		return
	}
	far.arrival = max(far.arrival, e.world.now+e.world.delay())
	e.world.at(far.arrival, func() { f(far) })
}

func (e *endpoint) write(bufs ...[]byte) (int, syscall.Errno) {
	switch {
	case e.connecting:
		return 0, syscall.EAGAIN
	case e.finSent || e.failed != 0 || e.far == nil:
		return 0, syscall.EPIPE
	}
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	n := min(total, e.room())
	w := e.world
	if n > 1 && w.link.ShortWrites > 0 && w.rng.Float64() < w.link.ShortWrites {
		n = 1 + w.rng.IntN(n-1)
	}
	if n < total {
		e.full = true
		if e.room() > max(n, 0) { // full by whim: there is room again in a moment
			w.at(w.now+1+w.delay(), e.roomAgain)
		}
	}
	if n <= 0 {
		return 0, syscall.EAGAIN
	}
	left := n
	for _, b := range bufs {
		b = b[:min(len(b), left)]
		left -= len(b)
		e.transmit(b)
	}
	w.note('w', e.fd, n)
	return n, 0
}

// transmit sends a copy of b in pieces.
func (e *endpoint) transmit(b []byte) {
	w := e.world
	for len(b) > 0 {
		n := len(b)
		if w.link.MaxSegment > 0 {
			n = min(n, 1+w.rng.IntN(w.link.MaxSegment))
		}
		piece := append([]byte(nil), b[:n]...)
		b = b[n:]
		e.far.underway += n
		e.send(func(far *endpoint) { far.arrive(piece) })
	}
}

func (e *endpoint) arrive(piece []byte) {
	e.underway -= len(piece)
	if e.closed {
		e.send(func(far *endpoint) { far.reset() }) // nobody reads it
		return
	}
	if e.failed != 0 {
		return
	}
	e.inbox = append(e.inbox, piece...)
	e.world.note('a', e.fd, len(piece))
	e.trigger()
}

func (e *endpoint) roomAgain() {
	if e.full && e.room() > 0 {
		e.full = false
		e.trigger()
	}
}

func (e *endpoint) readInto(b []byte) (int, syscall.Errno) {
	from, errno := e.take(len(b))
	return copy(b, from), errno
}

// take reads at most n bytes where they are; nothing arrives over them later.
func (e *endpoint) take(n int) ([]byte, syscall.Errno) {
	if len(e.inbox) > 0 {
		n = min(n, len(e.inbox))
		b := e.inbox[:n:n]
		if e.inbox = e.inbox[n:]; len(e.inbox) == 0 {
			e.inbox = nil
		}
		e.world.note('r', e.fd, n)
		if e.far != nil && e.far.full {
			e.send((*endpoint).roomAgain)
		}
		return b, 0
	}
	switch {
	case e.failed != 0:
		return nil, e.failed
	case e.finArrived:
		return nil, 0
	}
	return nil, syscall.EAGAIN
}

// reset is the arrival of an RST; what came before it can still be read.
func (e *endpoint) reset() {
	if e.closed || e.failed != 0 {
		return
	}
	e.failed = syscall.ECONNRESET
	e.world.note('x', e.fd, 0)
	e.trigger()
}

func (e *endpoint) closeWrite() syscall.Errno {
	if e.far == nil || e.failed != 0 {
		return syscall.ENOTCONN
	}
	if !e.finSent {
		e.finSent = true
		e.send(func(far *endpoint) {
			far.finArrived = true
			far.trigger()
		})
	}
	return 0
}

// close sends FIN; RST if it was asked for or bytes are lost by it.
func (e *endpoint) close() {
	if e.closed {
		return
	}
	e.world.note('c', e.fd, 0)
	if e.hardClose || len(e.inbox) > 0 {
		e.send((*endpoint).reset)
	} else {
		e.closeWrite()
	}
	e.closed = true
	if e.machine != nil {
		e.machine.forget(e)
	}
	e.world.uninstall(e.fd)
}
