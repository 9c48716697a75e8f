// SPDX-License-Identifier: Apache-2.0

// Package hystrixcommand shows commands that run by hystrix.Do the way
// pkg/breaker shows circuits, so that one stream has both. It is for the control
// plane, whose slow outbound calls hystrix-go guards; no request passes here.
//
// hystrix-go calls the collectors from goroutines of its own, one per event and
// never ending per command: the names of commands must be few and fixed.
package hystrixcommand

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	metriccollector "github.com/afex/hystrix-go/hystrix/metric_collector"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixconfig"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Commands collects what all commands of the process do.
type Commands struct {
	group string
	now   func() int64

	mu         sync.Mutex
	collectors map[string]*collector
}

// Register collects from every command that is first used afterwards. The
// registry is hystrix-go's and process-wide: call this once, in main. The group
// is shown with each command; now is a monotonic clock in nanoseconds.
func Register(group string, now func() int64) *Commands {
	c := &Commands{group: group, now: now, collectors: map[string]*collector{}}
	metriccollector.Registry.Register(c.collector)
	return c
}

// collector is called by hystrix-go under its own lock, so that nothing that
// holds mu may call hystrix-go.
func (c *Commands) collector(name string) metriccollector.MetricCollector {
	k := &collector{circuit: breaker.NewCircuit(name, countOnly())}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collectors[name] = k
	return k
}

// countOnly is a circuit that keeps the window's numbers; hystrix-go decides.
func countOnly() *resource.CircuitBreaker {
	cfg := hystrixconfig.Defaults()
	cfg.ForceClosed = true
	return &cfg
}

// Metrics lists all commands by name.
func (c *Commands) Metrics() []breaker.Metrics {
	c.mu.Lock()
	collectors := make([]*collector, 0, len(c.collectors))
	for _, k := range c.collectors {
		collectors = append(collectors, k)
	}
	c.mu.Unlock()
	settings, now := hystrix.GetCircuitSettings(), c.now()
	out := make([]breaker.Metrics, 0, len(collectors))
	for _, k := range collectors {
		out = append(out, k.metrics(c.group, settings[k.circuit.Name()], now))
	}
	slices.SortFunc(out, func(a, b breaker.Metrics) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// collector counts one command.
type collector struct {
	circuit *breaker.Circuit
	mu      sync.Mutex
	counts  breaker.Counts // guarded by mu
}

// Update implements metriccollector.MetricCollector.
func (k *collector) Update(r metriccollector.MetricResult) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := &k.counts
	n.Success += uint32(r.Successes)
	n.Failure += uint32(r.Failures)
	n.Timeout += uint32(r.Timeouts)
	n.Rejected += uint32(r.Rejects)
	n.ShortCircuited += uint32(r.ShortCircuits)
	n.BadRequest += uint32(r.ContextCanceled + r.ContextDeadlineExceeded)
	n.FallbackSuccess += uint32(r.FallbackSuccesses)
	n.FallbackFailure += uint32(r.FallbackFailures)
	if r.ShortCircuits+r.Rejects == 0 { // those did not run
		n.Observe(int64(r.RunDuration))
	}
	k.circuit.Flush(n)
}

// Reset implements metriccollector.MetricCollector: the command's circuit has
// closed.
func (k *collector) Reset() {
	k.circuit.Update(nil)
	k.circuit.Update(countOnly())
}

func (k *collector) metrics(group string, s *hystrix.Settings, now int64) breaker.Metrics {
	k.circuit.Tick(now)
	m := k.circuit.Metrics(now)
	m.Group, m.State, m.Config.ForceClosed = group, breaker.Closed, false
	if cb, _, err := hystrix.GetCircuit(m.Name); err == nil && cb.IsOpen() {
		m.State = breaker.Open
	}
	if s != nil {
		m.Config.ErrorThresholdPercent = s.ErrorPercentThreshold
		m.Config.RequestVolumeThreshold = int(s.RequestVolumeThreshold)
		m.Config.SleepWindow = s.SleepWindow
		m.TimeoutMillis = int64(s.Timeout / time.Millisecond)
		m.MaxRequests = uint32(s.MaxConcurrentRequests)
	}
	return m
}

var _ metriccollector.MetricCollector = (*collector)(nil)
