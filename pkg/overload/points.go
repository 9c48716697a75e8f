// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Points is how much each load-shed point sheds, in hundredths. The zero Points is
// nothing.
type Points uint64

var _ [8 - resource.LoadShedPoints]struct{} // each has a byte

// Scale is how much a point sheds, 0 to 100.
func (p Points) Scale(k resource.LoadShedPointKind) uint8 { return uint8(p >> (8 * k)) }

// points are the load-shed points of a Manager.
type points struct {
	// set once
	on       [resource.LoadShedPoints]bool
	triggers [resource.LoadShedPoints][]trigger
	// atomic
	scales atomic.Uint64
	shed   [resource.LoadShedPoints]atomic.Uint64
}

func (p *points) set(list []resource.LoadShedPoint, index map[string]int) {
	for i := range list {
		k := list[i].Kind
		p.on[k], p.triggers[k] = true, triggersOf(list[i].Triggers, index)
	}
}

// Points is how much is shed now. Anybody may ask.
func (m *Manager) Points() Points { return Points(m.points.scales.Load()) }

// Sheds draws with a random number whether a point sheds this time, and counts it.
func (m *Manager) Sheds(p Points, k resource.LoadShedPointKind, random uint64) bool {
	n := p.Scale(k)
	if n == 0 || n < 100 && random%100 >= uint64(n) {
		return false
	}
	m.points.shed[k].Add(1)
	return true
}

// updatePoints publishes the scales and reports whether they are others.
func (m *Manager) updatePoints() bool {
	var p Points
	for k := range resource.LoadShedPoints {
		p |= Points(m.scale(m.points.triggers[k])) << (8 * k)
	}
	return Points(m.points.scales.Swap(uint64(p))) != p
}

// Point is a load-shed point as statistics show it.
type Point struct {
	Kind  resource.LoadShedPointKind
	Scale uint8  // hundredths
	Shed  uint64 // how often
}

// PointList lists the points that there are. Anybody may ask.
func (m *Manager) PointList() []Point {
	var list []Point
	now := m.Points()
	for k := range resource.LoadShedPoints {
		if m.points.on[k] {
			list = append(list, Point{k, now.Scale(k), m.points.shed[k].Load()})
		}
	}
	return list
}
