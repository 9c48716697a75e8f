// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"testing"
	"time"
)

var (
	goingAwayOfServer = string([]byte{0x88, 2, 0x03, 0xe9})
	textOfServer      = string(webFrame(0x81, 300, false))
	textOfClient      = string(webFrame(0x81, 300, true))
)

// unmasked is a client's Close frame as a server would send it.
func unmasked(b []byte) string {
	if len(b) != 8 || b[1] != webMask|2 {
		return ""
	}
	return string([]byte{b[0], 2, b[6] ^ b[2], b[7] ^ b[3]})
}

// drain begins a drain; its tunnels' time is 7/8 of all of it.
func (s *span) drain() {
	s.r.p.listeners["l"].drains.Store(true) // as Drain begins it, which waits by the real clock
	s.r.p.workers[0].loop.PostOffLoop(s.r.p.workers[0].drainListeners)
}

func (s *span) ended(c, up *wireEnd) {
	s.r.t.Helper()
	s.r.until("the end", time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
}

func TestAWebSocketIsClosedBetweenFramesAsItsTimeIsOver(t *testing.T) {
	webSpans(t, func(t *testing.T, s *span) {
		c, up := s.open("")
		c.write([]byte(textOfClient), false)
		up.write([]byte(textOfServer), false)
		s.drain()
		s.ended(c, up)
		if string(c.data) != textOfServer+goingAwayOfServer {
			t.Errorf("the client has %x", c.data)
		}
		if !bytes.HasPrefix(up.data, []byte(textOfClient)) || unmasked(up.data[len(textOfClient):]) != goingAwayOfServer {
			t.Errorf("the endpoint has %x", up.data)
		}
		if w := s.r.p.workers[0].stats; w.webSocketsClosed != 1 || w.upgradesDrained != 1 {
			t.Errorf("%d closed, %d drained", w.webSocketsClosed, w.upgradesDrained)
		}
		c.peer.CloseWrite()
		s.closed(c)
	})
}

// A frame that is under way comes to its end first; what comes behind it is dropped.
func TestNoCloseFrameIsWithinAnother(t *testing.T) {
	webSpans(t, func(t *testing.T, s *span) {
		c, up := s.open("")
		half := len(textOfServer) / 2
		up.write([]byte(textOfServer[:half]), false)
		s.r.until("half of a frame", time.Second, func() bool { return len(c.data) == half })
		whole := s.r.p.options.DrainTime
		s.drain()
		s.r.pass(whole*7/8 + time.Second/100)
		if len(c.data) != half || c.over() {
			t.Fatalf("in the middle of a frame the client has %x, over %v", c.data, c.over())
		}
		if unmasked(up.data) != goingAwayOfServer {
			t.Errorf("the endpoint has %x", up.data)
		}
		up.write([]byte(textOfServer[half:]+textOfServer), false)
		s.ended(c, up)
		if n := s.r.p.workers[0].stats.webSocketsClosed; string(c.data) != textOfServer+goingAwayOfServer || n != 1 {
			t.Errorf("the client has %x, %d closed", c.data, n)
		}
		c.peer.CloseWrite()
		s.closed(c)
	})
}

// A frame that does not end in time is cut off, as before, and nothing is put into it.
func TestAFrameThatDoesNotEndIsCutOff(t *testing.T) {
	webSpans(t, func(t *testing.T, s *span) {
		c, up := s.open("")
		up.write([]byte(textOfServer[:9]), false)
		c.write([]byte(textOfClient[:9]), false)
		s.r.until("parts of frames", time.Second, func() bool { return len(c.data) == 9 && len(up.data) == 9 })
		s.drain()
		start := s.r.world.Now()
		s.ended(c, up)
		whole := s.r.p.options.DrainTime
		if took := s.r.world.Now() - start; took < whole*7/8 || took > whole {
			t.Errorf("it ended after %v of %v", took, whole)
		}
		if string(c.data) != textOfServer[:9] || string(up.data) != textOfClient[:9] || s.r.p.workers[0].stats.webSocketsClosed != 0 {
			t.Errorf("the client has %x, the endpoint %x", c.data, up.data)
		}
		c.peer.CloseWrite()
		s.closed(c)
	})
}

// Where an end has said goodbye nothing is said for it.
func TestNothingFollowsACloseFrame(t *testing.T) {
	webSpans(t, func(t *testing.T, s *span) {
		c, up := s.open("")
		up.write([]byte(goingAwayOfServer), false)
		s.r.until("the endpoint's Close", time.Second, func() bool { return len(c.data) == 4 })
		s.drain()
		s.ended(c, up)
		if string(c.data) != goingAwayOfServer || unmasked(up.data) != goingAwayOfServer {
			t.Errorf("the client has %x, the endpoint %x", c.data, up.data)
		}
		c.peer.CloseWrite()
		s.closed(c)
	})
}

// An exchange that its Close frames end is given back at once: nobody may ask it whether
// it has ended.
func TestAnIdleWebSocketIsOverWithItsCloseFrames(t *testing.T) {
	webSpans(t, func(t *testing.T, s *span) {
		c, up := s.open("")
		w := s.r.p.workers[0]
		var x *exchange
		if d := w.downs.first; d != nil {
			x = d.x
		}
		for _, h := range w.http2s {
			for _, stream := range h.streams {
				x = stream.x
			}
		}
		if wait, over := x.leaveWebSocket(); wait != 0 || !over {
			t.Errorf("to wait %v, over %v", wait, over)
		}
		s.ended(c, up)
		c.peer.CloseWrite()
		s.closed(c)
	})
}

// webSpans runs a test over each pair of protocols that carries a WebSocket.
func webSpans(t *testing.T, test func(t *testing.T, s *span)) {
	spans(t, asIs, func(t *testing.T, s *span) {
		if s.connect || s.terminates {
			t.Skip("it carries no WebSocket")
		}
		test(t, s)
	})
}
