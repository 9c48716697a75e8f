// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// State is how far each action is taken, in hundredths. The zero State is none.
type State uint64

// Scale is how far an action is taken, 0 to 100.
func (s State) Scale(k resource.OverloadActionKind) uint8 { return uint8(s >> (8 * k)) }

// Hit draws with a random number whether an action is taken this time.
func (s State) Hit(k resource.OverloadActionKind, random uint64) bool {
	n := s.Scale(k)
	return n > 0 && (n >= 100 || random%100 < uint64(n))
}

func (s State) with(k resource.OverloadActionKind, scale uint8) State { return s | State(scale)<<(8*k) }

// Manager holds the pressures and the state.
type Manager struct {
	// set once
	config   resource.Overload
	actions  [resource.OverloadActions]*resource.OverloadAction
	triggers [resource.OverloadActions][]trigger
	most     int64 // connections; negative: any number
	points   points
	growth   growth
	// atomic
	state     atomic.Uint64
	pressures []atomic.Uint64 // by monitor, bits of a float64
	failed    []atomic.Uint64 // updates that found nothing
}

// trigger is one of an action's, of the monitor with that index.
type trigger struct {
	monitor  int
	from, to float64
}

// New makes a manager of settings that were checked: triggers name monitors.
func New(c resource.Overload) *Manager {
	m := &Manager{config: c, most: -1, pressures: make([]atomic.Uint64, len(c.Monitors)), failed: make([]atomic.Uint64, len(c.Monitors))}
	index := map[string]int{}
	for i := range c.Monitors {
		index[c.Monitors[i].Name] = i
		if c.Monitors[i].Kind == resource.MonitorConnections {
			m.most = int64(c.Monitors[i].Max)
		}
	}
	for i := range c.Actions {
		a := &c.Actions[i]
		m.actions[a.Kind], m.triggers[a.Kind] = a, triggersOf(a.Triggers, index)
	}
	m.points.set(c.Points, index)
	return m
}

func triggersOf(list []resource.OverloadTrigger, index map[string]int) (out []trigger) {
	for _, t := range list {
		if n, ok := index[t.Monitor]; ok {
			out = append(out, trigger{n, t.From, t.To})
		}
	}
	return out
}

// State is the state of now. Anybody may ask.
func (m *Manager) State() State { return State(m.state.Load()) }

// Config are the settings, to be read only.
func (m *Manager) Config() *resource.Overload { return &m.config }

// Action are the settings of an action, nil where it is never taken.
func (m *Manager) Action(k resource.OverloadActionKind) *resource.OverloadAction { return m.actions[k] }

// Watches reports whether a resource of that kind is looked at.
func (m *Manager) Watches(k resource.OverloadMonitorKind) bool {
	return slices.ContainsFunc(m.config.Monitors, func(o resource.OverloadMonitor) bool { return o.Kind == k })
}

// MaxConnections is how many connections from downstream there may be; negative: any
// number.
func (m *Manager) MaxConnections() int64 { return m.most }

// Update looks at every monitor and publishes the state. Read returns how much of the
// resource is in use, in the unit of the monitor's Max. An error counts as a failed update;
// what is known beside it, above 0, is the pressure all the same, and where nothing is, the
// monitor keeps the last one. It reports whether the state or what is shed is another one.
func (m *Manager) Update(read func(i int, o *resource.OverloadMonitor) (used float64, err error)) (changed bool) {
	for i := range m.config.Monitors {
		o := &m.config.Monitors[i]
		used, err := read(i, o)
		bad := math.IsNaN(used) || used < 0
		if err != nil || bad {
			m.failed[i].Add(1)
		}
		if bad || err != nil && used == 0 {
			continue
		}
		m.pressures[i].Store(math.Float64bits(used / float64(max(o.Max, 1))))
	}
	return m.publish()
}

// publish puts the state of the pressures in force and reports whether it is another one.
func (m *Manager) publish() (changed bool) {
	var s State
	for k := range resource.OverloadActions {
		s = s.with(k, m.scale(m.triggers[k]))
	}
	changed = State(m.state.Swap(uint64(s))) != s
	return m.updatePoints() || changed
}

// scale is how far the trigger goes that goes furthest, in hundredths.
func (m *Manager) scale(triggers []trigger) uint8 {
	scale := 0.0
	for _, t := range triggers {
		scale = max(scale, t.scale(m.pressure(t.monitor)))
	}
	return hundredths(scale)
}

// hundredths rounds; in full is nothing less than in full.
func hundredths(scale float64) uint8 {
	if scale < 1 {
		return min(uint8(math.Round(scale*100)), 99)
	}
	return 100
}

// pressure is what was measured last, and of memory what has grown since.
func (m *Manager) pressure(i int) float64 {
	p := math.Float64frombits(m.pressures[i].Load())
	if o := &m.config.Monitors[i]; o.Kind == resource.MonitorMemory && p > 0 {
		p += float64(m.growth.own.since()+m.growth.kernel.since()) / float64(max(o.Max, 1))
	}
	return p
}

// scale is how far the trigger goes at a pressure, 0 to 1.
func (t *trigger) scale(p float64) float64 {
	switch {
	case p >= t.to:
		return 1
	case p <= t.from:
		return 0
	}
	return (p - t.from) / (t.to - t.from)
}

// Resource is a monitor as statistics show it.
type Resource struct {
	Name     string
	Pressure uint64 // hundredths
	Failed   uint64 // updates
}

// Resources lists the monitors. Anybody may ask.
func (m *Manager) Resources() []Resource {
	var list []Resource
	for i := range m.config.Monitors {
		p := min(m.pressure(i)*100, 1e9)
		list = append(list, Resource{m.config.Monitors[i].Name, uint64(p), m.failed[i].Load()})
	}
	return list
}
