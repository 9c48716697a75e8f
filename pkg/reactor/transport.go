// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"io"
	"syscall"
)

// Transport turns the bytes of a connection into what its handler sees, and back:
// the record layer of TLS, once the handshake is done (Conn.SetTransport). All
// calls are made on the loop, one at a time, in the order of the bytes; a
// Transport keeps none of the slices that it is given.
type Transport interface {
	// Open takes all of in, which came from the peer and may end anywhere, and
	// appends to dst what it says: no more than len(in) bytes and one record.
	// reply is what the protocol answers by itself (a key update, an alert); it
	// goes out before anything that is sealed later, and dies with the next call.
	// io.EOF: the peer has ended its direction in order. Any other error closes
	// the connection with it, after what was opened before is presented.
	Open(dst, in []byte) (plain, reply []byte, err error)
	// Seal appends plain, of any size, to dst as records. It cannot fail: a
	// Transport that is broken says so from Open.
	Seal(dst, plain []byte) []byte
	// CloseNotify appends to dst the end of our direction. Nothing is sealed after it.
	CloseNotify(dst []byte) []byte
}

// sealBatch is how many bytes of plaintext are sealed for one system call.
const sealBatch = 64 << 10

// maxKept bounds the scratch buffers of records that a loop keeps.
const maxKept = 256 << 10

// maxReplies bounds the answers of a Transport that wait for a peer who makes it
// answer and does not read.
const maxReplies = 16 << 10

// secured is what a connection with a Transport has besides.
type secured struct {
	transport Transport // nil until the handshake is done
	rest      *input    // sealed, and not yet taken by the kernel; nil when nothing
	owed      int       // bytes of plaintext in Conn.waiting that rest stands for
	replies   int       // bytes of rest that are replies, until it is empty
	early     bool      // what came before SetTransport is not opened yet
	notified  bool      // CloseNotify was called
	over      bool      // the peer's direction has ended in order
}

// AwaitTransport keeps what is written to c until SetTransport: it must not leave in
// the clear. Bytes of the handshake go out by WriteRaw, and OnData has the peer's.
func (c *Conn) AwaitTransport() {
	c.loop.owner.check()
	if c.secure == nil {
		c.secure = &secured{}
	}
}

// WriteRaw queues a copy of b, as it is, in a connection that awaits its
// Transport. It leaves at the end of the tick.
func (c *Conn) WriteRaw(b []byte) {
	l := c.loop
	l.owner.check()
	s := c.secure
	if len(b) == 0 || s == nil || s.transport != nil || !c.takesOutput() {
		return
	}
	if s.rest == nil {
		s.rest = l.pools.input(len(b))
	}
	s.rest = l.pools.add(s.rest, b)
	l.markDirty(c)
}

// SetTransport puts t between c and its handler from here on: what c holds
// unconsumed is opened as the beginning of the peer's stream, in the next tick and
// not from inside SetTransport, and what is written is sealed, also what was
// written since AwaitTransport. Handlers see no difference: OnEOF is the peer's
// orderly end, and an end of the connection without it is a close with
// ErrTruncated. CloseWrite and CloseAfterFlush end our direction in order, Close
// and Abort do not. Counters and watermarks of c count plaintext; ReadBytes starts
// over. A connection that is not open is left alone.
func (c *Conn) SetTransport(t Transport) {
	l := c.loop
	l.owner.check()
	if c.state != open {
		return
	}
	c.AwaitTransport()
	c.secure.transport, c.secure.early = t, true
	c.read = 0
	l.markDirty(c)
	l.pend(c)
}

// Transport returns what SetTransport was given, nil for a plain connection.
func (c *Conn) Transport() Transport {
	if c.secure == nil {
		return nil
	}
	return c.secure.transport
}

// opened presents what in says, which the kernel has just given.
func (l *Loop) opened(c *Conn, in []byte) {
	switch {
	case c.secure.transport == nil: // the handshake
		c.read += uint64(len(in))
		l.deliver(c, in)
		return
	case c.secure.early:
		l.openEarly(c)
		if c.state != open || c.has(ended) {
			return
		}
	}
	l.openRecords(c, in)
}

// openEarly opens what came before SetTransport.
func (l *Loop) openEarly(c *Conn) {
	c.secure.early = false
	b := c.left
	c.left = nil
	var in []byte
	if b != nil {
		in = b.bytes()
	}
	over := c.has(ended)
	l.openRecords(c, in)
	if b != nil {
		l.pools.freeInput(b)
	}
	if over && !c.secure.over && c.state == open {
		l.close(c, ErrTruncated)
	}
}

func (l *Loop) openRecords(c *Conn, in []byte) {
	s := c.secure
	plain, reply, err := s.transport.Open(l.plain[:0], in)
	if l.plain = plain[:0]; cap(plain) > maxKept {
		l.plain = nil
	}
	c.read += uint64(len(plain))
	if len(reply) > 0 {
		l.sendReply(c, reply)
	}
	if len(plain) > 0 && c.state == open {
		l.deliver(c, plain)
	}
	switch {
	case err == nil || c.state != open:
	case err == io.EOF:
		s.over = true
		c.flags |= ended
		c.flags &^= readable
		c.handler.OnEOF(c)
		l.endIfBoth(c)
	default:
		l.close(c, err)
	}
}

// sendReply sends what the Transport answers by itself, after what is sealed already.
func (l *Loop) sendReply(c *Conn, b []byte) {
	s := c.secure
	if s.rest == nil {
		l.sendSealed(c, b, 0)
		return
	}
	if s.replies += len(b); s.replies > maxReplies {
		l.close(c, ErrStalled)
		return
	}
	s.rest = l.pools.add(s.rest, b)
}

// flushSealed is flush for a connection with a Transport.
func (l *Loop) flushSealed(c *Conn) {
	s := c.secure
	for c.has(writable) && c.state != closed && !c.has(writeBroken) {
		switch {
		case s.rest != nil:
			l.sendRest(c)
		case s.transport == nil: // what waits must not leave in the clear
			return
		case c.waiting > 0:
			sealed, n := l.sealed[:0], 0
			for t := c.out; t != nil && n < sealBatch; t = t.next {
				if t.r < t.w {
					sealed = s.transport.Seal(sealed, t.data[t.r:t.w])
					n += t.w - t.r
				}
			}
			l.takeOff(c, n)
			l.keepSealed(sealed)
			l.sendSealed(c, sealed, n)
		default: // at most reserved and not committed
			l.takeOff(c, 0)
			return
		}
	}
}

// sealThrough seals b without queueing it, after what waits, and returns what the
// kernel had no room for.
func (l *Loop) sealThrough(c *Conn, b []byte) []byte {
	if c.secure.transport == nil {
		return b
	}
	l.flushSealed(c)
	for len(b) > 0 && c.has(writable) && c.state == open && !c.has(writeBroken) {
		n := min(len(b), sealBatch)
		sealed := c.secure.transport.Seal(l.sealed[:0], b[:n])
		l.keepSealed(sealed)
		c.waiting += n
		l.sendSealed(c, sealed, n)
		b = b[n:]
	}
	if c.has(overHigh) {
		l.markDirty(c) // low water is told from the flush only
	}
	if c.state == closed || c.has(writeBroken) {
		return nil
	}
	return b
}

func (l *Loop) keepSealed(b []byte) {
	if cap(b) <= maxKept {
		l.sealed = b[:0]
	}
}

// sendSealed writes b, which stands for n bytes of c.waiting, and keeps what the
// kernel does not take. Nothing sealed may wait before it.
func (l *Loop) sendSealed(c *Conn, b []byte, n int) {
	s := c.secure
	k := 0
	if c.has(writable) {
		var ok bool
		if k, ok = l.writeSealed(c, b); !ok {
			return
		}
	}
	s.owed = n
	l.account(c, k, len(b))
	if k < len(b) {
		s.rest = l.pools.add(l.pools.input(len(b)-k), b[k:])
		if n == 0 {
			s.replies = len(b) - k
		}
	}
}

// sendRest writes what was sealed before.
func (l *Loop) sendRest(c *Conn) {
	s := c.secure
	b := s.rest.bytes()
	k, ok := l.writeSealed(c, b)
	if !ok {
		return
	}
	l.account(c, k, len(b))
	if s.rest.r += k; s.rest.r == s.rest.w {
		l.pools.freeInput(s.rest)
		s.rest, s.replies = nil, 0
	}
}

// account moves from waiting to written the plaintext of k out of m sealed bytes,
// rounded up: a request of which one byte has left was sent.
func (l *Loop) account(c *Conn, k, m int) {
	if k == 0 {
		return
	}
	d := (c.secure.owed*k + m - 1) / m
	c.secure.owed -= d
	c.waiting -= d
	c.written += uint64(d)
}

// writeSealed makes one system call. It is false after an error.
func (l *Loop) writeSealed(c *Conn, b []byte) (int, bool) {
	for {
		n, errno := l.sys.Write(int(c.fd), b)
		switch errno {
		case 0:
			if n < len(b) {
				c.flags &^= writable
			}
			l.stats.WrittenBytes += uint64(n)
			return n, true
		case syscall.EINTR:
		case syscall.EAGAIN:
			c.flags &^= writable
			return 0, true
		default:
			l.writeFailed(c, errno)
			return 0, false
		}
	}
}

// takeOff takes n sealed bytes off c's queue; they go on waiting as owed ones.
func (l *Loop) takeOff(c *Conn, n int) {
	c.waiting += n
	l.discard(c, n)
}

// notify sends CloseNotify once, and reports whether all has left.
func (l *Loop) notify(c *Conn) bool {
	s := c.secure
	if !s.notified && s.transport != nil {
		s.notified = true
		b := s.transport.CloseNotify(l.sealed[:0])
		l.keepSealed(b)
		if s.rest != nil {
			s.rest = l.pools.add(s.rest, b)
		} else {
			l.sendSealed(c, b, 0)
		}
	}
	return s.rest == nil && c.state != closed && !c.has(writeBroken)
}

// hasOutput reports whether the kernel is to be offered something.
func (c *Conn) hasOutput() bool {
	return c.out != nil || c.secure != nil && c.secure.rest != nil
}

// releaseSealed gives back what a Transport's connection holds.
func (l *Loop) releaseSealed(c *Conn) {
	if s := c.secure; s.rest != nil {
		l.pools.freeInput(s.rest)
		s.rest, s.owed = nil, 0
	}
}
