// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// binding is all that listens at one address: sockets of loops, or a script.
type binding struct {
	sockets []*listener
	serve   func(*Peer)
}

// listener is one listening socket.
type listener struct {
	queue  []*endpoint
	tokens map[*machine]uint64
}

func (l *listener) pending() bool { return len(l.queue) > 0 }

func (l *listener) take() *endpoint {
	e := l.queue[0]
	l.queue = l.queue[1:]
	return e
}

// Listen implements reactor.Binder: a Unix address is shared by all loops, an IP
// address has a socket for each.
func (w *World) Listen(addr reactor.Addr, n int, _ reactor.ListenOptions) (fds []int, bound reactor.Addr, shared bool, err error) {
	if addr.IsUnix() {
		n, shared = 1, true
	} else if addr.Port() == 0 {
		addr.AddrPort = netip.AddrPortFrom(addr.Addr(), w.port())
	}
	if w.servers[addr.String()] != nil {
		return nil, addr, shared, syscall.EADDRINUSE
	}
	b := &binding{}
	for range n {
		l := &listener{tokens: map[*machine]uint64{}}
		fd := w.install(l)
		if fd < 0 {
			w.Close(fds, addr)
			return nil, addr, shared, syscall.EMFILE
		}
		fds = append(fds, fd)
		b.sockets = append(b.sockets, l)
	}
	w.servers[addr.String()] = b
	return fds, addr, shared, nil
}

// Close implements reactor.Binder; connections that nobody accepted are reset.
func (w *World) Close(fds []int, bound reactor.Addr) {
	delete(w.servers, bound.String())
	for _, fd := range fds {
		if l, ok := w.files[fd].(*listener); ok {
			for _, e := range l.queue {
				e.send((*endpoint).reset)
			}
			w.uninstall(fd)
		}
	}
}

// Serve has a script accept what connects to addr. A nil script ends that.
func (w *World) Serve(addr reactor.Addr, script func(*Peer)) error {
	if script == nil {
		delete(w.servers, addr.String())
		return nil
	}
	if w.servers[addr.String()] != nil {
		return fmt.Errorf("sim: serve %s: %w", addr, syscall.EADDRINUSE)
	}
	w.servers[addr.String()] = &binding{serve: script}
	return nil
}

func (w *World) port() uint16 {
	w.ports++
	if w.ports < 32768 {
		w.ports = 32768
	}
	return w.ports
}

// connect starts to connect an endpoint to whatever listens at addr when the
// SYN arrives there.
func (w *World) connect(to, local reactor.Addr) (*endpoint, syscall.Errno) {
	e, errno := w.newEndpoint()
	if errno != 0 {
		return nil, errno
	}
	e.connecting = true
	if !to.IsUnix() {
		e.remote = to.AddrPort
		e.local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), w.port())
		if local.AddrPort.IsValid() {
			e.local = netip.AddrPortFrom(local.Addr(), e.local.Port())
		}
	}
	if w.holes[to.String()] {
		return e, 0
	}
	w.at(w.now+w.delay(), func() { w.arriveSYN(e, to) })
	return e, 0
}

func (w *World) arriveSYN(e *endpoint, to reactor.Addr) {
	if e.closed {
		return
	}
	at, diverted := w.diverted[to.AddrPort]
	if diverted {
		to = reactor.TCPAddr(at)
	}
	b := w.servers[to.String()]
	if b == nil {
		w.at(w.now+w.delay(), func() { e.connected(syscall.ECONNREFUSED) })
		return
	}
	far := &endpoint{world: w, local: e.remote, remote: e.local, far: e}
	if diverted {
		far.local, far.original = at, e.remote
	}
	e.far = far
	e.arrival = w.now + w.delay()
	w.at(e.arrival, func() { e.connected(0) })
	if b.serve != nil {
		if far.fd = w.install(far); far.fd < 0 {
			far.fd, far.hardClose = 0, true
			w.open++
			far.close()
			return
		}
		p := newPeer(far)
		b.serve(p)
		p.pump()
		return
	}
	l := b.sockets[w.rng.IntN(len(b.sockets))]
	l.queue = append(l.queue, far)
}

func (e *endpoint) connected(errno syscall.Errno) {
	e.connecting = false
	if e.failed == 0 {
		e.failed = errno
	}
	e.trigger()
}
