// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/bits"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const defaultChoiceCount = 2

// leastRequest takes the least busy of a few random hosts, or of all. With different weights
// it schedules by weight/(active+1)^bias instead, as Envoy does: a random sample
// would rarely contain the heavy hosts.
type leastRequest struct {
	cursors []leastCursor // by set
	rng     uint64
	choices int
	scan    bool // all hosts, however many choices
	bias    float64
	powers  []float64 // of small active counts; nil for the biases 0 and 1
}

type leastCursor struct {
	set *Set
	edf edf
}

func newLeastRequest(cfg *resource.LoadBalancing, seed uint64) Picker {
	p := &leastRequest{rng: seed, choices: int(cfg.ChoiceCount), scan: cfg.FullScan, bias: max(cfg.ActiveRequestBias, 0)}
	if p.choices < 1 {
		p.choices = defaultChoiceCount
	}
	if p.bias != 0 && p.bias != 1 {
		p.powers = make([]float64, 128)
		for i := range p.powers {
			p.powers[i] = math.Pow(float64(i+1), p.bias)
		}
	}
	return p
}

// Pick implements Picker.
func (p *leastRequest) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, false)
}

func (p *leastRequest) next(s *Set, number int, r *Request, attempt int) int {
	if s.schedule != nil {
		return p.nextByWeight(s, number)
	}
	n := len(s.Hosts)
	x := mix(r.Random + uint64(attempt))
	if p.scan {
		return leastOfAll(s.Hosts, x)
	}
	if p.choices == 2 && n >= 2 {
		i := below(uint32(x), n)
		j := below(uint32(x>>32), n-1)
		if j >= i {
			j++ // two different ones
		}
		if s.Hosts[j].Active.Load() < s.Hosts[i].Active.Load() {
			return j
		}
		return i
	}
	return p.nextOfMany(s, x)
}

// nextOfMany takes the least busy of the choice count, or of all in random order
// when the count covers them.
func (p *leastRequest) nextOfMany(s *Set, x uint64) int {
	n := len(s.Hosts)
	best := below(uint32(x), n)
	least := s.Hosts[best].Active.Load()
	for k := 1; k < min(p.choices, n); k++ {
		i := best
		if p.choices >= n {
			i = (below(uint32(x), n) + k) % n
		} else {
			i = below(uint32(mix(x+uint64(k))), n)
		}
		if a := s.Hosts[i].Active.Load(); a < least {
			best, least = i, a
		}
	}
	return best
}

// leastOfAll takes any of the least busy hosts with equal probability: each one
// that ties with the best so far, as the k-th, takes its place in one of k cases.
func leastOfAll(hosts []*Host, x uint64) int {
	best, least, tied := 0, hosts[0].Active.Load(), 1
	for i, h := range hosts[1:] {
		switch a := h.Active.Load(); {
		case a < least:
			best, least, tied = i+1, a, 1
		case a == least:
			tied++
			x += 0x9e3779b97f4a7c15
			if below(uint32(mix(x)>>32), tied) == 0 {
				best = i + 1
			}
		}
	}
	return best
}

func (p *leastRequest) nextByWeight(s *Set, number int) int {
	for len(p.cursors) <= number {
		p.cursors = append(p.cursors, leastCursor{})
	}
	c := &p.cursors[number]
	if old := c.set; old != s {
		c.set = s
		if s.continues(old) {
			return p.turn(c, s)
		}
		c.edf.reset(len(s.Hosts), &p.rng, func(i int) uint64 { return p.step(s, i) })
	}
	return p.turn(c, s)
}

func (p *leastRequest) turn(c *leastCursor, s *Set) int {
	i := c.edf.pick()
	c.edf.advance(p.step(s, i))
	s.schedule[c.edf.following()].host.Active.Load() // for the cache: its turn comes soon
	return i
}

// step is inverse to the effective weight weight/(active+1)^bias.
func (p *leastRequest) step(s *Set, i int) uint64 {
	e := &s.schedule[i]
	active := uint64(max(e.host.Active.Load(), 0))
	if p.bias == 1 {
		high, low := bits.Mul64(e.step, active+1)
		if high != 0 || low > maxStep {
			return maxStep
		}
		return low
	}
	factor := 1.0
	switch {
	case p.powers == nil:
	case active < uint64(len(p.powers)):
		factor = p.powers[active]
	default:
		factor = math.Pow(float64(active+1), p.bias)
	}
	return uint64(min(float64(e.step)*factor, maxStep))
}

var _ chooser = (*leastRequest)(nil)
