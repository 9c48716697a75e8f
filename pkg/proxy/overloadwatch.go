// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// shrinkEvery is how often free heap is given back under pressure, as with Envoy.
const shrinkEvery = 10 * time.Second

// lookPause is how many times longer than a look the time to the next one is at least: a
// look may collect garbage, which takes a processor and more.
const lookPause = 4

// watchOverload looks at the resources of the overload manager, off the loops, until
// stop is closed.
func (p *Proxy) watchOverload(stop <-chan struct{}) {
	c := p.overload.Config()
	if len(c.Monitors) == 0 {
		return
	}
	base, start := p.monotonic(stop), time.Now()
	t := time.NewTicker(c.Refresh)
	defer t.Stop()
	probes := make([]delayProbe, len(p.workers))
	var shrunk, next time.Time
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		case <-p.look: // a loop has come to hold more than what is left
		}
		if time.Now().Before(next) { // what loops count goes on counting
			continue
		}
		began := time.Now()
		now := base + int64(time.Since(start))
		delay := time.Duration(0)
		for i, w := range p.workers {
			delay = max(delay, probes[i].look(w, now))
		}
		p.updateOverload(delay)
		p.followHeapLimit()
		next = time.Now().Add(time.Since(began) * lookPause)
		if p.overload.State().Scale(resource.ActionShrinkHeap) >= 100 && time.Since(shrunk) >= shrinkEvery {
			debug.FreeOSMemory()
			shrunk = time.Now()
		}
	}
}

// updateOverload takes the pressures and wakes the loops where that changes something.
func (p *Proxy) updateOverload(delay time.Duration) {
	was := p.overload.State()
	changed := p.overload.Update(func(_ int, o *resource.OverloadMonitor) (float64, error) {
		switch o.Kind {
		case resource.MonitorMemory:
			return p.memory(o)
		case resource.MonitorConnections:
			return float64(p.connections.Load()), nil
		case resource.MonitorLoopDelay:
			return float64(delay), nil
		case resource.MonitorFile:
			return fileNumber(o.File)
		}
		return 0, errors.New("unknown resource")
	})
	if !changed {
		return
	}
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() {}) // its tick looks
	}
	p.tellOverload(was, p.overload.State())
	p.log.Warn("overload", "resources", p.overload.Resources(), "actions", overloadNames(p.overload))
}

// overloadNames are the actions that are taken and the points that shed, with how far.
func overloadNames(m *overload.Manager) string {
	var list []string
	s := m.State()
	for k := range resource.OverloadActions {
		if n := s.Scale(k); n > 0 {
			list = append(list, k.Short()+" "+strconv.Itoa(int(n))+" %")
		}
	}
	for _, p := range m.PointList() {
		if p.Scale > 0 {
			list = append(list, strings.TrimPrefix(p.Kind.String(), "envoy.load_shed_points.")+" "+strconv.Itoa(int(p.Scale))+" %")
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func fileNumber(path string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	if err != nil {
		return 0, err
	}
	return n, nil
}

// delayProbe is how long a loop takes until it gets to what is new.
type delayProbe struct {
	sent   int64         // monotonic
	came   *atomic.Int64 // when the loop got to it, 0: not yet
	recent [3]time.Duration
}

// look reports the shortest of the last three delays, so that one long turn is not
// taken for pressure, and sends the next probe once the last has come.
func (d *delayProbe) look(w *worker, now int64) time.Duration {
	if d.came != nil {
		came := d.came.Load()
		if came == 0 {
			came = now
		} else {
			d.came = nil
		}
		copy(d.recent[1:], d.recent[:])
		d.recent[0] = time.Duration(max(0, came-d.sent))
	}
	if d.came == nil {
		came := new(atomic.Int64)
		d.sent, d.came = now, came
		w.loop.PostOffLoop(func() { came.Store(max(1, w.loop.Now())) })
	}
	return min(d.recent[0], d.recent[1], d.recent[2])
}

// overload adds the stats of overload.<resource> and overload.<action>.
func (s *sampler) overload(m *overload.Manager) {
	for _, r := range m.Resources() {
		s.in(metrics.NewScope("overload."+r.Name, "overload."+r.Name))
		s.add("pressure", "How much of the resource is in use, in percent.", gauge, r.Pressure)
		s.add("failed_updates", "Times that the resource could not be read.", counter, r.Failed)
	}
	state := m.State()
	for k := range resource.OverloadActions {
		if m.Action(k) == nil {
			continue
		}
		n := uint64(state.Scale(k))
		s.in(metrics.NewScope("overload."+k.String(), "overload."+k.String()))
		s.add("active", "1 where the action is taken in full.", gauge, n/100)
		s.add("scale_percent", "How far the action is taken.", gauge, n)
	}
	for _, p := range m.PointList() {
		s.in(metrics.NewScope("overload."+p.Kind.String(), "overload."+p.Kind.String()))
		s.add("scale_percent", "How much the point sheds.", gauge, uint64(p.Scale))
		s.add("shed_load_count", "Connections and requests that it has shed.", counter, p.Shed)
	}
	s.in(nil)
}
