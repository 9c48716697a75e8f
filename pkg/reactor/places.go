// SPDX-License-Identifier: Apache-2.0

package reactor

import "sync/atomic"

// Places is how many connections the loops of a process may hold between them:
// their share of its descriptors, so that what else needs some is never left
// without. A nil Places has no end. Its methods may be called from anywhere.
type Places struct {
	limit   int64
	crowded int64
	taken   atomic.Int64
}

// NewPlaces makes so many places, at least one.
func NewPlaces(limit int) *Places {
	n := int64(max(limit, 1))
	return &Places{limit: n, crowded: n - n/10}
}

// Limit is how many there are.
func (p *Places) Limit() int { return int(p.limit) }

// Taken is how many connections hold a place; of nil Places nobody counts.
func (p *Places) Taken() int {
	if p == nil {
		return 0
	}
	return int(p.taken.Load())
}

// Full reports whether none is left.
func (p *Places) Full() bool { return p != nil && p.taken.Load() >= p.limit }

// Crowded reports whether less than a tenth is left: time to let go of
// connections that can be had again.
func (p *Places) Crowded() bool { return p != nil && p.taken.Load() >= p.crowded }

func (p *Places) take() bool {
	if p == nil {
		return true
	}
	if p.taken.Add(1) > p.limit {
		p.taken.Add(-1)
		return false
	}
	return true
}

func (p *Places) give() {
	if p != nil {
		p.taken.Add(-1)
	}
}
