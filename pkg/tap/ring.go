// SPDX-License-Identifier: Apache-2.0

package tap

import "sync/atomic"

// Ring carries tap records from one loop to the Writer. Slots say which rule a
// record is of, a byte ring holds the records. The loop never waits: what finds
// no room is dropped and counted.
type Ring struct {
	slots []slot
	bytes []byte
	mask  uint64
	bmask uint64

	_     [64]byte
	write atomic.Uint64 // slots published by the loop
	// Loop-owned.
	bytePos uint64
	half    chan<- struct{} // gets one when the ring becomes half full; nil: nobody is told
	budget  int             // bytes that buffers of running exchanges may still take
	// Written by the loop, read by anyone.
	produced atomic.Uint64
	dropped  atomic.Uint64 // no room in the ring
	cut      atomic.Uint64 // bodies cut short by the budget

	_        [64]byte
	read     atomic.Uint64 // slots consumed by the reader
	byteRead atomic.Uint64
	// Reader-owned.
	joined []byte
}

type slot struct {
	rule *Rule
	off  uint64 // absolute position in the byte ring
	n    uint32
}

// NewRing makes a ring; the sizes are rounded up to powers of two. Budget is
// what buffers of running exchanges of its worker may take in all, in bytes.
func NewRing(slots, bytes, budget int) *Ring {
	s, b := ceilPow2(slots), ceilPow2(bytes)
	return &Ring{slots: make([]slot, s), bytes: make([]byte, b), mask: uint64(s - 1), bmask: uint64(b - 1), budget: budget}
}

func ceilPow2(n int) int {
	p := 1
	for p < n {
		p <<= 1
	}
	return p
}

// Push copies one record, given in pieces, into the ring, on the loop. It
// reports false, and counts, where there is no room.
func (g *Ring) Push(rule *Rule, pieces ...[]byte) bool {
	g.produced.Add(1)
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	w := g.write.Load()
	slots, bytes := w-g.read.Load(), g.bytePos-g.byteRead.Load()
	if slots >= uint64(len(g.slots)) || bytes+uint64(n) > uint64(len(g.bytes)) {
		g.dropped.Add(1)
		return false
	}
	s := &g.slots[w&g.mask]
	s.rule, s.off, s.n = rule, g.bytePos, uint32(n)
	for _, p := range pieces {
		at := g.bytePos & g.bmask
		k := copy(g.bytes[at:], p)
		copy(g.bytes, p[k:])
		g.bytePos += uint64(len(p))
	}
	g.write.Store(w + 1)
	if crosses(slots, 1, len(g.slots)) || crosses(bytes, uint64(n), len(g.bytes)) {
		select {
		case g.half <- struct{}{}:
		default: // the Writer is about to look
		}
	}
	return true
}

// crosses reports whether n more than before is half of what there is room for.
func crosses(before, n uint64, room int) bool {
	half := uint64(room / 2)
	return before < half && before+n >= half
}

// Reserve takes bytes from the worker's budget for buffers, on the loop; it
// reports false, and counts a cut body, where they are not left.
func (g *Ring) Reserve(n int) bool {
	if n > g.budget {
		g.cut.Add(1)
		return false
	}
	g.budget -= n
	return true
}

// Release gives bytes back, on the loop.
func (g *Ring) Release(n int) { g.budget += n }

// drain hands at most limit records to f, which must not keep them, and reports
// how many. Only the Writer calls it.
func (g *Ring) drain(limit int, f func(rule *Rule, rec []byte)) int {
	n := 0
	for rd, w := g.read.Load(), g.write.Load(); rd < w && n < limit; rd++ {
		s := &g.slots[rd&g.mask]
		at := s.off & g.bmask
		var rec []byte
		if at+uint64(s.n) <= uint64(len(g.bytes)) {
			rec = g.bytes[at : at+uint64(s.n)]
		} else {
			g.joined = append(append(g.joined[:0], g.bytes[at:]...), g.bytes[:at+uint64(s.n)-uint64(len(g.bytes))]...)
			rec = g.joined
		}
		f(s.rule, rec)
		s.rule = nil
		g.byteRead.Store(s.off + uint64(s.n))
		g.read.Store(rd + 1)
		n++
	}
	return n
}

// fill is how much of the ring waits, from 0 to 1: of slots or of bytes, whichever is
// scarcer. Only the Writer asks.
func (g *Ring) fill() float64 {
	rd, w := g.read.Load(), g.write.Load()
	if rd == w {
		return 0
	}
	last := &g.slots[(w-1)&g.mask]
	return max(float64(w-rd)/float64(len(g.slots)), float64(last.off+uint64(last.n)-g.byteRead.Load())/float64(len(g.bytes)))
}

// Waiting is the number of records in the ring. Any goroutine may ask.
func (g *Ring) Waiting() int { return int(g.write.Load() - g.read.Load()) }
