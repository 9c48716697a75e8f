// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/health"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Everything here runs off the loops: on the merge tick, a health check's goroutine,
// or that of the overload manager.

// clusterWatch is what the merge tick has seen of a cluster last, and told of.
type clusterWatch struct {
	view  *lb.View
	panic bool // as told
	// healthy: it has had an endpoint that is healthy or degraded. Until then there is
	// nothing to fall from: the first endpoints of a mesh that starts are unhealthy for a moment.
	healthy bool
	open    bool // its circuit
}

// panicNote is what a worker leaves of a panic.
type panicNote struct {
	value any
	stack []byte
	count uint64 // panics of the worker so far
}

// watchCluster tells when a cluster begins or ceases to ignore its endpoints' health,
// and when its open circuit is gone. A view that has not changed costs a comparison.
func (p *Proxy) watchCluster(c *cluster, s *clusterSpec) {
	w := &c.watch
	if w.open && s.circuit == nil {
		w.open = false
		p.options.Events.Add(event.Event{Kind: event.KindCircuit, Type: event.Closed, Cluster: c.name, Message: "the cluster has no circuit breaker any more"})
	}
	v := s.lb.View()
	if v == w.view {
		return
	}
	w.view = v
	if v == nil {
		return
	}
	w.healthy = w.healthy || hasHealthy(v)
	if v.InPanic() == w.panic || !w.healthy {
		return
	}
	w.panic = !w.panic
	p.options.Events.Add(panicEvent(c.name, v, w.panic))
}

func hasHealthy(v *lb.View) bool {
	list := v.Priorities()
	for i := range list {
		if list[i].Healthy+list[i].Degraded > 0 {
			return true
		}
	}
	return false
}

// panicEvent is of the first priority that is in panic, or of the first of all.
func panicEvent(cluster string, v *lb.View, in bool) event.Event {
	e := event.Event{Kind: event.KindPanic, Type: event.Left, Cluster: cluster, Message: "health counts again"}
	list := v.Priorities()
	if len(list) == 0 {
		return e
	}
	at := &list[0]
	for i := range list {
		if list[i].Panic {
			at = &list[i]
			break
		}
	}
	if in {
		e.Type, e.Message = event.Entered, "too few endpoints are healthy: health is ignored"
		if v.Config().LB.FailOnPanic {
			e.Message = "too few endpoints are healthy: requests fail"
		}
	}
	e.Numbers = event.Numbers{
		{Name: "priority", Value: float64(at.Level)}, {Name: "healthy", Value: float64(at.Healthy)}, {Name: "degraded", Value: float64(at.Degraded)},
		{Name: "endpoints", Value: float64(at.Total())}, {Name: "healthyPercent", Value: percentOf(uint64(at.Healthy+at.Degraded), uint64(at.Total()))},
		{Name: "healthyPanicThreshold", Value: v.PanicThreshold()},
	}
	return e
}

func percentOf(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(part) / float64(all)
}

// tellPanics tells of the last panic of each worker since the last tick.
func (p *Proxy) tellPanics() {
	for _, w := range p.workers {
		if w.panicked.Load() == nil {
			continue
		}
		n := w.panicked.Swap(nil)
		p.options.Events.Add(event.Event{
			Kind: event.KindCallback, Type: event.Panicked, Name: panicPlace(n.stack),
			Message: fmt.Sprintf("%.500v: the connection was closed", n.value),
			Numbers: event.Numbers{{Name: "worker", Value: float64(w.index)}, {Name: "panics", Value: float64(n.count)}},
		})
	}
}

// panicPlace is the function that has panicked, of a stack as debug.Stack writes it:
// the first one below that is not the runtime's.
func panicPlace(stack []byte) string {
	_, rest, found := bytes.Cut(stack, []byte("\npanic("))
	if !found {
		return ""
	}
	for line := range bytes.Lines(rest) {
		call := string(line)
		at := strings.LastIndexByte(call, '(')
		if at > 0 && call[0] != '\t' && strings.Contains(call, ".") && !strings.HasPrefix(call, "runtime.") {
			return call[:at]
		}
	}
	return ""
}

// tellOverload tells of actions that begin or end with a new state.
func (p *Proxy) tellOverload(was, is overload.State) {
	for k := range resource.OverloadActions {
		before, now := was.Scale(k), is.Scale(k)
		if (before > 0) == (now > 0) {
			continue
		}
		e := event.Event{Kind: event.KindOverload, Type: event.Began, Name: k.Short(), Message: "pressure is above what the action is for"}
		if now == 0 {
			e.Type, e.Message = event.Ended, "pressure has gone"
		}
		e.Numbers = event.Numbers{{Name: "scalePercent", Value: float64(now)}}
		for _, r := range p.overload.Resources() {
			e.Numbers = append(e.Numbers, event.Number{Name: r.Name + ".pressurePercent", Value: float64(r.Pressure)})
		}
		p.options.Events.Add(e)
	}
}

// tellDrain tells that a drain begins; what it returns tells of its end.
func (p *Proxy) tellDrain(scope DrainScope, open int64) (ended func(left int64, err error)) {
	p.options.Events.Add(event.Event{Kind: event.KindDrain, Type: event.Began, Name: scope.String(), Numbers: event.Numbers{{Name: "connections", Value: float64(open)}}})
	return func(left int64, err error) {
		e := event.Event{Kind: event.KindDrain, Type: event.Ended, Name: scope.String(), Numbers: event.Numbers{{Name: "connections", Value: float64(left)}}}
		if err != nil {
			e.Message = err.Error()
		}
		p.options.Events.Add(e)
	}
}

// tellHealth tells of a change of an endpoint's health by its health checks.
func (p *Proxy) tellHealth(h *health.Event) {
	healthy, unhealthy := h.Thresholds()
	e := event.Event{Time: h.Time, Kind: event.KindHealth, Cluster: h.Cluster, Endpoint: h.Host.String(), Name: h.Kind.String(), Message: h.Result.Reason}
	switch {
	case h.Failed && (h.Change.Health || h.Change.First):
		e.Type = event.Failed
	case h.Change.Health:
		e.Type = event.Passed
	case h.Result.Outcome == health.Degraded:
		e.Type = event.Degraded
	default:
		e.Type = event.Restored
	}
	if h.Result.Status > 0 {
		e.Numbers = append(e.Numbers, event.Number{Name: "status", Value: float64(h.Result.Status)})
	}
	e.Numbers = append(e.Numbers, event.Number{Name: "healthyThreshold", Value: float64(healthy)}, event.Number{Name: "unhealthyThreshold", Value: float64(unhealthy)})
	p.options.Events.Add(e)
}

// Ejected is an endpoint that a cluster leaves out now.
type Ejected struct {
	Cluster, Endpoint string
	Detector          string // Envoy's name
	Ejections         uint32 // of the endpoint so far
	Since, Until      time.Time
}

// EjectedNow lists the endpoints that are left out. Any goroutine but a loop may call it.
func (p *Proxy) EjectedNow() (list []Ejected) {
	zero := p.wall.Load()
	for _, c := range *p.clusters.Load() {
		s := c.spec.Load()
		if s == nil || s.outlier == nil {
			continue
		}
		for _, x := range s.outlier.Ejections() {
			list = append(list, Ejected{c.name, x.Host.String(), x.Type.String(), x.Times, time.Unix(0, zero+x.Since), time.Unix(0, zero+x.Until)})
		}
	}
	slices.SortFunc(list, func(a, b Ejected) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Endpoint, b.Endpoint))
	})
	return list
}

// tellCircuit tells of a change of a circuit. It is called by the merge tick.
func (p *Proxy) tellCircuit(c *cluster, x *breaker.CircuitEvent) {
	c.watch.open = x.State == breaker.Open || x.State == breaker.ForcedOpen || x.State == breaker.HalfOpen
	p.options.Events.Add(circuitEvent(c.name, x))
}
