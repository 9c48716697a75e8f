// SPDX-License-Identifier: Apache-2.0

package http2

// link is a stream's place in a ring.
type link struct {
	next, prev *stream
}

// ring is a list of streams that take turns. Each ring has its own link in them.
type ring struct {
	front *stream
	which int
}

func (r *ring) has(s *stream) bool { return s.links[r.which].next != nil }

// push puts a stream behind the others, unless it is there.
func (r *ring) push(s *stream) {
	if r.has(s) {
		return
	}
	w := r.which
	if r.front == nil {
		r.front = s
		s.links[w] = link{s, s}
		return
	}
	last := r.front.links[w].prev
	s.links[w] = link{next: r.front, prev: last}
	last.links[w].next = s
	r.front.links[w].prev = s
}

func (r *ring) remove(s *stream) {
	if !r.has(s) {
		return
	}
	w := r.which
	l := s.links[w]
	if l.next == s {
		r.front = nil
	} else {
		l.prev.links[w].next = l.next
		l.next.links[w].prev = l.prev
		if r.front == s {
			r.front = l.next
		}
	}
	s.links[w] = link{}
}

// rotate makes the front the last.
func (r *ring) rotate() {
	if r.front != nil {
		r.front = r.front.links[r.which].next
	}
}

// grant gives the connection's window to the streams that wait for it, a frame
// to each in turn. A stream with windows for all that it queued is drained for
// the sink: its bytes are sure to go out with the next AppendPending.
func (c *Conn) grant(sink Sink) {
	c.regrant = false
	for c.sendWindow > 0 && c.waiting.front != nil {
		s := c.waiting.front
		n := min(int64(s.ungranted()), s.sendWindow, c.sendWindow, sendFrameSize)
		s.granted += int(n)
		s.sendWindow -= n
		c.sendWindow -= n
		c.sending.push(s)
		switch {
		case s.ungranted() == 0:
			c.waiting.remove(s)
			sink.Drained(s.id) // s may be gone then
		case s.sendWindow <= 0:
			c.waiting.remove(s)
		default:
			c.waiting.rotate()
		}
	}
}

// AppendPending appends what waits to be written: control frames, then bodies as
// windows permit, a frame of each stream in turn, at most about MaxPerCall bytes
// of them. HasPending says whether there is more.
func (c *Conn) AppendPending(dst []byte) []byte {
	dst = c.appendControl(dst)
	if c.err != nil {
		return dst
	}
	for limit := len(dst) + MaxPerCall; c.sending.front != nil && len(dst) < limit; {
		s := c.sending.front
		c.sending.rotate()
		dst = c.appendGranted(dst, s, c.frameSize(), true)
	}
	return dst
}

// HasPending reports whether AppendPending would append anything.
func (c *Conn) HasPending() bool {
	return len(c.pending) > 0 || c.err == nil && c.sending.front != nil
}

// appendControl appends the frames that are pending.
func (c *Conn) appendControl(dst []byte) []byte {
	if len(c.pending) == 0 {
		return dst
	}
	dst = append(dst, c.pending...)
	c.pending = c.pending[:0]
	c.controlFrames = 0
	if cap(c.pending) > keepQueue {
		c.pending = nil
	}
	return dst
}

// frameSize is how much goes into one frame of DATA: no more than the peer
// takes, and no more than is good for the others.
func (c *Conn) frameSize() int { return min(int(c.peer.frameSize), sendFrameSize) }

// appendGranted appends at most n bytes of what has its windows, and, where
// finish says so and nothing is left, what ends the stream.
func (c *Conn) appendGranted(dst []byte, s *stream, n int, finish bool) []byte {
	for n = min(n, s.granted); n > 0; {
		m := min(n, c.frameSize())
		rest := s.queue[s.off:]
		end := finish && m == len(rest) && s.is(endQueued) && !s.is(hasTrailer)
		dst = c.appendDataFrame(dst, s, rest[:m], end)
		s.off += m
		s.granted -= m
		n -= m
		if end {
			c.sending.remove(s)
			c.endLocal(s)
			return dst
		}
	}
	if s.granted == 0 {
		c.sending.remove(s)
	}
	if s.off == len(s.queue) {
		s.queue, s.off = s.queue[:0], 0
		c.queuedPieces -= s.pieces
		s.pieces = 0
		if finish && s.is(hasTrailer) {
			dst = c.appendTrailer(dst, s, s.trailer)
		}
	}
	return dst
}

func (c *Conn) appendDataFrame(dst []byte, s *stream, b []byte, end bool) []byte {
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	c.updatesEarned += updatesPerFrame
	dst = appendFrame(dst, len(b), frameData, flags, s.id)
	return append(dst, b...)
}

// AppendData appends a piece of a body as far as windows permit, and keeps a
// copy of the rest: callers send nothing more while Queued is above 0. last ends
// the body.
func (c *Conn) AppendData(dst []byte, stream uint32, chunk []byte, last bool) []byte {
	dst = c.appendControl(dst)
	s := c.writable(stream)
	if s == nil {
		return dst
	}
	if s.granted > 0 && s.ungranted() == 0 {
		dst = c.appendGranted(dst, s, s.granted, false)
	}
	if len(s.queue) == 0 {
		for len(chunk) > 0 {
			n := int(min(int64(len(chunk)), s.sendWindow, c.sendWindow, int64(c.frameSize())))
			if n <= 0 {
				break
			}
			s.sendWindow -= int64(n)
			c.sendWindow -= int64(n)
			end := last && n == len(chunk)
			dst = c.appendDataFrame(dst, s, chunk[:n], end)
			if chunk = chunk[n:]; end {
				c.endLocal(s)
				return dst
			}
		}
		if len(chunk) == 0 {
			if last {
				dst = c.appendDataFrame(dst, s, nil, true)
				c.endLocal(s)
			}
			return dst
		}
	}
	c.keep(s, chunk, last)
	return dst
}

// keep queues what windows do not permit.
func (c *Conn) keep(s *stream, chunk []byte, last bool) {
	s.queue = append(s.queue, chunk...)
	s.pieces++
	c.queuedPieces++
	if last {
		s.flags |= endQueued
	}
	if s.sendWindow > 0 && s.ungranted() > 0 {
		c.waiting.push(s)
	}
	if c.queuedPieces > c.lim.MaxOutboundFrames {
		_ = c.fail(errQueue) // Decode returns it
	}
}

// writable finds a stream whose body has begun and is not ended.
func (c *Conn) writable(id uint32) *stream {
	s := c.live(id)
	if s == nil || !s.is(headSent) || s.is(localClosed|endQueued) {
		return nil
	}
	return s
}

// Queued is the number of bytes kept that wait for window.
func (c *Conn) Queued(stream uint32) int {
	if s := c.live(stream); s != nil {
		return s.ungranted()
	}
	return 0
}
