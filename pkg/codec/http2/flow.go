// SPDX-License-Identifier: Apache-2.0

package http2

import "encoding/binary"

// charge takes a DATA frame from the windows that the peer has (RFC 9113 §6.9.1):
// the whole payload counts. s is nil for a stream that is gone.
func (c *Conn) charge(s *stream, length int64) (conn, stream *Error) {
	if length > c.recvWindow {
		return errWindowExceeded, nil
	}
	c.recvWindow -= length
	if s == nil {
		return nil, nil
	}
	if length > s.recvWindow {
		return nil, errStreamExceeded
	}
	s.recvWindow -= length
	return nil, nil
}

// creditConn gives bytes of the connection's window back.
func (c *Conn) creditConn(n int64) {
	c.credit += n
	if c.credit > 0 && c.credit >= int64(c.lim.InitialConnWindow)/2 && c.err == nil {
		c.pending = appendWindowUpdate(c.pending, 0, uint32(c.credit))
		c.recvWindow += c.credit
		c.credit = 0
	}
}

// creditStream gives bytes of a stream's window back.
func (c *Conn) creditStream(s *stream, n int64) {
	if s.is(remoteClosed) {
		return
	}
	s.credit += n
	if s.credit > 0 && s.credit >= int64(c.lim.InitialStreamWindow)/2 {
		c.pending = appendWindowUpdate(c.pending, s.id, uint32(s.credit))
		s.recvWindow += s.credit
		s.credit = 0
	}
}

// Consumed gives the peer credit for n bytes of Data of a stream that are no longer
// held. It is sent in halves of the window; n of a stream that is gone is ignored.
//
// The connection's window is another matter: bytes are credited to it when they are
// handed on. It bounds what is under way, the streams' windows bound what is held.
// If what one stream holds counted there as well, a few readers that have stopped
// would stop all others on the connection, which may be those of other clients.
func (c *Conn) Consumed(stream uint32, n int) {
	s := c.live(stream)
	if s == nil {
		return
	}
	m := min(int64(n), s.held)
	if m <= 0 {
		return
	}
	s.held -= m
	c.creditStream(s, m)
}

func (c *Conn) windowUpdate(f frame, payload []byte, sink Sink) error {
	n := int64(binary.BigEndian.Uint32(payload) & maxWindow)
	if !c.windowUpdates.spend(c.now, c.updatesEarned, windowUpdateRate, c.lim.WindowUpdates) {
		return c.fail(errWindowUpdates)
	}
	if f.stream == 0 {
		switch {
		case n == 0:
			return c.fail(errWindowZero)
		case c.sendWindow+c.grantedUnsent()+n > maxWindow:
			return c.fail(errWindowOverflow)
		}
		c.sendWindow += n
		c.grant(sink)
		return nil
	}
	s := c.streams.find(f.stream)
	switch {
	case s == nil && c.idle(f.stream):
		return c.fail(errIdle)
	case s == nil:
		return nil
	case n == 0:
		return c.streamError(f.stream, errStreamZero, sink)
	case s.sendWindow+int64(s.granted)+n > maxWindow:
		return c.streamError(f.stream, errStreamOverflow, sink)
	}
	s.sendWindow += n
	if s.sendWindow > 0 && s.ungranted() > 0 {
		c.waiting.push(s)
		c.grant(sink)
	}
	return nil
}

// grantedUnsent is what grants have taken off the connection's window that the
// peer does not know of yet. It is asked for only near the top of the window.
func (c *Conn) grantedUnsent() (n int64) {
	if c.sendWindow < maxWindow/2 {
		return 0
	}
	for _, s := range c.streams.slots {
		if s != nil {
			n += int64(s.granted)
		}
	}
	return n
}

// setPeerWindow applies SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113
// §6.9.2): their windows may become negative.
func (c *Conn) setPeerWindow(v int64, sink Sink) error {
	delta := v - c.peer.window
	c.peer.window = v
	if delta == 0 {
		return nil
	}
	for _, s := range c.streams.slots {
		if s == nil {
			continue
		}
		if s.sendWindow += delta; s.sendWindow+int64(s.granted) > maxWindow {
			return c.fail(errSettingWindow)
		}
		switch {
		case s.sendWindow > 0 && s.ungranted() > 0:
			c.waiting.push(s)
		case s.sendWindow <= 0:
			c.waiting.remove(s)
		}
	}
	c.grant(sink)
	return nil
}
