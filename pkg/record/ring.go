// SPDX-License-Identifier: Apache-2.0

package record

import "github.com/outrigger-mesh/outrigger/pkg/ring"

// Ring carries records from one loop to one reader.
type Ring struct{ *ring.Queue[Record] }

// NewRing makes a ring for records and the bytes of their captures; both sizes are
// rounded up to powers of two.
func NewRing(slots, bytes int) *Ring { return &Ring{ring.New[Record](slots, bytes)} }

// Push copies r into the ring, on the loop. It reports false, and counts, where
// there is no room.
func (g *Ring) Push(r *Record) bool { return g.Queue.Push(r, r.Captures) }

// Drain hands every waiting record to its consumer, at most limit of them, and
// reports how many. Only the reader calls it.
func (g *Ring) Drain(limit int) int { return g.Queue.Drain(limit, consume) }

func consume(r *Record, captures []byte) {
	r.Captures = captures
	if c := r.Consumer; c != nil {
		c.Consume(r)
		r.Consumer = nil // what it writes to is given back with the last record
	}
}
