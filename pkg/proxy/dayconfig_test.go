// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/fault"
	"github.com/outrigger-mesh/outrigger/pkg/filter/statefulsession"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// dayPlan is what was drawn for a proxy and stays, so that what clients see can be judged.
type dayPlan struct {
	routes      []*dayRoute
	favourite   *dayRoute // nil: none
	clusters    []string  // those that routes name, without the mirrors'
	filters     []filter.Spec
	rates       *filter.Spec  // the local rate limit's; nil: there is none
	faultDelay  time.Duration // most that a filter waits
	slow        bool          // responses may be, on purpose
	turns       int           // clusters that a request may come to, by a fallback 2
	idle        time.Duration // downstream
	upstream    time.Duration // idle time of pooled connections, the longest
	maxDuration time.Duration // of a stream; 0: any
	pressure    bool          // there is an overload manager
	tcp         dayTCP
	upgrades    bool

	sessions, strict bool   // requests to /session/ have one
	sessionHeader    string // where it is; "": in a cookie
}

// dayRoute is a route, by its prefix.
type dayRoute struct {
	prefix  string
	timeout time.Duration // 0: none
	retries int           // most, of the policy; 0: it has none
	mirror  bool
	label   string // of the subset that it asks for
	res     *resource.Route
}

// route draws the route of a request: in some days half of them go to the same one.
func (p *dayPlan) route(rng *rand.Rand) *dayRoute {
	if p.favourite != nil && maybe(rng, 1, 2) {
		return p.favourite
	}
	return one(rng, p.routes...)
}

// longest is a time after which nothing may be left of traffic.
func (p *dayPlan) longest() time.Duration { return max(p.idle, p.upstream) + time.Minute }

// all are the clusters that requests or connections may be sent to.
func (p *dayPlan) all() []string { return slices.Concat(p.clusters, p.tcp.clusters) }

func one[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// maybe draws true in n of m cases.
func maybe(rng *rand.Rand, n, m int) bool { return rng.IntN(m) < n }

func partOf(percent int) resource.Percent {
	return resource.Percent{PerMillion: uint32(percent) * 10_000, Denominator: 100}
}

const ms = time.Millisecond

// drawPlan draws the settings.
func (d *day) drawPlan(o *Options) {
	rng, p := d.rng, &d.plan
	s := baseSnapshot(dayAddr.String())
	d.snap, p.turns = s, 1
	for i := range 1 + rng.IntN(3) {
		name := "c" + strconv.Itoa(i)
		p.clusters = append(p.clusters, name)
		d.drawCluster(name, i)
	}
	d.drawCluster("m", 9)
	d.drawRoutes()
	m := s.Listeners["l"].FilterChains[0].HTTP
	p.idle = one(rng, time.Second, 20*time.Second, 3*time.Minute)
	m.IdleTimeout = p.idle
	m.RequestHeadersTimeout = one(rng, 300*ms, 2*time.Second)
	m.StreamIdleTimeout = one(rng, 2*time.Second, 30*time.Second)
	m.DelayedCloseTimeout = one(rng, 50*ms, time.Second)
	m.RequestTimeout = one(rng, 0, 0, 3*time.Second)
	m.MaxConnectionDuration = one(rng, 0, 0, 2*time.Second)
	m.MaxRequestsPerConn = one(rng, 0, 0, 0, 1, 3)
	if p.maxDuration = one(rng, 0, 0, 4*time.Second); p.maxDuration > 0 {
		m.MaxStreamDuration = p.maxDuration
	}
	m.HTTP2 = resource.HTTP2Options{MaxConcurrentStreams: one[uint32](rng, 0, 2, 10), StreamWindow: one[uint32](rng, 0, 4096), KeepAliveInterval: one(rng, 0, 0, time.Second), KeepAliveTimeout: 500 * ms}
	m.AccessLog = []*resource.AccessLog{{GRPC: &resource.GRPCLog{}}}
	s.Listeners["l"].BufferLimit = one(rng, 64<<10, 4<<10)
	if maybe(rng, 1, 4) {
		s.Listeners["l"].FilterChains[0].ConnectionLimit = 2 + rng.IntN(6)
	}
	d.drawFilters(m)
	tunnels := rng.IntN(8) // each kind in a quarter of the days, both in half of these
	if tunnels < 2 {
		d.drawTCP()
	}
	if tunnels == 1 || tunnels == 2 {
		d.drawUpgrades(m)
	}
	o.Filters = filter.NewRegistry(p.filters...)
	if maybe(rng, 1, 3) {
		d.drawOverload(o)
	}
	if maybe(rng, 1, 4) {
		o.Accepting, o.Dialling = 4+rng.IntN(12), 2+rng.IntN(8)
	}
}

// drawCluster draws a cluster with its endpoints, and makes the instances.
func (d *day) drawCluster(name string, index int) {
	rng := d.rng
	c := withCluster(d.snap, name)
	n := 1 + rng.IntN(5)
	for i := range n {
		d.addInstance(name, fmt.Sprintf("10.1.%d.%d:80", index, i+1))
	}
	c.ConnectTimeout = one(rng, 100*ms, 400*ms)
	c.IdleTimeout = one(rng, 500*ms, 30*time.Second, 5*time.Minute)
	d.plan.upstream = max(d.plan.upstream, c.IdleTimeout)
	c.MaxRequestsPerConn = one(rng, 0, 0, 1, 5)
	c.MaxConnDuration = one(rng, 0, 0, time.Second)
	c.BufferLimit = one(rng, 64<<10, 4<<10)
	switch rng.IntN(3) {
	case 0:
		c.HTTP2 = true
	case 1:
		c.DownstreamProtocol = true
	}
	c.HTTP2Options = resource.HTTP2Options{MaxConcurrentStreams: one[uint32](rng, 0, 1, 5), StreamWindow: one[uint32](rng, 0, 4096), KeepAliveInterval: one(rng, 0, 0, 700*ms), KeepAliveTimeout: 300 * ms}
	c.CloseOnHealthFailure = maybe(rng, 1, 3)
	c.LB = drawBalancing(rng)
	c.LB.Subsets = drawSubsets(rng)
	c.Default = drawLimits(rng)
	c.High = drawLimits(rng)
	if maybe(rng, 1, 2) {
		c.Breaker = &resource.CircuitBreaker{
			Enabled: true, ErrorThresholdPercent: 20 + rng.IntN(70), RequestVolumeThreshold: 2 + rng.IntN(10), Window: time.Second, Buckets: 10, SleepWindow: one(rng, 50*ms, time.Second),
			Count5xx: true, CountTimeout: true, CountConnectFailure: true, CountReset: true, HalfOpenCalls: rng.IntN(4), Recovery: one(rng, 0, 500*ms), RetryAfter: maybe(rng, 1, 2),
			SlowDuration: one(rng, 0, 50*ms), SlowPercent: 50, WindowCalls: one(rng, 0, 0, 20),
		}
	}
	if maybe(rng, 1, 2) {
		c.Outlier = drawOutlier(rng)
	}
	if maybe(rng, 1, 5) {
		c.Fallback = &resource.Fallback{Static: &resource.DirectResponse{Status: 200, Body: []byte("fallback")}}
		if maybe(rng, 1, 2) { // which may be itself, or one that is gone
			c.Fallback.Cluster, d.plan.turns = one(rng, d.plan.clusters...), 2
		}
	}
	d.assign(name)
}

func drawOutlier(rng *rand.Rand) *resource.OutlierDetection {
	return &resource.OutlierDetection{
		Consecutive5xx: uint32(1 + rng.IntN(5)), Enforcing5xx: 100, ConsecutiveGateway: 3, EnforcingGateway: 50, ConsecutiveLocal: 2, EnforcingLocal: 100, SplitLocal: maybe(rng, 1, 2),
		SuccessRate: resource.SuccessRate{MinHosts: 2, Volume: 5, Stdev: 1900, Enforcing: 100}, Failure: resource.FailurePercentage{Threshold: 60, MinHosts: 1, Volume: 5, Enforcing: 100},
		Interval: one(rng, 100*ms, time.Second), BaseEjection: one(rng, 200*ms, 10*time.Second), MaxEjection: time.Minute, MaxEjectionPercent: uint32(10 + rng.IntN(90)), AlwaysEjectOne: maybe(rng, 1, 2), RetryAfter: maybe(rng, 1, 2),
	}
}

func drawBalancing(rng *rand.Rand) resource.LoadBalancing {
	l := resource.LoadBalancing{Policy: one(rng, resource.RoundRobin, resource.LeastRequest, resource.Random, resource.RingHash, resource.Maglev, resource.PeakEWMA, resource.ClientWeighted, resource.PickFirst)}
	switch l.Policy {
	case resource.LeastRequest:
		l.ChoiceCount, l.FullScan = 2, maybe(rng, 1, 2)
	case resource.RingHash:
		l.MinRingSize, l.MaxRingSize = 16, 64
		l.HashBalanceFactor = one[uint32](rng, 0, 120)
	case resource.Maglev:
		l.TableSize = 251
		l.HashBalanceFactor = one[uint32](rng, 0, 120)
	case resource.ClientWeighted:
		l.ClientWeights = &resource.ClientWeights{Blackout: 100 * ms, Expiration: time.Minute, Update: 100 * ms, ErrorPenalty: 1}
	case resource.PeakEWMA:
		l.PeakEWMA = resource.LatencyEstimate{Decay: time.Second, DefaultRTT: 10 * ms, Penalty: 1e6}
	case resource.RoundRobin:
		l.SlowStart = resource.SlowStart{Window: one(rng, 0, time.Second), Aggression: 1, MinWeightPercent: 10}
	}
	if maybe(rng, 1, 2) {
		l.HasPanic, l.PanicThreshold, l.FailOnPanic = true, float64(rng.IntN(100)*rng.IntN(2)), maybe(rng, 1, 4)
	}
	l.LocalityWeighted = maybe(rng, 1, 3)
	return l
}

func drawLimits(rng *rand.Rand) resource.Thresholds {
	t := resource.Thresholds{MaxConnections: uint32(1 + rng.IntN(8)), MaxPending: uint32(rng.IntN(10)), MaxRequests: uint32(2 + rng.IntN(16)), MaxRetries: uint32(rng.IntN(4))}
	if maybe(rng, 1, 3) {
		t.RetryBudget, t.BudgetPercent, t.MinRetries = true, float64(rng.IntN(60)), uint32(rng.IntN(3))
	}
	if maybe(rng, 1, 4) {
		t.MaxConnsPerHost = uint32(1 + rng.IntN(3))
	}
	return t
}

// drawRoutes draws routes for all clusters.
func (d *day) drawRoutes() {
	rng, p := d.rng, &d.plan
	vh := d.snap.Routes["r"].VirtualHosts[0]
	vh.Routes = nil
	add := func(prefix string, edit func(*dayRoute, *resource.RouteAction)) {
		a := &resource.RouteAction{TotalWeight: 1, Timeout: one(rng, 0, 150*ms, time.Second, 5*time.Second), HighPriority: maybe(rng, 1, 6)}
		a.Clusters = []resource.WeightedCluster{{Name: one(rng, p.clusters...), Weight: 1}}
		if maybe(rng, 1, 2) {
			a.Hash = []resource.HashPolicy{{Kind: resource.HashHeader, Name: "x-id"}}
		}
		r := &dayRoute{prefix: prefix}
		edit(r, a)
		r.timeout = a.Timeout
		r.res = &resource.Route{Name: prefix, Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: prefix}, Action: a}
		p.routes = append(p.routes, r)
		vh.Routes = append(vh.Routes, r.res)
	}
	retries := func(r *dayRoute, a *resource.RouteAction) {
		r.retries = 1 + rng.IntN(3)
		a.Retry = &resource.RetryPolicy{
			On:         one(rng, resource.Retry5xx, resource.RetryGatewayError|resource.RetryReset|resource.RetryConnectFailure, resource.Retry5xx|resource.RetryReset|resource.RetryRefusedStream|resource.RetryRetriable4xx),
			NumRetries: r.retries, BaseInterval: one(rng, 5*ms, 30*ms), PerTryTimeout: one(rng, 0, 40*ms, 300*ms), PreviousHosts: maybe(rng, 1, 2), HostAttempts: 1 + rng.IntN(3), PreviousPriorities: rng.IntN(2),
		}
		a.Retry.MaxInterval = 10 * a.Retry.BaseInterval
		if maybe(rng, 1, 3) {
			a.Retry.PerTryIdleTimeout = 100 * ms
		}
		if maybe(rng, 1, 3) {
			a.Retry.RateLimited = &resource.RateLimitedBackOff{Headers: []resource.ResetHeader{{Name: "retry-after"}}, MaxInterval: 2 * time.Second}
		}
	}
	add("/plain/", func(*dayRoute, *resource.RouteAction) {})
	add("/retry/", retries)
	add("/hedge/", func(r *dayRoute, a *resource.RouteAction) {
		retries(r, a)
		a.Retry.PerTryTimeout, a.Retry.PerTryIdleTimeout = one(rng, 5*ms, 50*ms), 0
		a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
	})
	add("/mirror/", func(r *dayRoute, a *resource.RouteAction) {
		if maybe(rng, 1, 2) {
			retries(r, a)
		}
		r.mirror = true
		a.Mirrors = []resource.Mirror{{Cluster: "m", Fraction: partOf(60)}}
	})
	add("/shared/", func(_ *dayRoute, a *resource.RouteAction) {
		a.Clusters = nil
		for _, c := range append([]string{"gone"}, p.clusters...) {
			a.Clusters = append(a.Clusters, resource.WeightedCluster{Name: c, Weight: 1})
		}
		a.TotalWeight = uint32(len(a.Clusters))
		a.MaxDuration = one(rng, 0, 500*ms)
	})
	add("/subset/", func(r *dayRoute, a *resource.RouteAction) {
		if r.label = one(rng, append(labelsOf, "c")...); maybe(rng, 1, 2) {
			retries(r, a)
		}
		a.Clusters[0].MetadataMatch = wantsLabel(r.label)
	})
	add(keptPrefix, func(r *dayRoute, a *resource.RouteAction) {
		if drawKept(d, a); maybe(rng, 1, 4) {
			retries(r, a)
		}
	})
	add("/session/", func(_ *dayRoute, a *resource.RouteAction) { a.Hash = nil })
	if maybe(rng, 1, 2) {
		p.favourite = one(rng, p.routes...)
	}
	p.routes = append(p.routes, &dayRoute{prefix: "/direct/"})
	vh.Routes = append(vh.Routes, &resource.Route{Name: "direct", Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: "/direct/"}, Direct: &resource.DirectResponse{Status: 418, Body: []byte("tea")}})
}

// drawFilters draws filters that delay, abort and refuse.
func (d *day) drawFilters(m *resource.HTTPManager) {
	rng, p := d.rng, &d.plan
	add := func(s filter.Spec, config any) {
		p.filters = append(p.filters, s)
		if s.Build != nil {
			config = s.Build(config)
		}
		m.Filters = append(m.Filters, resource.HTTPFilter{Name: s.Name, TypeURL: s.TypeURL, Config: config})
	}
	if maybe(rng, 1, 3) {
		p.faultDelay, p.slow = one(rng, 5*ms, 200*ms), true
		add(fault.Spec(), &resource.Fault{
			Delay: &resource.FaultDelay{Percent: partOf(20), Fixed: p.faultDelay}, Abort: &resource.FaultAbort{Percent: partOf(5), HTTP: 503}, MaxActive: int64(rng.IntN(5) - 1),
			Slow: &resource.FaultRate{Percent: partOf(10), Fixed: one[uint64](rng, 1, 64)},
		})
	}
	if p.sessions = maybe(rng, 1, 2); p.sessions {
		config, err := statefulsession.Spec().Parse(d.drawSession())
		if err != nil {
			d.fail("%v", err)
		}
		add(statefulsession.Spec(), config)
	}
	d.drawLimiters(add)
}

// drawOverload draws an overload manager whose pressure the day sets.
func (d *day) drawOverload(o *Options) {
	rng := d.rng
	d.plan.pressure = true
	o.Overload = resource.Overload{Refresh: time.Second, Monitors: []resource.OverloadMonitor{{Name: "p", Kind: resource.MonitorFile, Max: 1}}}
	if maybe(rng, 1, 2) {
		o.Overload.Monitors = append(o.Overload.Monitors, resource.OverloadMonitor{Name: "n", Kind: resource.MonitorConnections, Max: uint64(3 + rng.IntN(6))})
	}
	for k := range resource.ActionShrinkHeap {
		a := resource.OverloadAction{Kind: k, Triggers: []resource.OverloadTrigger{{Monitor: "p", From: 0.2 * float64(rng.IntN(4)), To: 0.9}}}
		if k == resource.ActionReduceTimeouts {
			a.ConnectionIdle, a.StreamIdle = resource.ScaledTimeout{On: true, Min: 100 * ms}, resource.ScaledTimeout{On: true, Percent: 20}
		}
		if maybe(rng, 2, 3) {
			o.Overload.Actions = append(o.Overload.Actions, a)
		}
	}
	for k := range resource.LoadShedPoints {
		if maybe(rng, 1, 4) {
			o.Overload.Points = append(o.Overload.Points, resource.LoadShedPoint{Kind: k, Triggers: []resource.OverloadTrigger{{Monitor: "p", From: 0.1 + 0.2*float64(rng.IntN(4)), To: 0.9}}})
		}
	}
}

// press sets the pressure.
func (d *day) press(p float64) {
	if !d.plan.pressure {
		return
	}
	d.pressure = p
	if d.p.overload.Update(func(_ int, m *resource.OverloadMonitor) (float64, error) {
		if m.Kind == resource.MonitorConnections {
			return float64(d.p.connections.Load()), nil
		}
		return p, nil
	}) {
		for _, w := range d.p.workers {
			w.loop.PostOffLoop(func() {})
		}
	}
}
