// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"slices"
	"strings"

	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	healthFilterURL = typeURLPrefix + "envoy.extensions.filters.http.health_check.v3.HealthCheck"
	maxMinHealthy   = 100
)

// healthFilter reads the filter that answers health checks.
func (j *job) healthFilter(m *healthcheckv3.HealthCheck, p *place) *resource.HealthFilter {
	h := &resource.HealthFilter{
		Headers: j.headerMatches(m.GetHeaders(), p, "headers"), PassThrough: m.GetPassThroughMode().GetValue(),
		CacheTime: j.duration(m.GetCacheTime(), 0, p.field("cache_time")),
	}
	j.only(h.CacheTime > 0 && !h.PassThrough, p.field("cache_time"), "needs pass_through_mode: only an upstream's answer is kept")
	j.only(h.PassThrough && len(m.GetClusterMinHealthyPercentages()) > 0, p.field("cluster_min_healthy_percentages"), "must not be set with pass_through_mode: the upstream answers")
	j.only(len(m.GetClusterMinHealthyPercentages()) > maxMinHealthy, p.field("cluster_min_healthy_percentages"), "has more than 100 entries")
	for name, v := range m.GetClusterMinHealthyPercentages() {
		percent := j.percent(v, 0, p.entry("cluster_min_healthy_percentages", name))
		h.MinHealthy = append(h.MinHealthy, resource.MinHealthy{Cluster: j.intern(name), Percent: uint32(percent)}) // Envoy cuts decimals off
	}
	slices.SortFunc(h.MinHealthy, func(a, b resource.MinHealthy) int { return strings.Compare(a.Cluster, b.Cluster) })
	return h
}
