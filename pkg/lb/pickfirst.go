// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// pickFirst sends everything to one host, the first in the list, and stays with it
// while it is there, healthy and can be connected to; then it goes on to the next.
// A host that comes before it draws nothing back. Source: gRPC, gRFC A62.
type pickFirst struct {
	cursors []firstCursor // by set
}

type firstCursor struct {
	set   *Set
	host  *Host
	place int    // of the host in the set's order
	fails uint64 // connections to the host that had failed when it was chosen
}

func newPickFirst(*resource.LoadBalancing, uint64) Picker { return new(pickFirst) }

// Pick implements Picker.
func (p *pickFirst) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, false)
}

func (p *pickFirst) next(s *Set, number int, _ *Request, attempt int) int {
	for len(p.cursors) <= number {
		p.cursors = append(p.cursors, firstCursor{})
	}
	c := &p.cursors[number]
	if c.set != s {
		c.adopt(s)
	}
	if h := c.host; h.Stats.CxConnectFail.Load() != c.fails {
		if h.Conns.Load() > 0 {
			c.fails = h.Stats.CxConnectFail.Load() // it was another one than those that work
		} else {
			c.take((c.place + 1) % len(s.Hosts))
		}
	}
	return s.ordered((c.place + attempt) % len(s.Hosts))
}

// adopt stays with the host where another list has it, too.
func (c *firstCursor) adopt(s *Set) {
	c.set = s
	for place := range s.Hosts {
		if c.host != nil && s.Hosts[s.ordered(place)] == c.host {
			c.place = place
			return
		}
	}
	c.take(0)
}

func (c *firstCursor) take(place int) {
	c.place, c.host = place, c.set.Hosts[c.set.ordered(place)]
	c.fails = c.host.Stats.CxConnectFail.Load()
}

// order is the order that pick_first shuffles a set's hosts into.
type order []uint32

// shuffleSeed makes orders differ from process to process, while all workers of
// one have the same, and what joins or leaves a list does not change the rest.
var shuffleSeed = rand.Uint64()

// buildOrder shuffles where the configuration asks for it.
func buildOrder(s *Set, _ []float64, cfg *resource.LoadBalancing) table {
	if !cfg.ShuffleAddresses {
		return nil
	}
	keys := make([]uint64, len(s.Hosts))
	o := make(order, len(s.Hosts))
	for i, h := range s.Hosts {
		keys[i], o[i] = mix(Hash(h.Text())^shuffleSeed), uint32(i)
	}
	slices.SortFunc(o, func(x, y uint32) int { return cmp.Compare(keys[x], keys[y]) })
	return o
}

// ordered is the host at a place of the set's order.
func (s *Set) ordered(place int) int {
	if o, ok := s.table.(order); ok {
		return int(o[place])
	}
	return place
}

// find is for pickers of other policies, which know no first one.
func (o order) find(key uint64, attempt int) int {
	return int(o[(below(uint32(key), len(o))+attempt)%len(o)])
}

var _ chooser = (*pickFirst)(nil)
