// SPDX-License-Identifier: Apache-2.0

package http2

// body is what is left of a frame whose payload is passed on, or passed over, as
// it comes in.
type body struct {
	left   uint32 // bytes of the payload to come
	pad    uint32 // of which are padding
	stream uint32 // 0: all is passed over
	end    bool   // END_STREAM
}

// data handles the header of a DATA frame, and its pad length.
func (c *Conn) data(f frame, in []byte, sink Sink) (n int, err error) {
	n, pad := frameHeaderSize, uint32(0)
	left := f.length
	if f.has(flagPadded) {
		if left == 0 {
			return 0, c.fail(errFrameLength)
		}
		if len(in) <= frameHeaderSize {
			return 0, nil
		}
		pad = uint32(in[frameHeaderSize])
		n++
		left--
		if pad > left {
			return 0, c.fail(errPadding)
		}
	}
	s := c.streams.find(f.stream)
	if s == nil && c.idle(f.stream) {
		return 0, c.fail(errIdle)
	}
	connErr, streamErr := c.charge(s, int64(f.length))
	if connErr != nil {
		return 0, c.fail(connErr)
	}
	switch {
	case s == nil && (contains(c.past.reset[:], f.stream) || f.stream > c.away.last):
		c.skip(f, left)
		if c.past.wasUnderway(int64(left)) {
			return n, nil // however small the pieces are
		}
		return n, c.idleFrame()
	case s == nil || s.is(remoteClosed):
		streamErr = errClosed
	case streamErr == nil:
		streamErr = c.judgeData(s, f, int64(left-pad))
	}
	if streamErr != nil {
		c.skip(f, left)
		return n, c.streamError(f.stream, streamErr, sink)
	}
	if left == pad && !f.has(flagEndStream) && !c.emptyData.spend(c.now, 0, emptyDataRate, c.lim.EmptyData) {
		return n, c.fail(errEmptyData)
	}
	// Padding is nobody's: it is credited at once.
	if padding := int64(f.length - (left - pad)); padding > 0 {
		c.creditConn(padding)
		c.creditStream(s, padding)
	}
	if left > pad {
		c.useful++
	}
	c.body = body{left, pad, f.stream, f.has(flagEndStream)}
	if left > pad {
		return n, nil
	}
	c.body.stream = 0
	if f.has(flagEndStream) {
		return n, c.deliver(s, nil, true, sink)
	}
	return n, nil
}

// judgeData applies the message's rules to a frame with n bytes of data.
func (c *Conn) judgeData(s *stream, f frame, n int64) *Error {
	switch {
	case !s.is(headSeen):
		return errBeforeHead
	case s.is(noBody) && n > 0:
		return errBodyDisallowed
	case s.bodyLeft == lengthUnknown:
		return nil
	case s.bodyLeft < n || f.has(flagEndStream) && s.bodyLeft != n:
		return errLengthDiffers
	}
	s.bodyLeft -= n
	return nil
}

// skip passes over what is left of a frame, all of which is credited.
func (c *Conn) skip(f frame, left uint32) {
	c.creditConn(int64(f.length))
	c.body = body{left: left}
}

// content passes on what there is of a frame's payload.
func (c *Conn) content(in []byte, sink Sink) (int, error) {
	if len(in) == 0 {
		return 0, nil
	}
	b := &c.body
	n := uint32(min(len(in), int(b.left)))
	s := c.streams.find(b.stream)
	if b.stream == 0 || s == nil {
		// A stream that was ended within the frame: what is still to come of it is
		// not yet credited.
		if b.stream != 0 {
			c.creditConn(int64(b.left - b.pad))
			b.stream = 0
		}
		b.left -= n
		return int(n), nil
	}
	n = min(n, b.left-b.pad)
	b.left -= n
	last := b.left == b.pad
	if last {
		b.stream = 0
	}
	s.held += int64(n)
	c.creditConn(int64(n))
	return int(n), c.deliver(s, in[:n], last && b.end, sink)
}

// deliver hands data to the sink. The stream may be gone afterwards: its end
// closes it if this side has ended it too, but not before the sink has seen it.
func (c *Conn) deliver(s *stream, b []byte, end bool, sink Sink) error {
	id := s.id
	if !end {
		return sink.Data(id, b, false)
	}
	s.flags |= remoteClosed
	err := sink.Data(id, b, true)
	c.afterLast(id)
	return err
}
