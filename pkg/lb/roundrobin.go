// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// roundRobin goes round the hosts; with different weights it interleaves them by
// earliest deadline.
type roundRobin struct {
	cursors []roundCursor // by set
	rng     uint64
}

type roundCursor struct {
	set  *Set // what edf is made for
	edf  edf
	last uint32
}

func newRoundRobin(_ *resource.LoadBalancing, seed uint64) Picker {
	return &roundRobin{rng: seed}
}

// Pick implements Picker.
func (p *roundRobin) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, false)
}

func (p *roundRobin) next(s *Set, number int, _ *Request, _ int) int {
	for len(p.cursors) <= number {
		p.rng += 0x9e3779b97f4a7c15
		p.cursors = append(p.cursors, roundCursor{last: uint32(mix(p.rng) >> 40)})
	}
	c := &p.cursors[number]
	if c.set != s {
		p.adopt(c, s)
	}
	if s.schedule == nil {
		c.last++
		if int(c.last) >= len(s.Hosts) {
			c.last = 0
		}
		return int(c.last)
	}
	i := c.edf.pick()
	c.edf.advance(s.schedule[i].step)
	return i
}

// adopt goes on at the same place in another list.
func (p *roundRobin) adopt(c *roundCursor, s *Set) {
	old := c.set
	c.set = s
	if s.continues(old) {
		return
	}
	c.last %= uint32(len(s.Hosts))
	if s.schedule != nil {
		c.edf.reset(len(s.Hosts), &p.rng, func(i int) uint64 { return s.schedule[i].step })
	}
}

var _ chooser = (*roundRobin)(nil)
