// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"cmp"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	defaultCheckInterval = 5 * time.Second
	defaultCheckTimeout  = time.Second
	// Callers by the hundred must not check in step.
	checkJitterPercent = 10
	// Envoy's default of no_traffic_interval.
	checkWithoutTraffic = time.Minute
)

// healthChecks are the checks of a policy that callers make of the instances: of those
// that no sidecar checks, see checkedBySidecar.
func healthChecks(service string, h *mesh.HealthCheck) []*corev3.HealthCheck {
	if h == nil {
		return nil
	}
	c := healthCheck(service, h)
	c.IntervalJitterPercent = checkJitterPercent
	if every := c.GetInterval().AsDuration(); every > checkWithoutTraffic {
		c.NoTrafficInterval = c.Interval
	}
	return []*corev3.HealthCheck{c}
}

// appHealthChecks are the same that a sidecar makes of the application beside it, for the
// registry: whether there is traffic or not.
func appHealthChecks(service string, h *mesh.HealthCheck) []*corev3.HealthCheck {
	if h == nil {
		return nil
	}
	c := healthCheck(service, h)
	c.NoTrafficInterval = c.Interval
	return []*corev3.HealthCheck{c}
}

func healthCheck(service string, h *mesh.HealthCheck) *corev3.HealthCheck {
	c := &corev3.HealthCheck{
		Interval:           seconds(or(h.Interval, mesh.Duration(defaultCheckInterval)).Std()),
		Timeout:            seconds(or(h.Timeout, mesh.Duration(defaultCheckTimeout)).Std()),
		UnhealthyThreshold: u32(or(h.UnhealthyThreshold, 3)),
		HealthyThreshold:   u32(or(h.HealthyThreshold, 2)),
	}
	switch {
	case h.HTTP != nil:
		check := &corev3.HealthCheck_HttpHealthCheck{Path: h.HTTP.Path, Host: cmp.Or(h.HTTP.Host, service)}
		for _, s := range h.HTTP.Statuses {
			check.ExpectedStatuses = append(check.ExpectedStatuses, &typev3.Int64Range{Start: int64(s.Min), End: int64(s.Max) + 1})
		}
		c.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: check}
	case h.GRPC != nil:
		c.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: h.GRPC.Service, Authority: service}}
	default:
		c.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	}
	return c
}

// checkedBySidecar keeps callers from checking an instance whose own sidecar does: it
// tells the registry, and so all callers.
func checkedBySidecar(e *endpointv3.LbEndpoint, in *mesh.Instance) {
	if in.Node != "" {
		e.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
}
