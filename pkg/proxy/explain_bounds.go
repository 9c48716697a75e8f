// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// LimitSettings are a limit with its use now, and how often it has refused.
type LimitSettings struct {
	Used     uint64 `json:"used"`
	Max      uint64 `json:"max"`
	Overflow uint64 `json:"overflow"`
}

// ClusterLimits are the limits of a cluster for the route's priority.
type ClusterLimits struct {
	Priority    string        `json:"priority"` // default or high
	Connections LimitSettings `json:"connections"`
	Pending     LimitSettings `json:"pending"`
	Requests    LimitSettings `json:"requests"`
	PerHost     uint32        `json:"connectionsPerHost,omitempty"`
	DropPercent float64       `json:"dropPercent,omitempty"` // drop_overloads
}

// BudgetSettings bound a cluster's retries: those under way, and with a budget those
// over time.
type BudgetSettings struct {
	LimitSettings
	Percent        float64 `json:"budgetPercent,omitempty"` // absent: there is no budget
	MinConcurrency uint32  `json:"minRetryConcurrency,omitempty"`
	Reserve        float64 `json:"reserve,omitempty"` // retries that were paid for
	MaxReserve     float64 `json:"maxReserve,omitempty"`
}

// CircuitSettings are a circuit with its state and its window.
type CircuitSettings struct {
	State    string `json:"state"`
	Openings uint32 `json:"openings"`
	Open     int64  `json:"openMillis,omitempty"`   // for how long
	TestIn   int64  `json:"testInMillis,omitempty"` // of an open one

	Requests     uint64 `json:"requests"`
	Errors       uint64 `json:"errors"`
	ErrorPercent int    `json:"errorPercent"`
	Slow         uint64 `json:"slow,omitempty"`
	SlowPercent  int    `json:"slowPercent,omitempty"`

	ErrorThreshold int   `json:"errorThresholdPercent"`
	Volume         int   `json:"requestVolumeThreshold"`
	Window         int64 `json:"windowMillis,omitempty"`
	WindowCalls    int   `json:"windowCalls,omitempty"`
	SleepWindow    int64 `json:"sleepWindowMillis"`
	SlowThreshold  int   `json:"slowThresholdPercent,omitempty"`
	SlowAfter      int64 `json:"slowMillis,omitempty"`
	HalfOpenCalls  int   `json:"halfOpenCalls,omitempty"`
	Recovery       int64 `json:"recoveryMillis,omitempty"`
}

// OutlierSettings are what endpoints are ejected for, by Envoy's names, and how many are.
type OutlierSettings struct {
	Consecutive5xx     uint32 `json:"consecutive5xx,omitempty"`
	ConsecutiveGateway uint32 `json:"consecutiveGatewayFailure,omitempty"`
	ConsecutiveLocal   uint32 `json:"consecutiveLocalOriginFailure,omitempty"`
	SuccessRate        bool   `json:"successRate,omitempty"`
	FailurePercentage  uint32 `json:"failurePercentageThreshold,omitempty"`
	Interval           int64  `json:"intervalMillis"`
	BaseEjection       int64  `json:"baseEjectionMillis"`
	MaxEjection        int64  `json:"maxEjectionMillis"`
	MaxEjectionPercent uint32 `json:"maxEjectionPercent"`
	Ejected            int    `json:"ejectedEndpoints"`
	Endpoints          int    `json:"endpoints"`
}

// bounds adds what governs requests at a cluster, with the numbers of now. Of an aggregate
// that is its members'.
func (x *explainer) bounds(name string, c *cluster, s *clusterSpec) {
	if c.members.Load() != nil {
		return
	}
	x.rule("timeouts", name, TimeoutSettings{Connect: millis(s.res.ConnectTimeout)}, fmt.Sprintf("%v to connect", s.res.ConnectTimeout))
	x.limits(name, s)
	if x.retries {
		x.budget(name, s)
	}
	if s.circuit != nil {
		x.circuit(name, s.circuit)
	}
	if s.outlier != nil && s.res.Outlier != nil {
		x.outlier(name, s)
	}
}

func (x *explainer) limits(name string, s *clusterSpec) {
	u, of := s.limits.Use(), "default"
	if x.high {
		u, of = s.limits.UseHigh(), "high"
	}
	l := ClusterLimits{Priority: of, Connections: limitOf(u.Connections), Pending: limitOf(u.Pending), Requests: limitOf(u.Requests), PerHost: s.priority(x.high).ConnsPerHost()}
	text := fmt.Sprintf("connections %s, waiting %s, requests %s", l.Connections, l.Pending, l.Requests)
	if l.PerHost > 0 {
		text += fmt.Sprintf(", connections of one endpoint %d at most", l.PerHost)
	}
	if n := l.Connections.Overflow + l.Pending.Overflow + l.Requests.Overflow; n > 0 {
		text += fmt.Sprintf("; %d refused so far", n)
	}
	if x.high {
		text += "; of the high priority"
	}
	if a := s.assigned; a != nil && a.DropPerMillion > 0 {
		l.DropPercent = float64(a.DropPerMillion) / 1e4
		text += fmt.Sprintf("; %.4g%% of the requests are dropped (drop_overloads)", l.DropPercent)
	}
	x.rule("limits", name, l, text)
}

func limitOf(u breaker.Use) LimitSettings {
	return LimitSettings{uint64(u.Active), uint64(u.Max), u.Overflow}
}

// String is the use, such as "3 of 1024".
func (l LimitSettings) String() string { return fmt.Sprintf("%d of %d", l.Used, l.Max) }

func (x *explainer) budget(name string, s *clusterSpec) {
	l, t := s.priority(x.high), &s.res.Default
	if x.high {
		t = &s.res.High
	}
	b := BudgetSettings{LimitSettings: limitOf(l.Use().Retries)}
	text := fmt.Sprintf("%s under way", b.LimitSettings)
	if t.RetryBudget {
		b.Percent, b.MinConcurrency = t.BudgetPercent, t.MinRetries
		b.Reserve, b.MaxReserve, _ = l.RetryReserve()
		text += fmt.Sprintf(": %.4g%% of the requests, at least %d; %.4g of %.4g in reserve", b.Percent, b.MinConcurrency, b.Reserve, b.MaxReserve)
	}
	if b.Overflow > 0 {
		text += fmt.Sprintf("; %d refused so far", b.Overflow)
	}
	x.rule("retry budget", name, b, text)
}

func (x *explainer) circuit(name string, c *breaker.Circuit) {
	m := c.Metrics(x.now)
	cfg := &m.Config
	s := CircuitSettings{
		State: m.State.String(), Openings: m.Generation,
		Requests: m.Requests, Errors: m.Errors, ErrorPercent: m.ErrorPercent, Slow: m.Slow, SlowPercent: m.SlowPercent,
		ErrorThreshold: cfg.ErrorThresholdPercent, Volume: cfg.RequestVolumeThreshold, Window: millis(cfg.Window), WindowCalls: cfg.WindowCalls,
		SleepWindow: millis(cfg.SleepWindow), HalfOpenCalls: cfg.HalfOpenCalls, Recovery: millis(cfg.Recovery),
	}
	of := fmt.Sprintf("in %v", cfg.Window)
	if cfg.WindowCalls > 0 {
		s.Window, of = 0, fmt.Sprintf("of the last %d", cfg.WindowCalls)
	}
	text := m.State.String()
	if m.OpenedAt != 0 {
		open := time.Duration(max(x.now-m.OpenedAt, 0))
		s.Open = millis(open)
		text += fmt.Sprintf(" for %v", open.Round(100*time.Millisecond))
		if m.State == breaker.Open {
			in := c.RetryIn(x.now)
			s.TestIn = millis(in)
			text += fmt.Sprintf(", tested in %v", in.Round(100*time.Millisecond))
		}
	}
	text += fmt.Sprintf("; opens at %d%% errors of at least %d requests %s", cfg.ErrorThresholdPercent, cfg.RequestVolumeThreshold, of)
	if cfg.SlowDuration > 0 {
		s.SlowThreshold, s.SlowAfter = cfg.SlowPercent, millis(cfg.SlowDuration)
		text += fmt.Sprintf(", or %d%% slower than %v", cfg.SlowPercent, cfg.SlowDuration)
	}
	text += fmt.Sprintf(", for %v: %d of %d failed", cfg.SleepWindow, m.Errors, m.Requests)
	if cfg.SlowDuration > 0 {
		text += fmt.Sprintf(", %d were slow", m.Slow)
	}
	if n := m.Generation; n > 0 {
		text += fmt.Sprintf("; it has opened %s so far", times(n))
	}
	x.rule("circuit", name, s, text)
}

func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (x *explainer) outlier(name string, s *clusterSpec) {
	o, hosts := s.res.Outlier, s.lb.View().Hosts()
	out := OutlierSettings{
		Interval: millis(o.Interval), BaseEjection: millis(o.BaseEjection), MaxEjection: millis(o.MaxEjection), MaxEjectionPercent: o.MaxEjectionPercent,
		Ejected: len(s.outlier.Ejections()), Endpoints: len(hosts),
	}
	var words []string
	inARow := func(to *uint32, n, enforcing uint32, what string) {
		if n == 0 || enforcing == 0 {
			return
		}
		*to = n
		words = append(words, fmt.Sprintf("%d %s in a row%s", n, what, sometimes(enforcing)))
	}
	inARow(&out.Consecutive5xx, o.Consecutive5xx, o.Enforcing5xx, "errors")
	inARow(&out.ConsecutiveGateway, o.ConsecutiveGateway, o.EnforcingGateway, "gateway failures")
	if o.SplitLocal {
		inARow(&out.ConsecutiveLocal, o.ConsecutiveLocal, o.EnforcingLocal, "failures to reach it")
	}
	if r := &o.SuccessRate; r.Enforcing > 0 || o.SplitLocal && r.EnforcingLocal > 0 {
		out.SuccessRate = true
		words = append(words, fmt.Sprintf("successes %.3g deviations below the others', of %d requests in %v", r.Stdev, r.Volume, o.Interval))
	}
	if f := &o.Failure; f.Enforcing > 0 || o.SplitLocal && f.EnforcingLocal > 0 {
		out.FailurePercentage = f.Threshold
		words = append(words, fmt.Sprintf("%d%% failures of %d requests in %v", f.Threshold, f.Volume, o.Interval))
	}
	text := "nothing is enforced"
	if len(words) > 0 {
		text = fmt.Sprintf("ejects for %s; for %v and longer each time, %v at most, %s of the endpoints at most", strings.Join(words, ", or "), o.BaseEjection, o.MaxEjection, percentText(o))
	}
	x.rule("outlier detection", name, out, fmt.Sprintf("%s: %d of %d ejected now", text, out.Ejected, out.Endpoints))
}

// sometimes is how often something is enforced that is not always.
func sometimes(enforcing uint32) string {
	if enforcing >= 100 {
		return ""
	}
	return fmt.Sprintf(" (%d%% of the times)", enforcing)
}

func percentText(o *resource.OutlierDetection) string {
	if o.AlwaysEjectOne {
		return fmt.Sprintf("%d%%, or one,", o.MaxEjectionPercent)
	}
	return fmt.Sprintf("%d%%", o.MaxEjectionPercent)
}
