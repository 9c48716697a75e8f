// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"syscall"
	"unsafe"
)

const (
	// throughMin is the size from which a copy costs more than a write of its own.
	throughMin = 4 << 10
	// maxIovecs bounds one writev; the kernel's bound is 1024.
	maxIovecs = 64
)

// Write queues a copy of b; it leaves at the end of the tick, together with what else
// was written by then, or later (see Gather). A large b is written through at once, after
// what was queued, and only what the kernel does not take is copied. Write never
// blocks; errors come as OnClose. After CloseWrite and Close it does nothing.
func (c *Conn) Write(b []byte) {
	l := c.loop
	l.owner.check()
	if len(b) == 0 || !c.takesOutput() {
		return
	}
	if len(b) >= throughMin && c.state == open && c.has(writable) {
		if c.secure != nil {
			b = l.sealThrough(c, b)
		} else {
			b = l.writeThrough(c, b)
		}
		if len(b) == 0 {
			return
		}
	}
	l.queue(c, b)
	l.queued(c)
}

// Reserve returns an empty slice with room for at least n bytes inside c's
// output; what is appended to it is queued by Commit, without a copy as long as
// it fits. Nothing else may be done with c between the two.
func (c *Conn) Reserve(n int) []byte {
	l := c.loop
	l.owner.check()
	if !c.takesOutput() {
		return make([]byte, 0, n)
	}
	t := l.grow(c, n)
	if t == nil || len(t.data)-t.w < n {
		switch {
		case n > chunkSize:
			t = &chunk{data: make([]byte, n)}
		case t == nil:
			t = l.pools.first(n)
		default:
			t = l.pools.chunk()
		}
		c.append(t)
		l.markDirty(c) // the flush takes it back if nothing is committed
	}
	return t.data[t.w:t.w]
}

// Commit queues b, which was made by appending to what Reserve returned.
func (c *Conn) Commit(b []byte) {
	l := c.loop
	l.owner.check()
	if len(b) == 0 || !c.takesOutput() {
		return
	}
	t := c.last
	if t != nil && t.w+len(b) <= len(t.data) && unsafe.SliceData(b) == &t.data[t.w] {
		t.w += len(b)
		c.waiting += len(b)
	} else { // outgrew its room
		l.queue(c, b)
	}
	l.queued(c)
}

// Buffered returns how many bytes wait to be accepted by the kernel.
func (c *Conn) Buffered() int { return c.waiting }

// SetWatermark sets how many bytes may wait to be written before OnHighWater is
// called; OnLowWater follows at half of it. The limit is soft: Write takes
// everything. The default is DefaultWatermark.
func (c *Conn) SetWatermark(bytes int) {
	c.loop.owner.check()
	c.high = int32(max(bytes, 1))
	if c.has(overHigh) {
		c.loop.markDirty(c)
	}
}

// AboveWatermark reports whether OnHighWater was called and OnLowWater not yet.
func (c *Conn) AboveWatermark() bool { return c.has(overHigh) }

func (c *Conn) takesOutput() bool {
	return (c.state == open || c.state == connecting) && !c.has(finWanted|writeBroken)
}

func (c *Conn) append(t *chunk) {
	if c.last == nil {
		c.out = t
	} else {
		c.last.next = t
	}
	c.last = t
}

// queue copies b to the end of c's output.
func (l *Loop) queue(c *Conn, b []byte) {
	c.waiting += len(b)
	for {
		if t := l.grow(c, min(len(b), chunkSize)); t != nil {
			n := copy(t.data[t.w:], b)
			t.w += n
			if b = b[n:]; len(b) == 0 {
				return
			}
		}
		if c.last == nil {
			c.append(l.pools.first(len(b)))
		} else {
			c.append(l.pools.chunk())
		}
	}
}

// grow returns c's last chunk. A small one that is alone and has no room for n more
// bytes is replaced by one of full size that has, so that a head and the piece of a
// body behind it are one buffer, and one record of TLS.
func (l *Loop) grow(c *Conn, n int) *chunk {
	t := c.last
	if t == nil || len(t.data) != smallChunk || t != c.out || t.r > 0 || t.w+n <= smallChunk || t.w+n > chunkSize {
		return t
	}
	large := l.pools.chunk()
	large.w = copy(large.data, t.data[:t.w])
	c.out, c.last = large, large
	l.pools.freeChunk(t)
	return large
}

// queued follows each addition to c's output.
func (l *Loop) queued(c *Conn) {
	l.markDirty(c)
	high := l.highOf(c)
	if c.waiting <= high || c.has(overHigh) {
		return
	}
	// The kernel may have room: what it takes now is no reason to stop anybody.
	if c.state == open {
		l.flush(c)
	}
	if c.waiting > high && c.state != closed {
		c.flags |= overHigh
		c.handler.OnHighWater(c)
	}
}

// drained ends back-pressure and sends FIN once all that waited is written.
func (l *Loop) drained(c *Conn) {
	if c.state != open && c.state != lingering {
		return
	}
	if c.waiting == 0 && c.has(finWanted) && !c.has(finSent) && !c.has(writeBroken) {
		l.sendFIN(c)
	}
	if c.has(overHigh) && c.waiting <= l.highOf(c)/2 && c.state == open {
		c.flags &^= overHigh
		c.handler.OnLowWater(c)
	}
}

func (l *Loop) sendFIN(c *Conn) {
	if c.secure != nil && !l.notify(c) {
		return
	}
	if errno := l.sys.CloseWrite(int(c.fd)); errno != 0 {
		// ENOTCONN: it was reset, and the event that says so is on its way.
		if cause := l.sys.SocketError(int(c.fd)); cause != 0 {
			errno = cause
		}
		l.writeFailed(c, errno)
		return
	}
	c.flags |= finSent
	l.endIfBoth(c)
	if c.state == lingering {
		l.drain(c)
	}
}

// drain discards what a lingering connection still receives, after our FIN.
func (l *Loop) drain(c *Conn) {
	if c.linger.drain <= 0 {
		l.close(c, nil)
		return
	}
	l.Schedule(&c.linger.timer, c.linger.drain)
}

// flush writes what waits until all is written or the kernel has no room.
func (l *Loop) flush(c *Conn) {
	if c.state != open && c.state != lingering {
		return
	}
	if c.secure != nil {
		l.flushSealed(c)
		return
	}
	for c.out != nil && c.has(writable) {
		bufs := l.gather(c, nil)
		if len(bufs) == 0 { // reserved and not committed
			l.releaseOutput(c)
			return
		}
		l.send(c, bufs)
	}
}

// writeThrough writes what waits and then b, and returns what is left of b.
func (l *Loop) writeThrough(c *Conn, b []byte) []byte {
	waited := c.waiting
	bufs := l.gather(c, b)
	if bufs == nil { // too many pieces wait
		return b
	}
	n := l.send(c, bufs)
	if c.has(overHigh) {
		l.markDirty(c) // low water is told from the flush only
	}
	if c.state == closed || c.has(writeBroken) {
		return nil
	}
	return b[max(n-waited, 0):]
}

// gather lists what waits, and more after it; nil if that is too many pieces
// and there is more.
func (l *Loop) gather(c *Conn, more []byte) [][]byte {
	l.bufs = l.bufs[:0]
	for t := c.out; t != nil; t = t.next {
		if t.r == t.w {
			continue
		}
		if len(l.bufs) == maxIovecs-1 {
			if more != nil {
				return nil
			}
			break
		}
		l.bufs = append(l.bufs, t.data[t.r:t.w])
	}
	if more != nil {
		l.bufs = append(l.bufs, more)
	}
	return l.bufs
}

// send makes one system call and accounts for it; it returns the bytes taken.
func (l *Loop) send(c *Conn, bufs [][]byte) (n int) {
	want := 0
	for _, b := range bufs {
		want += len(b)
	}
	var errno syscall.Errno
	for {
		if len(bufs) == 1 {
			n, errno = l.sys.Write(int(c.fd), bufs[0])
		} else {
			n, errno = l.sys.Writev(int(c.fd), bufs)
		}
		if errno != syscall.EINTR {
			break
		}
	}
	clear(bufs) // keep no caller's memory alive
	switch {
	case errno == syscall.EAGAIN:
		c.flags &^= writable
		return 0
	case errno != 0:
		l.writeFailed(c, errno)
		return 0
	}
	if n < want {
		c.flags &^= writable // a short write has filled the socket: EventOut will follow
	}
	c.written += uint64(n)
	l.stats.WrittenBytes += uint64(n)
	l.discard(c, n)
	return n
}

// discard takes n written bytes off c's output; n may go beyond it.
func (l *Loop) discard(c *Conn, n int) {
	n = min(n, c.waiting)
	c.waiting -= n
	for c.out != nil {
		t := c.out
		k := min(n, t.w-t.r)
		t.r += k
		n -= k
		if t.r < t.w {
			return
		}
		if c.out = t.next; c.out == nil {
			c.last = nil
		}
		l.pools.freeChunk(t)
	}
}

// writeFailed gives up output. The peer may have answered before it stopped
// listening: what the kernel still holds is presented before OnClose.
func (l *Loop) writeFailed(c *Conn, errno syscall.Errno) {
	l.releaseOutput(c)
	if c.state == lingering || c.has(ended) {
		l.close(c, errno)
		return
	}
	c.err = errno
	c.flags |= writeBroken | readable | doubtful
	if c.pauses > 0 || c.Unconsumed() >= int(c.limit) {
		l.checkBroken(c)
	}
	l.pend(c)
}

func (l *Loop) releaseOutput(c *Conn) {
	for t := c.out; t != nil; {
		next := t.next
		l.pools.freeChunk(t)
		t = next
	}
	c.out, c.last, c.waiting = nil, nil, 0
	if c.secure != nil {
		l.releaseSealed(c)
	}
}
