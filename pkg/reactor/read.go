// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"syscall"
	"time"
)

// event handles one report of the System for a connection.
func (l *Loop) event(c *Conn, f EventFlags) {
	if c.state == connecting {
		if f&(EventOut|EventBroken) == 0 {
			return
		}
		l.connected(c)
		if c.state == closed {
			return
		}
	}
	if f&EventOut != 0 {
		c.flags |= writable
		if c.hasOutput() || c.has(finWanted) && !c.has(finSent) {
			l.markDirty(c)
		}
	}
	if f&(EventHangup|EventUrgent|EventBroken) != 0 {
		c.flags |= doubtful // from now on read until the end is seen
	}
	if f&(EventIn|EventHangup|EventBroken) != 0 {
		c.flags |= readable
	}
	if c.has(greedy) && (l.ready > 1 || !l.pending.empty()) {
		l.pend(c) // others go first
	} else {
		l.readConn(c)
	}
	if f&EventBroken != 0 && c.state != closed && !c.mayRead() {
		l.checkBroken(c)
	}
}

// checkBroken ends a connection whose error no read will find, because reading
// is paused or has ended. What the kernel still holds for us is not given up, unless
// the handler has said that it may be.
func (l *Loop) checkBroken(c *Conn) {
	if !c.has(ended|endsOnReset) && l.sys.Unread(int(c.fd)) > 0 {
		return
	}
	if c.has(writeBroken) {
		l.close(c, c.err)
	} else if errno := l.sys.SocketError(int(c.fd)); errno != 0 {
		l.close(c, errno)
	}
}

func (c *Conn) mayRead() bool {
	if !c.has(readable) || c.has(ended) {
		return false
	}
	switch c.state {
	case open:
		return c.pauses == 0 && c.Unconsumed() < int(c.limit)
	case lingering:
		return true
	}
	return false
}

// readConn reads c until the kernel has no more, the handler wants no more, or
// the budget of the tick is spent.
func (l *Loop) readConn(c *Conn) {
	budget := l.turnOf(c)
	c.flags &^= greedy
	for c.mayRead() {
		if l.growth.tell != nil {
			l.watchGrowth()
		}
		buf := l.scratch[:min(l.readSize(), l.turnOf(c))]
		if room := int(c.limit) - c.Unconsumed(); room < len(buf) && c.state == open {
			buf = buf[:room]
		}
		n, errno := l.sys.Read(int(c.fd), buf)
		if errno != 0 || n == 0 {
			l.readEnded(c, errno)
			continue
		}
		l.stats.ReadBytes += uint64(n)
		if n < len(buf) && !c.has(doubtful) {
			c.flags &^= readable // epoll(7): a short read has drained the socket
		}
		var began int64
		timed := l.timed(c, n)
		if timed {
			began, _ = l.sys.Clock()
		}
		switch {
		case c.state != open:
		case c.secure != nil:
			l.opened(c, buf[:n])
		default:
			c.read += uint64(n)
			l.deliver(c, buf[:n])
		}
		if timed {
			now, _ := l.sys.Clock()
			l.delivered(time.Duration(now - began))
		}
		if n == len(l.scratch) && c.secure == nil && l.relay(c) {
			budget = 0
		}
		if budget -= n; budget <= 0 && c.mayRead() {
			c.spent = uint32(l.stats.Ticks)
			c.flags |= greedy
			l.pend(c)
			return
		}
	}
}

// readEnded handles a read that brought no bytes.
func (l *Loop) readEnded(c *Conn, errno syscall.Errno) {
	switch errno {
	case syscall.EINTR:
		return // once more
	case syscall.EAGAIN:
		c.flags &^= readable
		return
	}
	c.flags &^= readable
	switch {
	case c.has(writeBroken): // all that there was is delivered
		l.close(c, c.err)
	case errno != 0:
		l.close(c, errno)
	case c.state == lingering:
		c.flags |= ended
		l.endIfBoth(c)
	case c.secure != nil && c.secure.transport != nil:
		if c.secure.early {
			l.openEarly(c)
		}
		if !c.has(ended) {
			l.close(c, ErrTruncated)
		}
	default:
		c.flags |= ended
		c.handler.OnEOF(c)
		l.endIfBoth(c)
	}
}

// endIfBoth closes a connection whose directions have both ended, once the
// handler has consumed what came before the end.
func (l *Loop) endIfBoth(c *Conn) {
	if c.has(ended) && c.has(finSent) && c.left == nil {
		l.close(c, nil)
	}
}

// deliver presents fresh input, after what was left over before.
func (l *Loop) deliver(c *Conn, in []byte) {
	if c.left != nil {
		c.left = l.pools.add(c.left, in)
		l.present(c)
		return
	}
	c.flags &^= redeliver
	n := c.handler.OnData(c, in)
	checkConsumed(n, len(in))
	if n < len(in) && c.state == open {
		c.left = l.pools.add(l.pools.input(len(in)-n), in[n:])
		if c.has(redeliver) {
			l.pend(c)
		}
	}
}

// present shows the handler what was left over.
func (l *Loop) present(c *Conn) {
	b := c.left
	in := b.bytes()
	c.flags &^= redeliver
	n := c.handler.OnData(c, in)
	checkConsumed(n, len(in))
	if c.left != b { // given up meanwhile
		return
	}
	if b.r += n; b.r == b.w {
		c.releaseInput()
		l.endIfBoth(c)
	}
}

func checkConsumed(n, of int) {
	if n < 0 || n > of {
		panic("reactor: OnData consumed what it was not given")
	}
}
