// SPDX-License-Identifier: Apache-2.0

package reactor

// Bounds keep what a connection can make the process hold smaller than the loop's own
// limits do, for one that is short of memory. Zero leaves what it stands for as it is.
type Bounds struct {
	// Read is how many bytes one read brings at most. A source that is paused for its
	// reader has brought so many beyond the watermark.
	Read int
	// Watermark is from where on a connection's reader is too slow, whatever
	// SetWatermark has said.
	Watermark int
	// Relay is how many bytes are handed on in one step inside of the kernel: what the
	// other side does not take of them waits in memory. Negative: nothing is.
	Relay int
	// Socket bounds what the kernel queues for a connection, in bytes of each
	// direction, of which half is not yet sent at most. It is for what is dialled and
	// accepted from now on, in place of sizes that the kernel finds by itself; a
	// listening socket never finds its way back to those.
	Socket int
}

// bounder is a System that can bound the queues of a socket.
type bounder interface{ Bound(fd, bytes int) }

// SetBounds puts other bounds in force. Before Run it may be called from the goroutine
// that made the loop.
func (l *Loop) SetBounds(b Bounds) {
	l.owner.check()
	l.bounds = b
	if b.Socket == 0 {
		return
	}
	for i := range l.slots {
		if n := l.slots[i].listener; n != nil {
			l.boundListener(n)
		}
	}
}

// boundListener bounds the connections that are accepted, which inherit it.
func (l *Loop) boundListener(n *Listener) {
	if s, ok := l.sys.(bounder); ok && l.bounds.Socket > 0 && !n.socket.addr.IsUnix() {
		s.Bound(n.socket.fd, l.bounds.Socket)
	}
}

// readSize is how much one read may bring.
func (l *Loop) readSize() int {
	if n := l.bounds.Read; n > 0 {
		return min(n, len(l.scratch))
	}
	return len(l.scratch)
}

// highOf is the watermark of c.
func (l *Loop) highOf(c *Conn) int {
	if n := l.bounds.Watermark; n > 0 {
		return min(n, int(c.high))
	}
	return int(c.high)
}

// relayOf are how many bytes of a relay are handed on at first and at most.
func (l *Loop) relayOf() (first, most int) {
	switch n := l.bounds.Relay; {
	case n < 0:
		return 0, 0
	case n > 0:
		return min(n, relayFirst), min(n, relayMost)
	}
	return relayFirst, relayMost
}

// Held is how many bytes more the loop has read than written, which is what buffers have
// come to hold, and may be negative, and how many connections it has.
func (l *Loop) Held() (bytes int64, conns int) {
	return int64(l.stats.ReadBytes - l.stats.WrittenBytes), int(l.stats.Open)
}

// growthWatch tells its owner within a tick of what the loop comes to hold: after a
// standstill one tick takes all that has come for all connections.
type growthWatch struct {
	tell func() // nil: nobody is told
	step int64  // bytes
	mark int64  // held when it was told last, or the tick began
}

// OnGrowth has f called, before the next read, whenever the loop has come to hold so many
// bytes more within a tick. It may call SetBounds and nothing else that concerns
// connections. It may be called before Run.
func (l *Loop) OnGrowth(step int64, f func()) {
	l.owner.check()
	l.growth = growthWatch{tell: f, step: max(step, 1)}
}

func (l *Loop) watchGrowth() {
	held := int64(l.stats.ReadBytes - l.stats.WrittenBytes)
	if held-l.growth.mark >= l.growth.step {
		l.growth.mark = held
		l.growth.tell()
	}
}
