// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"math"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// defaultTableSize is a prime, as every size has to be: only then does each
// host's permutation reach all places.
const defaultTableSize = 65537

// maglev is the lookup table of Google's Maglev paper (section 3.4), weighted.
// Two bytes a place, 128 KiB at the default size, or four bytes where the set has
// more than 65 536 hosts; one table serves all workers.
type maglev struct {
	small []uint16
	large []uint32
}

// claim is a host on its way through its permutation of the places.
type claim struct {
	key    string
	host   uint32
	next   uint64
	skip   uint64
	share  float64
	target float64
}

func buildMaglev(s *Set, shares []float64, cfg *resource.LoadBalancing) table {
	size := uint64(defaultTableSize)
	if cfg.TableSize > 1 {
		size = uint64(cfg.TableSize)
	}
	shares = normalize(shares)
	claims := make([]claim, len(s.Hosts))
	for i, h := range s.Hosts {
		key := hashKey(h, cfg)
		claims[i] = claim{
			key:   key,
			host:  uint32(i),
			next:  seededHash(key, 0) % size,
			skip:  seededHash(key, 1)%(size-1) + 1,
			share: shares[i],
		}
	}
	// The order in which hosts are listed must not matter.
	slices.SortFunc(claims, func(x, y claim) int { return cmp.Compare(x.key, y.key) })
	places := make([]uint32, size)
	fill(places, claims, slices.Max(shares))
	if len(s.Hosts) > math.MaxUint16+1 {
		return bound(&maglev{large: places}, shares, cfg)
	}
	small := make([]uint16, size)
	for i, h := range places {
		small[i] = uint16(h)
	}
	return bound(&maglev{small: small}, shares, cfg)
}

// fill lets the hosts take free places in turns, a host of half the greatest
// share in every other round.
func fill(places []uint32, claims []claim, most float64) {
	const free = math.MaxUint32
	for i := range places {
		places[i] = free
	}
	size := uint64(len(places))
	for taken, round := 0, 1; taken < len(places); round++ {
		for i := range claims {
			c := &claims[i]
			if float64(round)*c.share < c.target {
				continue
			}
			c.target += most
			for places[c.next] != free {
				if c.next += c.skip; c.next >= size {
					c.next -= size
				}
			}
			places[c.next] = c.host
			if taken++; taken == len(places) {
				return
			}
		}
	}
}

// find returns the host of the key's place; each further attempt looks elsewhere.
func (m *maglev) find(key uint64, attempt int) int {
	if attempt > 0 {
		key ^= math.MaxUint64 - uint64(attempt) + 1
	}
	if m.small != nil {
		return int(m.small[key%uint64(len(m.small))])
	}
	return int(m.large[key%uint64(len(m.large))])
}
