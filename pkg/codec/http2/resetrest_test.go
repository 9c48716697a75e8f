// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"strings"
	"testing"
)

// An upload in small pieces that is refused: what its sender has sent before it hears of
// that is no flood, whatever the size of its frames. What the stream's window had no room
// for is.
func TestDataThatWasUnderWayOfAResetStreamIsNoFlood(t *testing.T) {
	const piece, window = 10, 60_000
	c := New(Server, Limits{InitialStreamWindow: window})
	r := &recorder{conn: c}
	p := (&peerSide{}).preface().headers(0, 1, ":method: POST", ":scheme: http", ":path: /", ":authority: a")
	send := func(frames int) *Error {
		t.Helper()
		for range frames {
			p.frame(frameData, 0, 1, strings.Repeat("x", piece))
		}
		n, err := c.Decode(p.Bytes(), 0, r)
		p.Next(n)
		if err != nil {
			return c.Err()
		}
		c.AppendPending(nil)
		return nil
	}
	if err := send(1); err != nil {
		t.Fatal(err)
	}
	c.Reset(1, RefusedStream)
	if err := send(window/piece - 1); err != nil {
		t.Fatalf("what was under way ended the connection: %v", err)
	}
	if err := send(2 * DefaultUnknownFrames); err != errUnknownFrames {
		t.Errorf("what is sent beyond the window: %v, want %v", err, errUnknownFrames)
	}
}
