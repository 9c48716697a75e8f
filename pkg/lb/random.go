// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// random takes any host, by weight where weights differ.
type random struct{}

func newRandom(*resource.LoadBalancing, uint64) Picker { return random{} }

// Pick implements Picker.
func (p random) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, false)
}

func (random) next(s *Set, _ int, r *Request, attempt int) int {
	x := mix(r.Random + uint64(attempt)*0x9e3779b97f4a7c15)
	if s.table != nil {
		return s.table.find(x, 0)
	}
	return below(uint32(x), len(s.Hosts))
}

// alias is Vose's table: a draw falls on a host with equal probability, and then
// stays or goes on to the host's alias by the host's own odds. Two reads whatever
// the number of hosts.
type alias []aliasEntry

type aliasEntry struct {
	stay  uint32 // a draw up to this stays
	other uint32
}

// buildAlias makes the table of a set with different weights; a set with equal
// ones needs none.
func buildAlias(_ *Set, shares []float64, _ *resource.LoadBalancing) table {
	if !differ(shares) {
		return nil
	}
	n, total := len(shares), 0.0
	for _, w := range shares {
		total += w
	}
	a := make(alias, n)
	odds := make([]float64, n)
	var poor, rich []int
	for i, w := range shares {
		odds[i] = w / total * float64(n)
		if odds[i] < 1 {
			poor = append(poor, i)
		} else {
			rich = append(rich, i)
		}
	}
	for len(poor) > 0 && len(rich) > 0 {
		p, r := poor[len(poor)-1], rich[len(rich)-1]
		poor = poor[:len(poor)-1]
		a[p] = aliasEntry{upTo(odds[p]), uint32(r)}
		if odds[r] -= 1 - odds[p]; odds[r] < 1 {
			rich, poor = rich[:len(rich)-1], append(poor, r)
		}
	}
	for _, i := range append(poor, rich...) { // 1 but for rounding
		a[i] = aliasEntry{math.MaxUint32, uint32(i)}
	}
	return a
}

func differ(shares []float64) bool {
	return slices.ContainsFunc(shares, func(w float64) bool { return w != shares[0] })
}

func (a alias) find(key uint64, _ int) int {
	i := below(uint32(key), len(a))
	e := a[i]
	// Whether it stays cannot be foreseen: without a branch.
	goes := (int64(e.stay) - int64(uint32(key>>32))) >> 63
	return i ^ (i^int(e.other))&int(goes)
}
