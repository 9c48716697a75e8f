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

// ring is a ketama ring. A directory by the hash's first bits, about one entry to
// a point, leads to the place, so that a lookup costs the same in any ring: 16
// bytes of memory a point, at least minimum_ring_size of them.
type ring struct {
	points    []uint64 // ascending
	hosts     []uint32
	directory []uint32 // first point of each range of hashes
	shift     uint8
}

// buildRing gives each host points in proportion to its share, as many as make
// the ring at least the minimum size, with at least one for the smallest share.
func buildRing(s *Set, shares []float64, cfg *resource.LoadBalancing) table {
	minSize, maxSize := cfg.MinRingSize, cfg.MaxRingSize
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
	if cfg.RingHash == "murmur_hash_2" {
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
	r := &ring{points: make([]uint64, len(points)), hosts: make([]uint32, len(points))}
	for i, p := range points {
		r.points[i], r.hosts[i] = p.hash, p.host
	}
	r.index()
	return bound(r, shares, cfg)
}

func (r *ring) index() {
	b := bits.Len(uint(len(r.points) - 1))
	r.shift = uint8(64 - b)
	r.directory = make([]uint32, 1<<b)
	at := 0
	for d := range r.directory {
		for at < len(r.points) && r.points[at]>>r.shift < uint64(d) {
			at++
		}
		r.directory[d] = uint32(at)
	}
}

// find returns the host of the first point at or after the key; each further
// attempt goes one point on.
func (r *ring) find(key uint64, attempt int) int {
	at := int(r.directory[key>>r.shift])
	for at < len(r.points) && r.points[at] < key {
		at++
	}
	at += attempt
	if at >= len(r.points) {
		at %= len(r.points)
	}
	return int(r.hosts[at])
}
