// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/health"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// newHealth makes the checks of the process. Connections that they keep are a part of
// what may be dialled, where that is limited.
func (p *Proxy) newHealth() *health.Checks {
	c := health.Config{Log: p.log, Changed: p.tellHealth}
	if n := p.options.Dialling; n > 0 {
		c.Concurrent, c.Kept = min(health.DefaultConcurrent, max(n/8, 1)), min(health.DefaultKept, max(n/8, 1))
	}
	if p.options.AccessLogs != nil {
		c.Events = p.options.AccessLogs.Lines
	}
	return health.New(c)
}

// prepareHealth gives the spec of a cluster the health checks that follow those of the
// one before; checkHealth begins them once the spec is in service.
func (p *Proxy) prepareHealth(c *cluster, s *clusterSpec) {
	switch {
	case s.res.Health == nil && s.health != nil:
		s.health.Update(nil) // takes verdicts back
		s.health.Close()
		s.health = nil
	case s.res.Health != nil && s.health == nil:
		s.health = p.health.Cluster(c.name, s.lb, health.Hooks{
			Secure: c.secureCheck,
			Used:   c.used.Load,
			Failed: func(h *lb.Host) { p.hostFailed(c, h) },
			Bind:   c.bind,
		})
	}
}

func (s *clusterSpec) checkHealth() {
	if s.health != nil {
		s.health.Update(s.res.Health)
	}
}

// tickHealth takes notice of what loops and checks have found of each other's hosts.
func (s *clusterSpec) tickHealth(now int64) {
	if s.health == nil {
		return
	}
	s.health.Tick(func(h *lb.Host) {
		if s.outlier != nil {
			s.outlier.HealthCheckSucceeded(h, now)
		}
	})
}

func (c *cluster) bind() netip.Addr {
	if s := c.spec.Load(); s != nil {
		return s.bind
	}
	return netip.Addr{}
}

// secureCheck is what a health check's connection is made with: that of requests, but
// that the check may choose in place of the endpoint's metadata.
func (c *cluster) secureCheck(h *lb.Host, criteria map[string]string) (*mtls.ClientContext, error) {
	s := c.spec.Load()
	if s == nil {
		return nil, mtls.Failure{Reason: mtls.NoContext}
	}
	t := c.transportOf(h, criteria)
	switch {
	case t.res == nil && (t != &plainTransport || !securedCluster(s.res)):
		return nil, nil
	case t.context == nil:
		return nil, mtls.Failure{Reason: mtls.NoContext}
	}
	return t.context, nil
}

// hostFailed ends what a host that fails its health checks is not to keep: idle
// connections always, TCP connections where the cluster says so. Off the loops.
func (p *Proxy) hostFailed(c *cluster, h *lb.Host) {
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() {
			if on := w.clusters[c]; on != nil && !h.Healthy() {
				on.hostFailed(h)
			}
		})
	}
}

// detailsUnhealthy is what access logs say of connections that ended with their
// endpoint's health.
const detailsUnhealthy = "upstream_host_failed_health_check"

func (on *clusterOn) hostFailed(h *lb.Host) {
	if p := on.pools[0][h]; p != nil {
		for len(p.idle) > 0 {
			p.drop(p.idle[len(p.idle)-1])
		}
	}
	if !on.spec.res.CloseOnHealthFailure {
		return
	}
	for t := on.w.tunnels; t != nil; {
		next := t.next
		if t.on == on && t.host == h && t.open {
			t.rec.CloseDetails = detailsUnhealthy
			t.rec.Flags |= record.LR
			t.down.conn.Close(nil)
		}
		t = next
	}
}

// hearHealth looks for what a response says of its endpoint's health checks.
func (a *attempt) hearHealth(h *codec.Header) {
	if s := a.on.spec.health; s != nil && h.Index("x-envoy-immediate-health-check-fail", 0) >= 0 {
		s.FailNow(a.host)
	}
}

// FailHealthChecks makes health checks of this proxy fail, or pass again; see
// pkg/filter/healthcheck. Any goroutine may call it.
func (p *Proxy) FailHealthChecks(on bool) { p.failing.Store(on) }

// members counts a cluster's endpoints for filters.
func (w *worker) members(name string) (total, usable int, ok bool) {
	c := (*w.byName.Load())[name]
	if c == nil {
		return 0, 0, false
	}
	s := c.spec.Load()
	if s == nil {
		return 0, 0, false
	}
	v := s.lb.View()
	return v.Len(), v.HealthyLen() + v.DegradedLen(), true
}

// ObjectionTo says why an endpoint of a cluster fails its health checks, the first that
// does; nil where none does, or none are made. Any goroutine but a loop may call it.
func (p *Proxy) ObjectionTo(cluster string) error {
	for _, c := range *p.clusters.Load() {
		s := c.spec.Load()
		if c.name != cluster || s == nil || s.health == nil {
			continue
		}
		for _, h := range s.lb.View().Hosts() {
			if h.Failed() {
				return errors.New(s.health.Explain(h))
			}
		}
	}
	return nil
}

// healthStats are the numbers of a cluster's health checks under Envoy's names.
func (s *sampler) healthStats(spec *clusterSpec) {
	if spec.health == nil {
		return
	}
	add := func(name, help string, kind metrics.Kind, v uint64) {
		if own := spec.res.Health.Name; own != "" {
			name = "health_check.name." + own + strings.TrimPrefix(name, "health_check")
		}
		s.add(name, help, kind, v)
	}
	st := spec.health.Stats()
	add("health_check.attempt", "Health checks begun.", counter, st.Attempts)
	add("health_check.success", "Health checks passed.", counter, st.Successes)
	add("health_check.failure", "Health checks failed, and responses to traffic that said so.", counter, st.Failures)
	add("health_check.passive_failure", "Responses to traffic that said that health checks fail.", counter, st.Passive)
	add("health_check.network_failure", "Health checks that found no answer.", counter, st.Network)
	add("health_check.verify_cluster", "Health checks that compared the service's name.", counter, st.VerifiedCluster)
	add("health_check.healthy", "Endpoints that pass their health checks.", gauge, uint64(max(st.Healthy, 0)))
	add("health_check.degraded", "Endpoints whose health checks say that they are degraded.", gauge, uint64(max(st.Degraded, 0)))
}

// lateChecks is of our own.
func (s *sampler) lateChecks(spec *clusterSpec) {
	if spec.health != nil {
		s.add("health_check_late_total", "Health checks begun more than a second late, as too many were under way.", counter, spec.health.Stats().Late)
	}
}
