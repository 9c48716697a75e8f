// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// Acceptor decides about new connections of a listener.
type Acceptor interface {
	// OnAccept returns who handles c; nil closes it at once.
	OnAccept(c *Conn) Handler
}

// starvedPause is how long a listener rests when descriptors or memory have
// run out, unless a connection of the loop closes earlier.
const starvedPause = 100 * time.Millisecond

// How many rests without a place or a descriptor in between those who wait bear,
// before they are refused: better than to let them hang. Connections end all the
// time, so a place is worth waiting for; a lack of descriptors is not ours to end.
const (
	restsForPlace      = 10
	restsForDescriptor = 1
)

// acceptsPerTick bounds what a burst of connections takes from those that are open.
const acceptsPerTick = 64

// Listener is a loop's registration of one listening socket.
type Listener struct {
	loop     *Loop
	socket   *Socket
	acceptor Acceptor
	slot     uint32
	local    netip.AddrPort // of all connections, unless the socket listens on every address

	retry   Timer
	paused  bool
	watched bool
	removed bool
	hungry  bool // in Loop.starved
	rests   int  // that did not help, in a row
	placing bool // hungry for a place, and not for a descriptor
}

// AddListener starts to accept connections from s. Off-loop callers post it.
// The socket stays its owner's: remove the listener from all loops before
// releasing it.
func (l *Loop) AddListener(s *Socket, a Acceptor) (*Listener, error) {
	l.owner.check()
	if l.stopped {
		return nil, ErrLoopStopped
	}
	n := &Listener{loop: l, socket: s, acceptor: a, slot: l.takeSlot()}
	if ip := s.addr.Addr(); ip.IsValid() && !ip.IsUnspecified() {
		n.local = netip.AddrPortFrom(ip.Unmap(), s.addr.Port())
	}
	n.retry.F = n.wake
	l.boundListener(n)
	l.slots[n.slot].listener = n
	if err := n.watch(); err != nil {
		l.freeSlot(n.slot)
		return nil, err
	}
	return n, nil
}

// Addr returns where n listens.
func (n *Listener) Addr() Addr { return n.socket.addr }

// Pause stops accepting; new connections wait in the backlog. Resume goes on.
func (n *Listener) Pause() {
	n.loop.owner.check()
	if !n.paused {
		n.paused = true
		n.unwatch()
	}
}

// Resume ends Pause.
func (n *Listener) Resume() error {
	n.loop.owner.check()
	if !n.paused || n.removed {
		return nil
	}
	n.paused = false
	return n.watch()
}

// Remove ends n for good. The socket stays open.
func (n *Listener) Remove() {
	n.loop.owner.check()
	if n.removed {
		return
	}
	n.removed = true
	n.retry.Stop()
	n.unwatch()
	n.leaveStarved()
	n.loop.freeSlot(n.slot)
}

func (n *Listener) watch() error {
	if n.watched || n.paused || n.removed || n.hungry {
		return nil
	}
	mode := ModeAccept
	if n.socket.shared {
		mode = ModeAcceptShared
	}
	if errno := n.loop.sys.Watch(n.socket.fd, n.loop.token(n.slot), mode); errno != 0 {
		return fmt.Errorf("reactor: watch listener %s: %w", n.socket.addr, os.NewSyscallError("epoll_ctl", errno))
	}
	n.watched = true
	return nil
}

func (n *Listener) unwatch() {
	if n.watched {
		n.watched = false
		n.loop.sys.Unwatch(n.socket.fd)
	}
}

// accept takes what waits, up to a bound: the socket is level-triggered, so the
// rest is reported again.
func (n *Listener) accept() {
	l := n.loop
	for range acceptsPerTick {
		if n.paused || n.removed { // by the acceptor
			return
		}
		if !l.config.Accepting.take() {
			n.starve(true)
			return
		}
		fd, remote, errno := l.sys.Accept(n.socket.fd)
		if errno != 0 {
			l.config.Accepting.give()
		}
		switch errno {
		case 0:
			n.rests = 0
			n.accepted(fd, remote)
		case syscall.EAGAIN:
			return
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			l.stats.AcceptErrors++
			n.starve(false)
			return
		case syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP:
			l.stats.AcceptErrors++
			n.unwatch() // no longer a listening socket: its owner released it too early
			return
		case syscall.EINTR, syscall.ECONNABORTED:
		default: // of the connection, not of the socket: accept(2)
			l.stats.AcceptErrors++
		}
	}
}

func (n *Listener) accepted(fd int, remote netip.AddrPort) {
	l := n.loop
	l.stats.Accepted++
	c := l.newConn(fd, open)
	c.flags |= writable | accepted
	c.remote, c.local = remote, n.local
	if errno := l.sys.Watch(fd, l.token(c.slot), ModeStream); errno != 0 {
		l.close(c, errno)
		return
	}
	l.current = c
	c.handler = n.acceptor.OnAccept(c)
	l.current = nil
	if c.handler == nil {
		l.close(c, nil)
	}
}

// starve rests the listener until a place or a descriptor is free. Peers wait in
// the backlog; those that cannot be accepted after some rests are refused.
func (n *Listener) starve(forPlace bool) {
	l := n.loop
	bears := restsForDescriptor
	if forPlace {
		bears = restsForPlace
	}
	n.placing = forPlace
	if n.rests == 0 {
		l.stats.AcceptPauses++
	} else if n.rests >= bears {
		l.stats.Shed += uint64(l.sys.Shed(n.socket.fd, acceptsPerTick))
	}
	n.unwatch()
	n.hungry = true
	l.starved = append(l.starved, n)
	l.Schedule(&n.retry, starvedPause)
}

// wake ends the rest of a starved listener.
func (n *Listener) wake() {
	n.rests++
	n.fed()
}

// fed watches again after a rest.
func (n *Listener) fed() {
	l := n.loop
	n.leaveStarved()
	n.retry.Stop()
	if n.watch() != nil { // no memory for it: rest once more
		n.hungry = true
		l.starved = append(l.starved, n)
		l.Schedule(&n.retry, starvedPause)
	}
}

func (n *Listener) leaveStarved() {
	n.hungry = false
	if i := slices.Index(n.loop.starved, n); i >= 0 {
		n.loop.starved = slices.Delete(n.loop.starved, i, i+1)
	}
}

// feed wakes the listeners that wait for a descriptor or a place: a connection was
// closed. One that is closed on another loop shows after the rest.
func (l *Loop) feed() {
	for i := len(l.starved) - 1; i >= 0; i-- {
		n := l.starved[i]
		if n.placing && l.config.Accepting.Full() {
			continue
		}
		n.rests = 0
		n.fed()
	}
}
