// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// The WebSockets of a day: tunnels whose ends talk in frames, of any size and with pings
// between them, which stop in the middle of one now and then. Whatever the frames are cut
// into, over HTTP/1.1 or HTTP/2,
//
//   - each end hears frames and nothing else: what the proxy adds, a Close frame of status
//     1001, is never within another, masked as its sender's are, and nothing follows it;
//   - in a drain, both ends hear one who are between two frames and read;
//   - no WebSocket outlives the drain.

const dayWebSocket = webSocket

// dayWeb are the frames of one end.
type dayWeb struct {
	e      *dayEnd
	masked bool // what it sends
	left   int  // of the frame that it is in
	key    [4]byte
	at     int

	lasting bool // it goes on until somebody else ends it

	in     []byte // a frame that has not come to its end
	inLeft int    // of its payload
	inKey  [4]byte
	inAt   int
	inOp   byte
	status int // of the Close frame that came; 0: none
}

// speaksWeb makes an end talk in frames.
func (e *dayEnd) speaksWeb() {
	e.web = &dayWeb{e: e, masked: !e.server, lasting: e.d.lasting}
	if e.web.lasting {
		e.silent = true
	}
}

// frames puts what the end says into frames; more is how much follows.
func (w *dayWeb) frames(b []byte, more int) (out []byte) {
	rng := w.e.d.rng
	for len(b) > 0 {
		if w.left == 0 {
			if maybe(rng, 1, 6) {
				out = w.ping(out)
			}
			w.left = 1 + rng.IntN(len(b)+more)
			out = w.head(out, 0x82, w.left)
		}
		n := min(w.left, len(b))
		out = w.payload(out, b[:n])
		b = b[n:]
		w.left -= n
	}
	return out
}

func (w *dayWeb) head(out []byte, first byte, n int) []byte {
	mask := byte(0)
	if w.masked {
		mask = 0x80
	}
	switch {
	case n < 126 && (first != 0x82 || n%7 > 0):
		out = append(out, first, mask|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, first, mask|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, first, mask|127), uint64(n))
	}
	if w.at = 0; w.masked {
		binary.BigEndian.PutUint32(w.key[:], w.e.d.rng.Uint32())
		out = append(out, w.key[:]...)
	}
	return out
}

func (w *dayWeb) payload(out, b []byte) []byte {
	for _, c := range b {
		if w.masked {
			c ^= w.key[w.at%4]
		}
		out = append(out, c)
		w.at++
	}
	return out
}

func (w *dayWeb) ping(out []byte) []byte { return w.payload(w.head(out, 0x89, 4), []byte("ping")) }

// keepUp pings, and so keeps the connection in use.
func (w *dayWeb) keepUp() {
	if w.left == 0 && w.e.wire.unsent() == 0 && !w.e.fin {
		w.e.wire.write(w.ping(nil))
	}
	w.e.later(80*ms, w.keepUp)
}

// hears takes what comes, and returns what is in it of what the far end says.
func (w *dayWeb) hears(b []byte) (text []byte) {
	d := w.e.d
	for len(b) > 0 {
		if w.status != 0 {
			d.fail("%s hears %q behind a Close frame", w.e, b)
		}
		if w.inLeft > 0 {
			n := min(w.inLeft, len(b))
			for _, c := range b[:n] {
				if !w.masked {
					c ^= w.inKey[w.inAt%4]
				}
				w.inAt++
				w.in = append(w.in, c)
			}
			b = b[n:]
			if w.inLeft -= n; w.inOp == 0x82 {
				text, w.in = append(text, w.in...), w.in[:0]
			} else if w.inLeft == 0 {
				w.control()
			}
			continue
		}
		w.in, b = append(w.in, b[0]), b[1:]
		w.begins()
	}
	return text
}

// begins looks whether the head of a frame is whole.
func (w *dayWeb) begins() {
	h, size := w.in, 2
	if len(h) < 2 {
		return
	}
	n := int(h[1] & 0x7f)
	if (h[1]&0x80 != 0) == w.masked || h[0] != 0x82 && h[0] != 0x89 && h[0] != 0x88 {
		w.e.d.fail("%s hears a frame that nobody has sent: %x", w.e, h)
	}
	switch n {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	key := size
	if !w.masked {
		size += 4
	}
	if len(h) < size {
		return
	}
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		n = int(binary.BigEndian.Uint64(h[2:]))
	}
	w.inOp, w.inLeft, w.inAt = h[0], n, 0
	copy(w.inKey[:], h[key:])
	w.in = w.in[:0]
}

// control takes a ping, or a Close frame.
func (w *dayWeb) control() {
	d, b := w.e.d, w.in
	w.in = nil
	switch {
	case w.inOp == 0x89 && string(b) == "ping":
	case w.inOp == 0x88 && len(b) == 2 && binary.BigEndian.Uint16(b) == goingAway:
		w.status = goingAway
		d.sums.goneAway++
		w.e.later(time.Duration(d.rng.IntN(20))*ms, w.e.finish)
	default:
		d.fail("%s hears a control frame %x of %q", w.e, w.inOp, b)
	}
}

// judgeWeb judges the end of a WebSocket in a drain.
func (e *dayEnd) judgeWeb() {
	f := e.far
	if e.web == nil || !e.web.lasting || f == nil || f.web == nil || e.recorded.CloseDetails != failureDrained.Details && e.recorded.Details != failureDrained.Details {
		return
	}
	for _, o := range [...]*dayEnd{e, f} {
		if e.web.left == 0 && f.web.left == 0 && !e.rough && !f.rough && o.web.status != goingAway && !o.broke {
			e.d.fail("%s was drained, and is not told of it", o)
		}
	}
}

// acceptWeb answers the key of a handshake.
func acceptWeb(key []byte) string {
	sum := sha1.Sum(append(append([]byte(nil), key...), webSocketGUID...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// webHead makes a request one for a WebSocket.
func webHead(h *codec.RequestHead, id string, keyed bool) {
	h.SetPath([]byte("/ws/" + id))
	h.SetUpgrade([]byte(dayWebSocket))
	if keyed {
		h.AddString(webSocketKey, "dGhlIHNhbXBsZSBub25jZQ==")
		h.AddString(webSocketVersion, "13")
	}
}
