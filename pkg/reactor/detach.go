// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"net/netip"
	"os"
)

// Detach takes an idle connection out of its loop and returns its socket, which is the
// caller's from here on. ok is false, and c goes on, unless it is open and plain, and
// nothing of it waits here: no input that the handler has not consumed, no output, no end
// of either direction. Bytes that the kernel holds go with the socket. OnClose is not
// called; verbs of c do nothing any more.
func (c *Conn) Detach() (fd int, ok bool) {
	l := c.loop
	l.owner.check()
	const busy = ended | finWanted | finSent | overHigh | isDirty | isPending | redeliver | writeBroken | dialled | tellsEOF
	if c.state != open || c.secure != nil || c.fd < 0 || c.pauses > 0 || c.left != nil || c.hasOutput() || c.has(busy) {
		return -1, false
	}
	if l.sys.Unwatch(int(c.fd)) != 0 {
		return -1, false
	}
	if c.has(accepted) {
		l.config.Accepting.give()
	}
	fd = int(c.fd)
	l.freeSlot(c.slot)
	c.state, c.handler, c.fd = closed, nil, -1
	if l.current == c {
		l.current = nil
	}
	l.stats.Open--
	l.unseen = true
	l.feed()
	return fd, true
}

// Adopt makes a connection of a socket that Detach has given away, here or in another
// process: a connected, non-blocking one of remote, which is zero for Unix sockets. a
// decides about it as about one that was accepted. The socket is the loop's from here on;
// with an error it is closed: EMFILE where all places are taken, ErrLoopStopped, or the
// system's.
func (l *Loop) Adopt(fd int, remote netip.AddrPort, a Acceptor) error {
	l.owner.check()
	if l.stopped {
		l.sys.CloseFD(fd)
		return ErrLoopStopped
	}
	if !l.config.Accepting.take() {
		l.sys.CloseFD(fd)
		return errNoPlace
	}
	c := l.newConn(fd, open)
	c.flags |= writable | accepted
	c.remote = remote
	if errno := l.sys.Watch(fd, l.token(c.slot), ModeStream); errno != 0 {
		l.config.Accepting.give()
		l.freeSlot(c.slot)
		l.sys.CloseFD(fd)
		c.state, c.fd = closed, -1
		l.stats.Open--
		return os.NewSyscallError("epoll_ctl", errno)
	}
	l.current = c
	c.handler = a.OnAccept(c)
	l.current = nil
	if c.handler == nil {
		l.close(c, nil)
	}
	return nil
}
