// SPDX-License-Identifier: Apache-2.0

package ring

import "sync/atomic"

// Queue carries entries from one loop to one reader. Slots hold what is of a fixed
// size, a byte ring what each entry has beside it.
type Queue[T any] struct {
	// Set once.
	slots []slot[T]
	bytes []byte
	mask  uint64
	bmask uint64
	half  func()

	_     [64]byte
	write atomic.Uint64 // slots published by the loop
	// Loop-owned.
	bytePos uint64
	dropped atomic.Uint64

	_        [64]byte
	read     atomic.Uint64 // slots consumed by the reader
	byteRead atomic.Uint64 // bytes consumed by the reader
	// Reader-owned.
	joined []byte
}

type slot[T any] struct {
	entry T
	off   uint64 // absolute position in the byte ring
	n     uint32
}

// New makes a queue; both sizes are rounded up to powers of two.
func New[T any](slots, bytes int) *Queue[T] {
	s, b := ceilPow2(slots), ceilPow2(bytes)
	return &Queue[T]{slots: make([]slot[T], s), bytes: make([]byte, b), mask: uint64(s - 1), bmask: uint64(b - 1)}
}

func ceilPow2(n int) int {
	p := 1
	for p < n {
		p <<= 1
	}
	return p
}

// WakeAtHalf has each Push that makes the queue half full, by slots or by bytes, call f,
// which must not block: a reader that looks seldom is told of a burst. It comes before
// any Push.
func (q *Queue[T]) WakeAtHalf(f func()) { q.half = f }

// crosses reports whether n more than before is half of what there is room for.
func crosses(before, n uint64, room int) bool {
	half := uint64(room / 2)
	return before < half && before+n >= half
}

// Push copies an entry and its bytes, given in pieces, into the queue, on the loop. It
// reports false, and counts, where there is no room. What the entry points to is held
// until Push has come round to its slot again.
func (q *Queue[T]) Push(entry *T, pieces ...[]byte) bool {
	n := uint64(0)
	for _, p := range pieces {
		n += uint64(len(p))
	}
	w := q.write.Load()
	slots, bytes := w-q.read.Load(), q.bytePos-q.byteRead.Load()
	if slots >= uint64(len(q.slots)) || bytes+n > uint64(len(q.bytes)) {
		q.dropped.Add(1)
		return false
	}
	s := &q.slots[w&q.mask]
	s.entry, s.off, s.n = *entry, q.bytePos, uint32(n)
	for _, p := range pieces {
		at := q.bytePos & q.bmask
		k := copy(q.bytes[at:], p)
		copy(q.bytes, p[k:])
		q.bytePos += uint64(len(p))
	}
	q.write.Store(w + 1)
	if q.half != nil && (crosses(slots, 1, len(q.slots)) || crosses(bytes, n, len(q.bytes))) {
		q.half()
	}
	return true
}

// Len is the number of entries waiting. Any goroutine may ask.
func (q *Queue[T]) Len() int { return int(q.write.Load() - q.read.Load()) }

// Fill is how much of the queue waits, from 0 to 1: of slots or of bytes, whichever is
// scarcer. Only the reader may ask.
func (q *Queue[T]) Fill() float64 {
	w := q.write.Load()
	rd := q.read.Load()
	if rd == w {
		return 0
	}
	last := &q.slots[(w-1)&q.mask]
	return max(float64(w-rd)/float64(len(q.slots)), float64(last.off+uint64(last.n)-q.byteRead.Load())/float64(len(q.bytes)))
}

// Dropped is the number of entries that found no room. Any goroutine may ask.
func (q *Queue[T]) Dropped() uint64 { return q.dropped.Load() }

// Drain hands waiting entries with their bytes to f, at most limit of them, and reports
// how many. They are f's until it returns; it may change the entry, to let go of what
// that points to. Only the reader calls it.
func (q *Queue[T]) Drain(limit int, f func(entry *T, bytes []byte)) int {
	n := 0
	for rd, w := q.read.Load(), q.write.Load(); rd < w && n < limit; rd++ {
		s := &q.slots[rd&q.mask]
		at := s.off & q.bmask
		if end := at + uint64(s.n); end <= uint64(len(q.bytes)) {
			f(&s.entry, q.bytes[at:end])
		} else {
			q.joined = append(append(q.joined[:0], q.bytes[at:]...), q.bytes[:end-uint64(len(q.bytes))]...)
			f(&s.entry, q.joined)
		}
		q.byteRead.Store(s.off + uint64(s.n))
		q.read.Store(rd + 1)
		n++
	}
	return n
}
