// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// someOf leaves as many hosts of each priority as a random subset has: those whose
// addresses have the least hashes under this cluster's own seed. Few change when
// hosts come or go, and processes choose independently of each other.
// Source: gRFC A68.
func (c *Cluster) someOf(hosts []*Host, size int) []*Host {
	if size == 0 {
		return hosts
	}
	if c.seed == 0 {
		c.seed = rand.Uint64() | 1
	}
	var out []*Host
	for lo := 0; lo < len(hosts); {
		hi := lo + 1
		for hi < len(hosts) && hosts[hi].Locality().Priority == hosts[lo].Locality().Priority {
			hi++
		}
		out = append(out, c.least(hosts[lo:hi], size)...)
		lo = hi
	}
	return out
}

func (c *Cluster) least(hosts []*Host, size int) []*Host {
	if len(hosts) <= size {
		return hosts
	}
	type ranked struct {
		hash  uint64
		place int
	}
	ranks := make([]ranked, len(hosts))
	for i, h := range hosts {
		ranks[i] = ranked{seededHash(h.Text(), c.seed), i}
	}
	slices.SortFunc(ranks, func(a, b ranked) int { return cmp.Compare(a.hash, b.hash) })
	ranks = ranks[:size]
	slices.SortFunc(ranks, func(a, b ranked) int { return cmp.Compare(a.place, b.place) })
	out := make([]*Host, size)
	for i, r := range ranks {
		out[i] = hosts[r.place]
	}
	return out
}
