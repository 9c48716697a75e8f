// SPDX-License-Identifier: Apache-2.0

package reactor

import "syscall"

// Relay is a Handler whose input goes to another connection as it is. Where much
// comes, the loop may hand it on inside of the kernel (splice(2)), which saves both
// copies; OnData sees the rest, and always what a connection begins with.
type Relay interface {
	Handler
	// RelayTo returns where all that comes now would be written, nil if OnData has
	// to see it.
	RelayTo(c *Conn) *Conn
	// Relayed says that n bytes of c were handed on, or queued behind them.
	Relayed(c *Conn, n int)
}

// splicer is a System that can hand bytes on by itself.
type splicer interface {
	// Splice takes up to n bytes from one socket and gives to another what it has
	// room for. The rest, taken less moved, is got by SpliceRest before the next
	// Splice. A taken of 0 without readErr is the end of the stream.
	Splice(from, to, n int) (taken, moved int, readErr, writeErr syscall.Errno)
	SpliceRest(b []byte) int
	// SpliceDrop forgets what was taken and has not been got.
	SpliceDrop()
}

const (
	// What is handed on in one step grows from the first to the second while the
	// other side takes all of it: what it does not take is copied after all, and
	// waits in memory beyond the watermark.
	relayFirst = 64 << 10
	relayMost  = 1 << 20
	// relayBudget is what one connection may hand on in a tick.
	relayBudget = 1 << 20
)

// relay hands on what c has to read, after a read that has filled its buffer: less
// is cheaper to copy. It reports whether the tick's budget is spent.
func (l *Loop) relay(c *Conn) (spent bool) {
	s, ok := l.sys.(splicer)
	if !ok {
		return false
	}
	r, ok := c.handler.(Relay)
	if !ok {
		return false
	}
	budget := relayBudget
	size, most := l.relayOf()
	if most == 0 {
		return false
	}
	for c.mayRead() && c.state == open && c.left == nil && c.secure == nil {
		to := r.RelayTo(c)
		if to == nil || !to.takesThrough() {
			return false
		}
		// What is between the two sockets is the loop's: it is to be gone before
		// anybody is told, who may panic, or another connection would get it.
		l.between = true
		taken, moved, readErr, writeErr := s.Splice(int(c.fd), int(to.fd), size)
		writeErr = l.takeRest(s, to, taken-moved, writeErr)
		l.between = false
		c.read += uint64(taken)
		l.stats.ReadBytes += uint64(taken)
		to.written += uint64(moved)
		l.stats.WrittenBytes += uint64(moved)
		if taken > 0 {
			r.Relayed(c, taken)
		}
		l.restTaken(to, writeErr)
		switch {
		case taken == 0 && readErr == syscall.ENOSYS:
			return false
		case taken == 0:
			l.readEnded(c, readErr)
		case moved == taken && size < most:
			size = min(2*size, most)
		}
		if budget -= taken; budget <= 0 {
			return true
		}
	}
	return false
}

// takesThrough reports whether what is written now would reach the kernel at once.
func (c *Conn) takesThrough() bool {
	return c.state == open && c.out == nil && c.secure == nil && c.has(writable) && !c.has(overHigh|finWanted|writeBroken)
}

// errLost ends a connection a part of whose output is gone.
const errLost = syscall.EIO

// takeRest puts what to had no room for behind its output, and returns why that cannot
// be written.
func (l *Loop) takeRest(s splicer, to *Conn, rest int, errno syscall.Errno) syscall.Errno {
	for rest > 0 {
		n := s.SpliceRest(l.scratch[:min(rest, len(l.scratch))])
		if n <= 0 { // a part of the stream is lost: nothing may follow
			s.SpliceDrop()
			return errLost
		}
		rest -= n
		if !broken(errno) {
			l.queue(to, l.scratch[:n])
		}
	}
	return errno
}

// restTaken goes on with to after takeRest.
func (l *Loop) restTaken(to *Conn, errno syscall.Errno) {
	switch {
	case errno == errLost: // the socket itself may be well
		l.close(to, errno)
	case broken(errno):
		l.writeFailed(to, errno)
	case to.waiting > 0:
		if errno != syscall.EINVAL {
			to.flags &^= writable // EventOut will follow
		}
		l.queued(to)
	}
}

// broken reports whether what Splice met at the socket that is written ends it. EINVAL
// is of a kind of socket that takes no pages.
func broken(errno syscall.Errno) bool {
	return errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINVAL
}

// dropBetween is for a panic in the middle of a relay.
func (l *Loop) dropBetween() {
	if s, ok := l.sys.(splicer); ok && l.between {
		s.SpliceDrop()
	}
	l.between = false
}
