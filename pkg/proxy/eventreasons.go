// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// tellEjection tells what outlier detection has decided. What it never enforces is for
// its own log alone.
func (p *Proxy) tellEjection(x breaker.Event) {
	if x.Action == breaker.Eject && !x.Enforced && x.Enforcing == 0 {
		return
	}
	p.options.Events.Add(ejectionEvent(&x))
}

// ejectionEvent says why, with the numbers at the decision.
func ejectionEvent(x *breaker.Event) event.Event {
	e := event.Event{Time: x.Time, Kind: event.KindEjection, Cluster: x.Cluster, Endpoint: x.Upstream, Name: x.Type.String()}
	add := func(name string, v float64) { e.Numbers = append(e.Numbers, event.Number{Name: name, Value: v}) }
	switch x.Action {
	case breaker.Uneject:
		e.Type, e.Message = event.Returned, "its time is over"
		if x.Checked {
			e.Message = "a health check has passed"
		}
		add("ejections", float64(x.Ejections))
		add("ejectedForMillis", float64(x.SinceLast.Milliseconds()))
		add("ejectedEndpoints", float64(x.Active))
		return e
	case breaker.Release:
		e.Type, e.Message = event.Returned, "the cluster's outlier detection has ended"
		return e
	case breaker.Leave:
		e.Type, e.Message = event.Left, "the endpoint is no longer in the cluster"
		return e
	}
	reason := detected(x, add)
	add("ejectedEndpoints", float64(x.Active))
	add("endpoints", float64(x.Hosts))
	add("ejectedPercent", percentOf(uint64(x.Active), uint64(x.Hosts)))
	add("maxEjectionPercent", float64(x.MaxPercent))
	switch {
	case x.Action == breaker.Spare:
		e.Type = event.Spared
		e.Message = fmt.Sprintf("%s; not ejected: one more than %d of %d endpoints would be more than %d %%", reason, x.Active, x.Hosts, x.MaxPercent)
	case !x.Enforced:
		e.Type = event.Spared
		e.Message = fmt.Sprintf("%s; not ejected: %d %% of such ejections are enforced", reason, x.Enforcing)
		add("enforcingPercent", float64(x.Enforcing))
	default:
		e.Type, e.Message, e.Until = event.Ejected, reason, x.Time.Add(x.For).Round(0).UTC()
		add("ejections", float64(x.Ejections))
		add("ejectedForMillis", float64(x.For.Milliseconds()))
	}
	return e
}

// detected says what a detector has found, and adds its numbers.
func detected(x *breaker.Event, add func(string, float64)) string {
	switch x.Type {
	case breaker.SuccessRate, breaker.SuccessRateLocal:
		add("successRatePercent", x.Percent)
		add("averagePercent", x.Rates.Average)
		add("thresholdPercent", x.Rates.Threshold)
		add("requests", float64(x.Volume))
		return fmt.Sprintf("%.4g %% of its %d requests succeeded, and %.4g %% or more of those of an endpoint have to", x.Percent, x.Volume, x.Rates.Threshold)
	case breaker.FailurePercentage, breaker.FailurePercentageLocal:
		add("failurePercent", 100-x.Percent)
		add("thresholdPercent", float64(x.FailureThreshold))
		add("requests", float64(x.Volume))
		return fmt.Sprintf("%.4g %% of its %d requests failed, and the threshold is %d %%", 100-x.Percent, x.Volume, x.FailureThreshold)
	}
	add("failuresInARow", float64(x.Threshold))
	add("threshold", float64(x.Threshold))
	what := map[breaker.EjectionType]string{
		breaker.Consecutive5xx: "server errors", breaker.ConsecutiveGateway: "gateway errors", breaker.ConsecutiveLocal: "requests without an answer",
	}[x.Type]
	return fmt.Sprintf("%d %s in a row, and the threshold is %d", x.Threshold, what, x.Threshold)
}

// circuitEvent says why a circuit has changed.
func circuitEvent(cluster string, x *breaker.CircuitEvent) event.Event {
	e := event.Event{Kind: event.KindCircuit, Cluster: cluster}
	add := func(name string, v float64) { e.Numbers = append(e.Numbers, event.Number{Name: name, Value: v}) }
	millis := func(d time.Duration) float64 { return float64(d.Milliseconds()) }
	switch x.State {
	case breaker.ForcedOpen:
		e.Type, e.Message = event.Opened, "its configuration says so"
		return e
	case breaker.Open:
		c := &x.Config
		e.Type = event.Opened
		e.Message = fmt.Sprintf("%d of %d requests failed, %d %%, and the threshold is %d %%", x.Errors, x.Requests, x.ErrorPercent, c.ErrorThresholdPercent)
		add("requests", float64(x.Requests))
		add("errors", float64(x.Errors))
		add("errorPercent", float64(x.ErrorPercent))
		add("errorThresholdPercent", float64(c.ErrorThresholdPercent))
		add("requestVolumeThreshold", float64(c.RequestVolumeThreshold))
		if c.SlowDuration > 0 {
			if x.ErrorPercent < c.ErrorThresholdPercent {
				e.Message = fmt.Sprintf("%d of %d requests were slower than %v, %d %%, and the threshold is %d %%", x.Slow, x.Requests, c.SlowDuration, x.SlowPercent, c.SlowPercent)
			}
			add("slow", float64(x.Slow))
			add("slowPercent", float64(x.SlowPercent))
			add("slowThresholdPercent", float64(c.SlowPercent))
		}
		if c.WindowCalls > 0 {
			add("windowCalls", float64(c.WindowCalls))
		} else {
			add("windowMillis", millis(c.Window))
		}
		add("openings", float64(x.Openings))
		add("testInMillis", millis(x.TestIn))
		return e
	case breaker.HalfOpen:
		e.Type, e.Message = event.HalfOpen, "a request may test it"
	case breaker.Recovering:
		e.Type, e.Message = event.Closed, fmt.Sprintf("its test succeeded; all requests pass in %v, a growing share till then", x.Config.Recovery)
	default:
		e.Type, e.Message = event.Closed, "its test succeeded"
		if x.Config.Recovery > 0 {
			e.Message = "it has recovered: all requests pass"
		}
	}
	add("openMillis", millis(x.After))
	add("tests", float64(x.Tests))
	add("failedTests", float64(x.FailedTests))
	return e
}
