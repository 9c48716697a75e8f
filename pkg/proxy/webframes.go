// SPDX-License-Identifier: Apache-2.0

package proxy

import "encoding/binary"

// webFrames follows one direction of a WebSocket from frame to frame (RFC 6455 §5.2).
// It reads the heads, of 2 to 14 bytes, and skips what is in the frames: what it costs
// goes by their number and not by their bytes. The zero value is at the beginning.
type webFrames struct {
	left   uint64 // bytes of the frame that are still to come
	head   [14]byte
	n      uint8 // bytes of an incomplete head
	masked bool  // set once: frames are a client's
	closed bool  // a Close frame has gone by: nothing may follow it
	lost   bool  // this is no WebSocket that we know
	cut    bool  // nothing of it is passed on any more
}

// between reports whether the next byte begins a frame, so that one of ours may go
// before it. Control frames may stand between the frames of one message (§5.4).
func (f *webFrames) between() bool { return f.left == 0 && f.n == 0 && !f.lost }

// pass follows bytes.
func (f *webFrames) pass(b []byte) {
	for len(b) > 0 && !f.lost {
		b = b[f.step(b):]
	}
}

// step follows bytes up to the next end of a frame, and returns how many those were.
func (f *webFrames) step(b []byte) (used int) {
	for used < len(b) && !f.lost {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)-used))
			f.left -= n
			used += int(n)
		} else {
			f.head[f.n] = b[used]
			f.n++
			used++
			if !f.headDone() {
				continue
			}
		}
		if f.between() {
			return used
		}
	}
	return len(b)
}

const (
	webReserved = 0x30 // bits of extensions that nobody has registered; 0x40 is compression's
	webOpcode   = 0x0f
	webClose    = 0x8
	webMask     = 0x80
	webLength   = 0x7f
)

// headDone looks whether a head is complete, and takes the frame's length from it.
func (f *webFrames) headDone() bool {
	if f.n < 2 {
		return false
	}
	h := &f.head
	op, size := h[0]&webOpcode, uint8(2)
	switch {
	case h[0]&webReserved != 0, op > 2 && op < webClose, op > 10, (h[1]&webMask != 0) != f.masked:
		f.lost = true
		return false
	}
	switch h[1] & webLength {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.masked {
		size += 4
	}
	if f.n < size {
		return false
	}
	switch n := h[1] & webLength; n {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		f.left = binary.BigEndian.Uint64(h[2:])
		f.lost = f.left>>63 != 0
	default:
		f.left = uint64(n)
	}
	f.n = 0
	f.closed = f.closed || op == webClose
	return !f.lost
}

// goingAway is the status of a Close frame: the server goes, or the user leaves (§7.4.1).
const goingAway = 1001

// appendGoingAway appends a Close frame with the status; a client masks it.
func appendGoingAway(dst []byte, masked bool, key uint32) []byte {
	var status [2]byte
	binary.BigEndian.PutUint16(status[:], goingAway)
	dst = append(dst, 0x80|webClose)
	if !masked {
		return append(append(dst, uint8(len(status))), status[:]...)
	}
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], key)
	dst = append(append(dst, webMask|uint8(len(status))), mask[:]...)
	return append(dst, status[0]^mask[0], status[1]^mask[1])
}
