// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/dnscluster"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// lookups are those of clusters whose endpoints are found by DNS.
type lookups struct {
	resolver *dnscluster.Resolver
	counts   dns.ClientCounts
}

// startResolver makes what looks names up for clusters; it runs with the xDS client.
func (d *plane) startResolver() {
	d.resolver = dnscluster.New(dnscluster.Config{
		Lookup: dnscluster.LookupBy(new(dns.Host), &d.lookups.counts), Log: d.env.Logger.With("part", "dns"),
		Publish: func(found map[string]*resource.Assignment) { d.client.Assign(found) },
	})
}

// samples are the counts of lookups, under Envoy's names.
func (l *lookups) samples() []metrics.Sample {
	if l.resolver == nil {
		return nil
	}
	var out []metrics.Sample
	for _, c := range l.resolver.Stats() {
		name := strings.ReplaceAll(c.Name, ":", "_")
		scope := metrics.NewScope("cluster."+name, "cluster", metrics.Tag{Name: "envoy_cluster_name", Value: name})
		for _, s := range []struct {
			name, help string
			value      uint64
		}{
			{"update_attempt", "Lookups of the cluster's names.", c.Counts.Attempt},
			{"update_success", "Lookups that were answered, of STRICT_DNS be it with nothing.", c.Counts.Success},
			{"update_failure", "Lookups that were not answered: the endpoints stay.", c.Counts.Failure},
			{"update_no_rebuild", "Answers that changed nothing.", c.Counts.NoRebuild},
		} {
			out = append(out, metrics.Sample{Scope: scope, Name: s.name, Help: s.help, Kind: metrics.KindCounter, Value: s.value})
		}
		own := metrics.NewScope("outrigger.cluster."+name, "outrigger.cluster", metrics.Tag{Name: "envoy_cluster_name", Value: name})
		out = append(out, metrics.Sample{
			Scope: own, Name: "dns_empty", Help: "Answers that there is no such name, or none with an address.",
			Kind: metrics.KindCounter, Value: c.Counts.Empty,
		})
	}
	add := func(kind metrics.Kind, name, help string, v uint64) {
		out = append(out, metrics.Sample{Name: "dns.cares." + name, Help: help, Kind: kind, Value: v})
	}
	add(metrics.KindCounter, "resolve_total", "Lookups of names for clusters.", l.counts.Lookups.Load())
	add(metrics.KindGauge, "pending_resolutions", "Lookups under way.", uint64(max(l.counts.Pending.Load(), 0)))
	add(metrics.KindCounter, "not_found", "Lookups of names that there are not.", l.counts.NotFound.Load())
	add(metrics.KindCounter, "timeouts", "Lookups that no resolver answered in time.", l.counts.Timeouts.Load())
	add(metrics.KindCounter, "get_addr_failure", "Lookups that failed.", l.counts.Failures.Load())
	return out
}
