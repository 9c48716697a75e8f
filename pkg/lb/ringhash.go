// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultMinRing = 1024
	defaultMaxRing = 8 << 20
)

// ring is a ketama ring, laid out by hash: a point lies where it would if all were
// evenly spread, or as far behind as others are in its way, so that a lookup is one
// place in memory and a few steps on, in any ring. It takes 16 bytes of memory a
// point, at least minimum_ring_size of them.
type ring struct {
	slots  []slot // ascending; free ones repeat the next point
	spread uint64 // number of slots that hashes are spread over
	end    int    // the slots from here on stand for the first point, behind all hashes
}

// slot has a hash in two halves: it takes 12 bytes instead of 16.
type slot struct{ high, low, host uint32 }

func (s *slot) hash() uint64 { return uint64(s.high)<<32 | uint64(s.low) }

// buildRing gives each host points in proportion to its share, as many as make
// the ring at least the minimum size, with at least one for the smallest share.
func buildRing(s *Set, shares []float64, cfg *resource.LoadBalancing) table {
	minSize, maxSize := int(cfg.MinRingSize), int(cfg.MaxRingSize)
	if minSize <= 0 {
		minSize = defaultMinRing
	}
	if maxSize <= 0 {
		maxSize = defaultMaxRing
	}
	shares = normalize(shares)
	least := slices.Min(shares)
	scale := min(math.Ceil(least*float64(min(minSize, maxSize)))/least, float64(maxSize))

	type point struct {
		hash uint64
		host uint32
	}
	points := make([]point, 0, int(math.Ceil(scale))+1)
	hash := xxhash.Sum64
	if cfg.MurmurHash {
		hash = murmur2
	}
	var key []byte
	target := 0.0
	for i, h := range s.Hosts {
		key = append(append(key[:0], hashKey(h, cfg)...), '_')
		prefix := len(key)
		target += scale * shares[i]
		for n := 0; float64(len(points)) < target; n++ {
			key = strconv.AppendInt(key[:prefix], int64(n), 10)
			points = append(points, point{hash(key), uint32(i)})
		}
	}
	slices.SortFunc(points, func(x, y point) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), cmp.Compare(x.host, y.host))
	})
	r := &ring{spread: uint64(len(points) + len(points)/3 + 1)}
	r.slots = make([]slot, 0, r.spread+r.spread/64+1)
	for _, p := range points {
		s := slot{uint32(p.hash >> 32), uint32(p.hash), p.host}
		for own := r.first(p.hash); len(r.slots) < own; {
			r.slots = append(r.slots, s)
		}
		r.slots = append(r.slots, s)
	}
	r.end = len(r.slots)
	last := slot{math.MaxUint32, math.MaxUint32, points[0].host}
	for len(r.slots) == r.end || len(r.slots) < int(r.spread) {
		r.slots = append(r.slots, last)
	}
	return bound(r, shares, cfg)
}

// first is the slot before which there are only lower hashes.
func (r *ring) first(hash uint64) int {
	at, _ := bits.Mul64(hash, r.spread)
	return int(at)
}

// find returns the host of the first point at or after the key; each further
// attempt goes one point on.
func (r *ring) find(key uint64, attempt int) int {
	at := r.first(key)
	for r.slots[at].hash() < key {
		at++
	}
	for ; attempt > 0; attempt-- {
		at = r.after(at)
	}
	return int(r.slots[at].host)
}

// after is the slot of the next point.
func (r *ring) after(at int) int {
	if at >= r.end {
		at = 0
	}
	p := r.slots[at]
	for at < r.end && r.slots[at] == p {
		at++
	}
	return at
}
