// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// defaultThresholds are Envoy's.
func defaultThresholds() resource.Thresholds {
	return resource.Thresholds{
		MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3,
		BudgetPercent: 20, MinRetries: 3,
	}
}

func (j *job) limits(m *clusterv3.CircuitBreakers, c *resource.Cluster, p *place) {
	c.Default, c.High = defaultThresholds(), defaultThresholds()
	var given [2]bool
	for i, t := range m.GetThresholds() {
		at := p.item("thresholds", i)
		to, n := j.priority(c, t, at)
		if to == nil {
			continue
		}
		if given[n] {
			j.fail(at.field("priority"), "%s is listed twice", t.GetPriority())
			continue
		}
		given[n] = true
		j.thresholds(t, to, at)
	}
	var perHost [2]bool
	for i, t := range m.GetPerHostThresholds() {
		at := p.item("per_host_thresholds", i)
		to, n := j.priority(c, t, at)
		if to == nil {
			continue
		}
		if perHost[n] {
			j.fail(at.field("priority"), "%s is listed twice", t.GetPriority())
			continue
		}
		perHost[n] = true
		to.MaxConnsPerHost = t.GetMaxConnections().GetValue()
		j.only(t.GetMaxPendingRequests() != nil || t.GetMaxRequests() != nil || t.GetMaxRetries() != nil || t.GetRetryBudget() != nil || t.GetTrackRemaining(),
			at, "only max_connections can be limited per host")
	}
}

func (j *job) priority(c *resource.Cluster, t *clusterv3.CircuitBreakers_Thresholds, p *place) (*resource.Thresholds, int) {
	switch t.GetPriority() {
	case corev3.RoutingPriority_DEFAULT:
		return &c.Default, 0
	case corev3.RoutingPriority_HIGH:
		return &c.High, 1
	}
	j.fail(p.field("priority"), "unknown priority %d", t.GetPriority())
	return nil, 0
}

func (j *job) thresholds(t *clusterv3.CircuitBreakers_Thresholds, to *resource.Thresholds, p *place) {
	to.MaxConnections = uint32Or(t.GetMaxConnections(), to.MaxConnections)
	to.MaxPending = uint32Or(t.GetMaxPendingRequests(), to.MaxPending)
	to.MaxRequests = uint32Or(t.GetMaxRequests(), to.MaxRequests)
	to.MaxRetries = uint32Or(t.GetMaxRetries(), to.MaxRetries)
	to.TrackRemaining = t.GetTrackRemaining()
	if b := t.GetRetryBudget(); b != nil {
		to.RetryBudget = true
		to.BudgetPercent = j.percent(b.GetBudgetPercent(), to.BudgetPercent, p.field("retry_budget").field("budget_percent"))
		to.MinRetries = uint32Or(b.GetMinRetryConcurrency(), to.MinRetries)
	}
}

// outlier reads outlier detection with Envoy's defaults. A count of 0 turns a
// detector off: it is never reached.
func (j *job) outlier(m *clusterv3.OutlierDetection, p *place) *resource.OutlierDetection {
	if m == nil {
		return nil
	}
	for name, v := range map[string]uint32{
		"enforcing_success_rate":                    m.GetEnforcingSuccessRate().GetValue(),
		"enforcing_local_origin_success_rate":       m.GetEnforcingLocalOriginSuccessRate().GetValue(),
		"enforcing_failure_percentage":              m.GetEnforcingFailurePercentage().GetValue(),
		"enforcing_failure_percentage_local_origin": m.GetEnforcingFailurePercentageLocalOrigin().GetValue(),
	} {
		j.only(v > 0, p.field(name), notSupported+"; leave it out or set it to 0")
	}
	o := &resource.OutlierDetection{
		Consecutive5xx:     uint32Or(m.GetConsecutive_5Xx(), 5),
		Enforcing5xx:       uint32Or(m.GetEnforcingConsecutive_5Xx(), 100),
		ConsecutiveGateway: uint32Or(m.GetConsecutiveGatewayFailure(), 5),
		EnforcingGateway:   uint32Or(m.GetEnforcingConsecutiveGatewayFailure(), 0),
		ConsecutiveLocal:   uint32Or(m.GetConsecutiveLocalOriginFailure(), 5),
		EnforcingLocal:     uint32Or(m.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		SplitLocal:         m.GetSplitExternalLocalOriginErrors(),
		Interval:           j.duration(m.GetInterval(), 10*time.Second, p.field("interval")),
		BaseEjection:       j.duration(m.GetBaseEjectionTime(), 30*time.Second, p.field("base_ejection_time")),
		MaxEjectionPercent: uint32Or(m.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:     m.GetAlwaysEjectOneHost().GetValue(),
		Jitter:             j.duration(m.GetMaxEjectionTimeJitter(), 0, p.field("max_ejection_time_jitter")),
	}
	// Envoy: max_ejection_time is 300 s or the base, whichever is larger.
	o.MaxEjection = j.duration(m.GetMaxEjectionTime(), max(300*time.Second, o.BaseEjection), p.field("max_ejection_time"))
	j.only(o.MaxEjection < o.BaseEjection, p.field("max_ejection_time"), "must not be less than base_ejection_time")
	return o
}
