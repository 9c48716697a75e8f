// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/ring"
)

// Ring carries encoded records, each with its rule, from one loop to the Writer.
type Ring struct {
	queue *ring.Queue[*Rule]
	// Loop-owned.
	budget int // bytes that buffers of running exchanges may still take
	// Written by the loop, read by anyone.
	produced atomic.Uint64
	cut      atomic.Uint64 // bodies cut short by the budget
}

// NewRing makes a ring; the sizes are rounded up to powers of two. Budget is
// what buffers of running exchanges of its worker may take in all, in bytes.
func NewRing(slots, bytes, budget int) *Ring {
	return &Ring{queue: ring.New[*Rule](slots, bytes), budget: budget}
}

// Push copies one record, given in pieces, into the ring, on the loop. It
// reports false, and counts, where there is no room.
func (g *Ring) Push(rule *Rule, pieces ...[]byte) bool {
	g.produced.Add(1)
	return g.queue.Push(&rule, pieces...)
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
	return g.queue.Drain(limit, func(rule **Rule, rec []byte) {
		f(*rule, rec)
		*rule = nil
	})
}
