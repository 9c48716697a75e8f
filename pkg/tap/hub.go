// SPDX-License-Identifier: Apache-2.0

package tap

import "sync/atomic"

// Sizes of a worker's ring. The memory is taken when the first tap comes.
const (
	DefaultRingSlots   = 4096
	DefaultRingBytes   = 4 << 20
	DefaultBodyBudget  = 8 << 20 // of running exchanges, per worker
	defaultHubCapacity = 256     // workers
)

// Hub is where the filters of all workers and the Writer meet: main makes one
// and gives it to both. Its rings come into being with the first tap that a
// worker has.
type Hub struct {
	ringBytes int
	budget    int
	rings     []atomic.Pointer[Ring]
	half      chan struct{} // a ring has become half full
}

// HubConfig sizes a hub; zero values mean the defaults.
type HubConfig struct {
	Workers    int
	RingBytes  int // per worker
	BodyBudget int // per worker, of running exchanges
}

// NewHub makes a hub.
func NewHub(c HubConfig) *Hub {
	if c.Workers <= 0 {
		c.Workers = defaultHubCapacity
	}
	if c.RingBytes <= 0 {
		c.RingBytes = DefaultRingBytes
	}
	if c.BodyBudget <= 0 {
		c.BodyBudget = DefaultBodyBudget
	}
	return &Hub{ringBytes: c.RingBytes, budget: c.BodyBudget, rings: make([]atomic.Pointer[Ring], c.Workers), half: make(chan struct{}, 1)}
}

// Ring is the ring of a worker. Each worker asks for its own.
func (h *Hub) Ring(worker int) *Ring {
	p := &h.rings[worker]
	if g := p.Load(); g != nil {
		return g
	}
	g := NewRing(DefaultRingSlots, h.ringBytes, h.budget)
	g.queue.WakeAtHalf(h.wake)
	p.CompareAndSwap(nil, g)
	return p.Load()
}

func (h *Hub) wake() {
	select {
	case h.half <- struct{}{}:
	default: // the Writer is about to look
	}
}

// Counts are what happened before the sinks.
type Counts struct {
	Produced uint64 // records that filters made
	Dropped  uint64 // of them, those that found their ring full
	Cut      uint64 // bodies cut short because the worker's budget was used up
	Waiting  uint64 // in the rings now
}

// Counts sums over all workers.
func (h *Hub) Counts() (c Counts) {
	for i := range h.rings {
		if g := h.rings[i].Load(); g != nil {
			c.Produced += g.produced.Load()
			c.Dropped += g.queue.Dropped()
			c.Cut += g.cut.Load()
			c.Waiting += uint64(g.queue.Len())
		}
	}
	return c
}
