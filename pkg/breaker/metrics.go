// SPDX-License-Identifier: Apache-2.0

package breaker

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// State is a circuit's.
type State uint8

// The states. HalfOpen is an open circuit whose sleep window has ended: the next
// request is a probe, or probes are under way.
const (
	Closed State = iota
	Open
	HalfOpen
	ForcedOpen
	ForcedClosed
	Disabled
	Recovering // closed again, and a growing share passes
)

// String is the state's name.
func (s State) String() string {
	return [...]string{"closed", "open", "half-open", "forced-open", "forced-closed", "disabled", "recovering"}[s]
}

// State is the circuit's at a time. Any goroutine may ask, loops too.
func (c *Circuit) State(now int64) State {
	cfg := c.config.Load()
	if cfg == nil {
		return Disabled
	}
	switch c.word.Load() & modeMask {
	case deny:
		return ForcedOpen
	case open:
		s := c.shared.Load()
		if now-c.testedAt.Load() > c.sleep.Load() || s != nil && s.testing(cfg) {
			return HalfOpen
		}
		return Open
	case ramp:
		return Recovering
	}
	if cfg.ForceClosed && !cfg.ForceOpen {
		return ForcedClosed
	}
	return Closed
}

// Percentiles are those that Hystrix's stream shows.
var Percentiles = [...]float64{0, 25, 50, 75, 90, 95, 99, 99.5, 100}

// Metrics is a snapshot of a circuit for people and dashboards.
type Metrics struct {
	Name         string
	Group        string // left empty: for the caller
	State        State
	Generation   uint32 // openings so far, wrapping
	OpenedAt     int64  // monotonic, of the last opening; 0 where it is not open
	Config       resource.CircuitBreaker
	Rolling      [outcomes]uint64 // by Outcome, over the window
	Total        [outcomes]uint64 // by Outcome, since the circuit was enabled
	Requests     uint64           // of the window, that health is made of
	Errors       uint64
	ErrorPercent int
	Slow         uint64 // of Requests
	SlowPercent  int

	Active        uint32 // requests in flight, where limits are watched
	RollingActive uint32 // most of them at a tick of the window
	MaxRequests   uint32

	// Of the last minute, in microseconds.
	LatencyMean        uint64
	LatencyPercentiles [len(Percentiles)]uint64
	// Executed is how many latencies these are made of.
	Executed uint32

	TimeoutMillis int64 // of a request; left 0: for the caller
}

// Outcomes is the number of outcomes, for loops over Metrics.Rolling.
const Outcomes = int(outcomes)

// IsOpen reports whether requests are refused.
func (m *Metrics) IsOpen() bool {
	return m.State == Open || m.State == HalfOpen || m.State == ForcedOpen
}

// Metrics reads the circuit as of the last tick. Not for loops.
func (c *Circuit) Metrics(now int64) Metrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := Metrics{Name: c.name, State: c.State(now), Generation: c.off.gen}
	cfg, s := c.config.Load(), c.shared.Load()
	if l := c.off.limits; l != nil {
		u := l.Use()
		m.Active, m.MaxRequests = u.Requests.Active, u.Requests.Max
	}
	if cfg == nil {
		return m
	}
	m.Config = *cfg
	for i := range m.Total {
		m.Total[i] = s.totals[i].Load()
	}
	w := &c.off.window
	copy(m.Rolling[:], w.sum[:])
	h := c.off.health()
	if c.off.open {
		m.OpenedAt = c.off.openedAt
	}
	m.Requests, m.Errors, m.ErrorPercent = h.requests, h.errors, h.errorPercent()
	m.Slow, m.SlowPercent = h.slow, percent(h.slow, h.requests)
	m.RollingActive = max(w.most(), m.Active)
	if c.off.latency != nil {
		t := c.off.latency.total()
		m.LatencyMean, m.Executed = t.mean(), t.count
		for i, p := range Percentiles {
			m.LatencyPercentiles[i] = t.percentile(p)
		}
	}
	return m
}
