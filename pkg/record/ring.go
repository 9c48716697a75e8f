// SPDX-License-Identifier: Apache-2.0

package record

import "sync/atomic"

// Ring carries records from one loop to one reader. Slots hold the fixed part,
// a byte ring the captures.
type Ring struct {
	slots []slot
	bytes []byte
	mask  uint64
	bmask uint64

	_     [64]byte
	write atomic.Uint64 // slots published by the loop
	// Loop-owned.
	bytePos uint64
	dropped atomic.Uint64
	half    func() // set once

	_        [64]byte
	read     atomic.Uint64 // slots consumed by the reader
	byteRead atomic.Uint64 // bytes consumed by the reader
	// Reader-owned.
	joined []byte
}

type slot struct {
	rec Record
	off uint64 // absolute position in the byte ring
	n   uint32
}

// NewRing makes a ring; both sizes are rounded up to powers of two.
func NewRing(slots, bytes int) *Ring {
	s, b := ceilPow2(slots), ceilPow2(bytes)
	return &Ring{slots: make([]slot, s), bytes: make([]byte, b), mask: uint64(s - 1), bmask: uint64(b - 1)}
}

func ceilPow2(n int) int {
	p := 1
	for p < n {
		p <<= 1
	}
	return p
}

// WakeAtHalf has each Push that makes the ring half full, by slots or by bytes, call f,
// which must not block: a reader that looks seldom is told of a burst. It comes before
// any Push.
func (g *Ring) WakeAtHalf(f func()) { g.half = f }

// crosses reports whether n more than before is half of what there is room for.
func crosses(before, n uint64, room int) bool {
	half := uint64(room / 2)
	return before < half && before+n >= half
}

// Push copies r into the ring, on the loop. It reports false, and counts, where
// there is no room.
func (g *Ring) Push(r *Record) bool {
	w := g.write.Load()
	n := uint64(len(r.Captures))
	slots, bytes := w-g.read.Load(), g.bytePos-g.byteRead.Load()
	if slots >= uint64(len(g.slots)) || bytes+n > uint64(len(g.bytes)) {
		g.dropped.Add(1)
		return false
	}
	s := &g.slots[w&g.mask]
	s.rec = *r
	s.rec.Captures = nil
	s.off, s.n = g.bytePos, uint32(n)
	at := g.bytePos & g.bmask
	k := copy(g.bytes[at:], r.Captures)
	copy(g.bytes, r.Captures[k:])
	g.bytePos += n
	g.write.Store(w + 1)
	if g.half != nil && (crosses(slots, 1, len(g.slots)) || crosses(bytes, n, len(g.bytes))) {
		g.half()
	}
	return true
}

// Len is the number of records waiting. Any goroutine may ask.
func (g *Ring) Len() int { return int(g.write.Load() - g.read.Load()) }

// Fill is how much of the ring waits, from 0 to 1: of slots or of bytes, whichever is
// scarcer. Only the reader may ask.
func (g *Ring) Fill() float64 {
	w := g.write.Load()
	rd := g.read.Load()
	if rd == w {
		return 0
	}
	last := &g.slots[(w-1)&g.mask]
	return max(float64(w-rd)/float64(len(g.slots)), float64(last.off+uint64(last.n)-g.byteRead.Load())/float64(len(g.bytes)))
}

// Dropped is the number of records that found no room.
func (g *Ring) Dropped() uint64 { return g.dropped.Load() }

// Drain hands every waiting record to its consumer, at most limit of them, and
// reports how many. Only the reader calls it.
func (g *Ring) Drain(limit int) int {
	n := 0
	for rd, w := g.read.Load(), g.write.Load(); rd < w && n < limit; rd++ {
		s := &g.slots[rd&g.mask]
		at := s.off & g.bmask
		if at+uint64(s.n) <= uint64(len(g.bytes)) {
			s.rec.Captures = g.bytes[at : at+uint64(s.n)]
		} else {
			g.joined = append(append(g.joined[:0], g.bytes[at:]...), g.bytes[:at+uint64(s.n)-uint64(len(g.bytes))]...)
			s.rec.Captures = g.joined
		}
		if c := s.rec.Consumer; c != nil {
			c.Consume(&s.rec)
			s.rec.Consumer = nil // what it writes to is given back with the last record
		}
		g.byteRead.Store(s.off + uint64(s.n))
		g.read.Store(rd + 1)
		n++
	}
	return n
}
