// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math/bits"
	"sync/atomic"
)

// callRing takes the calls of all loops in one order, for windows of a number of
// calls. Loops write, Tick reads. It is at least twice as long as the window, so that
// what has been overtaken is of no interest any more, and long enough for what comes
// between two ticks of a busy circuit.
type callRing struct {
	next  atomic.Uint64
	_     [56]byte // of its own cache line
	slots []atomic.Uint32
	shift uint // binary logarithm of their number
}

// The bits of a slot below the number of its lap.
const (
	callError uint32 = 1 << iota
	callSlow
	callBits = 2
	lapMask  = 1<<(32-callBits) - 1
)

const minRing = 8192 // calls in 50 ms at 160 000 a second

func newCallRing(size int) *callRing {
	shift := uint(bits.Len(uint(max(2*size, minRing) - 1)))
	return &callRing{slots: make([]atomic.Uint32, 1<<shift), shift: shift}
}

func (r *callRing) push(code uint32) {
	seq := r.next.Add(1) - 1
	r.slots[seq&(1<<r.shift-1)].Store(r.lap(seq)<<callBits | code)
}

// lap is how often the ring has been around; the first is 1, an empty slot's is 0.
func (r *callRing) lap(seq uint64) uint32 { return uint32(seq>>r.shift+1) & lapMask }

// callWindow are the last calls, off the loops.
type callWindow struct {
	ring  *callRing
	taken uint64
	codes []uint8
	at    int
	health
}

func newCallWindow(ring *callRing, size int) *callWindow {
	return &callWindow{ring: ring, codes: make([]uint8, size)}
}

// take moves what loops have pushed into the window, call by call, until stop says
// so. A call whose slot is not written yet is left for the next time.
func (w *callWindow) take(stop func(health) bool) bool {
	end := w.ring.next.Load()
	if end-w.taken > uint64(len(w.ring.slots))*3/4 {
		w.taken = end - uint64(len(w.codes)) // the others would soon be overtaken
	}
	for w.taken < end {
		v := w.ring.slots[w.taken&(1<<w.ring.shift-1)].Load()
		// Laps are compared as they wrap.
		switch ahead := int32(v>>callBits-w.ring.lap(w.taken)) << callBits; {
		case ahead < 0 || v == 0:
			return false
		case ahead > 0:
			w.taken++ // overtaken meanwhile
			continue
		}
		w.taken++
		w.push(uint8(v & (1<<callBits - 1)))
		if stop(w.health) {
			return true
		}
	}
	return false
}

func (w *callWindow) push(code uint8) {
	if w.requests == uint64(len(w.codes)) {
		w.add(w.codes[w.at], -1)
	}
	w.codes[w.at] = code
	w.at = (w.at + 1) % len(w.codes)
	w.add(code, 1)
}

func (w *callWindow) add(code uint8, n int) {
	w.requests += uint64(n)
	w.errors += uint64(int(code) & 1 * n)
	w.slow += uint64(int(code) >> 1 & 1 * n)
}

// clear forgets all calls, and those that were pushed before that one.
func (w *callWindow) clear(before uint64) {
	w.at, w.health = 0, health{}
	w.taken = max(w.taken, before)
}
