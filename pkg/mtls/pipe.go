// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// pipe is the connection in memory below a tls.Conn. During the handshake it is
// shared by the loop and the goroutine of the handshake: Read blocks there. Then
// it is the loop's: Read and Write work on the slices that Session has put in.
type pipe struct {
	// of the loop, after the handshake
	in, out []byte
	sync    *exchange // nil from then on
}

// exchange is what loop and goroutine share during a handshake.
type exchange struct {
	h     *Handshake
	ready chan struct{}    // holds one: there may be something to read
	gone  chan struct{}    // closed by cancel
	holds bool             // the goroutine has a place in CPU
	shown *tls.Certificate // of the goroutine: our own that is for the peer's hello
	taken int              // of the goroutine: bytes of the peer that crypto/tls has been given

	mu        sync.Mutex
	in        []byte // from the peer
	out       []byte // for the peer
	eof       bool
	posted    bool // send is on its way to the loop
	more      bool // feed has not taken everything: the loop holds what comes next
	asked     bool // room is on its way to the loop
	cancelled bool
}

var (
	errCancelled  = errors.New("mtls: the connection is gone")
	errWouldBlock = wouldBlock{}
)

// wouldBlock is the temporary error by which crypto/tls stops and goes on later.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "mtls: no more records yet" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// boxed once: as a value of another type it would be allocated for each return.
var wouldBlockError net.Error = errWouldBlock

func newPipe(h *Handshake) *pipe {
	return &pipe{sync: &exchange{h: h, ready: make(chan struct{}, 1), gone: make(chan struct{})}}
}

// feed hands on the peer's bytes and returns how many it took. On the loop.
func (p *pipe) feed(b []byte) int {
	x := p.sync
	x.mu.Lock()
	n := min(len(b), maxUnread-len(x.in))
	x.in = append(x.in, b[:n]...)
	x.more, x.asked = n < len(b), false
	x.mu.Unlock()
	x.tell()
	return n
}

// end says that the peer sends no more. On the loop.
func (p *pipe) end() {
	x := p.sync
	x.mu.Lock()
	x.eof = true
	x.mu.Unlock()
	x.tell()
}

// cancel ends the goroutine. On the loop, once.
func (p *pipe) cancel() {
	x := p.sync
	x.mu.Lock()
	x.cancelled = true
	x.mu.Unlock()
	close(x.gone)
}

func (x *exchange) tell() {
	select {
	case x.ready <- struct{}{}:
	default:
	}
}

// written takes what is to be sent. On the loop.
func (p *pipe) written() []byte {
	x := p.sync
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.out
	x.out, x.posted = nil, false
	return b
}

// enter waits for a place to compute. In the goroutine.
func (p *pipe) enter(cpu CPU) error {
	select {
	case cpu <- struct{}{}:
		p.sync.holds = true
		return nil
	case <-p.sync.gone:
		return errCancelled
	}
}

// leave gives the place back. In the goroutine.
func (p *pipe) leave(cpu CPU) {
	if p.sync.holds {
		p.sync.holds = false
		<-cpu
	}
}

// Read implements net.Conn.
func (p *pipe) Read(b []byte) (int, error) {
	if p.sync != nil {
		return p.block(b)
	}
	if len(p.in) == 0 {
		return 0, wouldBlockError
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

// block is Read during the handshake: it parks without a place in CPU.
func (p *pipe) block(b []byte) (int, error) {
	x, cpu := p.sync, p.sync.h.cpu()
	for {
		n, err := x.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		p.leave(cpu)
		select {
		case <-x.ready:
		case <-x.gone:
		}
		if err := p.enter(cpu); err != nil {
			return 0, err
		}
	}
}

func (x *exchange) take(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancelled {
		return 0, errCancelled
	}
	// Counted here and not by feed: what a client sends right behind the end of its
	// handshake is no part of it, and is not asked for.
	if len(x.in) > 0 && x.taken >= maxHandshake {
		return 0, refuse(Protocol, "the handshake is too long")
	}
	n := copy(b[:min(len(b), maxHandshake-x.taken)], x.in)
	x.taken += n
	if x.in = x.in[n:]; len(x.in) == 0 {
		x.in = nil
	}
	if n == 0 && x.eof && !x.more {
		return 0, io.EOF
	}
	if n > 0 && x.more && !x.asked {
		x.asked = true
		x.h.gate.loop.PostOffLoop(x.h.room)
	}
	return n, nil
}

// Write implements net.Conn. It takes everything.
func (p *pipe) Write(b []byte) (int, error) {
	x := p.sync
	if x == nil {
		p.out = append(p.out, b...)
		return len(b), nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cancelled {
		return 0, errCancelled
	}
	x.out = append(x.out, b...)
	if !x.posted {
		x.posted = true
		x.h.gate.loop.PostOffLoop(x.h.send)
	}
	return len(b), nil
}

// Close implements net.Conn.
func (p *pipe) Close() error { return nil }

// LocalAddr implements net.Conn.
func (p *pipe) LocalAddr() net.Addr { return address{} }

// RemoteAddr implements net.Conn.
func (p *pipe) RemoteAddr() net.Addr { return address{} }

// SetDeadline implements net.Conn: deadlines are timers of the loop.
func (p *pipe) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (p *pipe) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// address is that of a pipe: crypto/tls finds sessions by it where no server name
// is sent, in a cache that belongs to one peer.
type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "peer" }
