// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// bounded is a table of consistent hashing whose hosts have bounded loads: no host
// has more than factor percent of its share of the requests in flight, and what
// would be more goes to others, in an order that is the key's own. Where nobody is
// overloaded it is the table itself.
//
// Sources: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads",
// and Chen, Coleman, Shrivastava, "Revisiting Consistent Hashing with Bounded
// Loads", whose random jumps keep the overflow of one host from its neighbours. The
// order is Envoy's, so that a fleet that mixes proxies overflows to the same hosts.
type bounded struct {
	table
	shares []float64 // of the hosts, of 1
	factor uint64    // percent
}

// bound makes a bounded table of t where the configuration asks for it; the shares
// add up to 1.
func bound(t table, shares []float64, cfg *resource.LoadBalancing) table {
	if cfg.HashBalanceFactor == 0 {
		return t
	}
	return &bounded{t, shares, uint64(cfg.HashBalanceFactor)}
}

// overload is the load of host i by what it may have; above 1 it has too much.
func (b *bounded) overload(h *Host, i int, active int64) float64 {
	slots := ((uint64(max(active, 0))+1)*b.factor + 99) / 100
	mine := max(math.Ceil(float64(slots)*b.shares[i]), 1)
	return float64(max(h.Active.Load(), 0)) / mine
}

// jumps are the hosts that a key goes to one after the other: a shuffle that the
// key seeds. It belongs to one loop.
type jumps struct {
	order []uint32 // between picks in ascending order
	swaps []uint32 // places that were swapped with what is before them
	rng   mersenne
}

// next is the host for a key whose own host, at, may be overloaded: the first of
// its jumps that is not, or the least overloaded of all.
func (j *jumps) next(b *bounded, hosts []*Host, key uint64, at int, active int64) int {
	if hosts[at].Active.Load() <= 1 { // which any host may have: the share need not be read
		return at
	}
	least := b.overload(hosts[at], at, active)
	if least <= 1 {
		return at
	}
	for len(j.order) < len(hosts) {
		j.order = append(j.order, uint32(len(j.order)))
	}
	j.rng.seed(uint32(key))
	best := at
	for i := range hosts {
		k := uint32(i) + j.rng.below(uint32(len(hosts)-i))
		j.order[i], j.order[k] = j.order[k], j.order[i]
		j.swaps = append(j.swaps, k)
		other := int(j.order[i])
		if other == at {
			continue
		}
		load := b.overload(hosts[other], other, active)
		if load < least || load <= 1 {
			best, least = other, load
		}
		if load <= 1 {
			break
		}
	}
	for i := len(j.swaps) - 1; i >= 0; i-- {
		k := j.swaps[i]
		j.order[i], j.order[k] = j.order[k], j.order[i]
	}
	j.swaps = j.swaps[:0]
	return best
}

// mersenne is MT19937, which makes the first numbers without making all of a
// generation.
type mersenne struct {
	state [mersenneSize]uint32
	at    int
}

const (
	mersenneSize  = 624
	mersenneShift = 397
)

func (m *mersenne) seed(s uint32) {
	m.state[0], m.at = s, 0
	for i := 1; i < mersenneSize; i++ {
		s = 1812433253*(s^s>>30) + uint32(i)
		m.state[i] = s
	}
}

func (m *mersenne) next() uint32 {
	i := m.at
	y := m.state[i]&(1<<31) | m.state[(i+1)%mersenneSize]&(1<<31-1)
	x := m.state[(i+mersenneShift)%mersenneSize] ^ y>>1
	if y&1 != 0 {
		x ^= 0x9908b0df
	}
	m.state[i], m.at = x, (i+1)%mersenneSize
	x ^= x >> 11
	x ^= x << 7 & 0x9d2c5680
	x ^= x << 15 & 0xefc60000
	return x ^ x>>18
}

// below draws from [0, n) without bias, as Envoy does.
func (m *mersenne) below(n uint32) uint32 {
	part := uint32((uint64(1) << 32) / uint64(n))
	if n == 1 {
		m.next()
		return 0
	}
	for {
		if x := m.next() / part; x < n {
			return x
		}
	}
}
