// SPDX-License-Identifier: Apache-2.0

package decode

import (
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
