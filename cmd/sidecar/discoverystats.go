// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// maxVersionText bounds what is shown of a version, in bytes: servers choose them.
const maxVersionText = 512

// subscriptionSamples appends Envoy's statistics of a subscription, of xDS resources.
func subscriptionSamples(out []metrics.Sample, s *client.Subscription) []metrics.Sample {
	scope := subscriptionScope(s)
	if scope == nil {
		return out
	}
	add := func(kind metrics.Kind, name, help string, value uint64) {
		out = append(out, metrics.Sample{Scope: scope, Name: name, Help: help, Kind: kind, Value: value})
	}
	add(metrics.KindCounter, "update_attempt", "Times that the resources were asked for, or that this failed.", s.Attempts)
	add(metrics.KindCounter, "update_success", "Responses that were taken.", s.Accepted)
	add(metrics.KindCounter, "update_rejected", "Responses that were refused (NACK).", s.Rejected)
	add(metrics.KindCounter, "update_failure", "Times that the management server was lost or not reached, or a file not read.", s.Failures)
	add(metrics.KindCounter, "init_fetch_timeout", "Times that the first response did not come in time.", s.Timeouts)
	add(metrics.KindGauge, "update_time", "When a response was taken last, in milliseconds since 1970.", millis(s.Updated))
	version := uint64(0)
	if s.Version != "" {
		version = lb.Hash(s.Version)
	}
	add(metrics.KindGauge, "version", "Hash of the version taken last.", version)
	out = append(out, metrics.Sample{Scope: scope, Name: "version_text", Help: "The version taken last.", Kind: metrics.KindText, Text: s.Version[:min(len(s.Version), maxVersionText)]})
	reloads := func() {
		add(metrics.KindCounter, "config_reload", "Responses that changed something.", s.Changed)
		add(metrics.KindGauge, "config_reload_time_ms", "When a response changed something last, in milliseconds since 1970.", millis(s.Reloaded))
	}
	switch s.Kind {
	case decode.Endpoints:
		add(metrics.KindCounter, "update_empty", "Responses without endpoints for the cluster, which keeps those that it has.", s.Empty)
		add(metrics.KindCounter, "update_no_rebuild", "Responses that changed nothing.", s.Accepted-s.Changed-s.Empty)
		warming := uint64(0)
		if s.Warming {
			warming = 1
		}
		// What has a lease (endpoint_stale_after) is refused, and no assignment is kept to be used again.
		add(metrics.KindCounter, "assignment_timeout_received", "Assignments with a time after which they are stale: none is taken.", 0)
		add(metrics.KindCounter, "assignment_stale", "Assignments that went stale: none does.", 0)
		add(metrics.KindCounter, "assignment_use_cached", "Times that a kept assignment was used as none came: none is kept for that.", 0)
		add(metrics.KindGauge, "warming_state", "1 while the latest version of the cluster waits for what it needs.", warming)
	case decode.Route:
		reloads()
		add(metrics.KindCounter, "update_empty", "Responses without the route configuration, which stays as it is.", s.Empty)
	case decode.ScopedRoute:
		reloads()
		add(metrics.KindCounter, "update_empty", "Responses that were not about scopes at all: none.", s.Empty)
		add(metrics.KindGauge, "all_scopes", "Scopes that are known.", uint64(s.Scopes))
		add(metrics.KindGauge, "active_scopes", "Scopes that are in use.", uint64(s.ActiveScopes))
	case decode.Cluster, decode.VirtualHost:
		reloads()
	}
	return out
}

// statNames is what Envoy makes of names in those of stats.
var statNames = strings.NewReplacer("://", "_", ":/", "_", ":", "_")

func statName(name string) string {
	if !strings.Contains(name, ":") {
		return name
	}
	return statNames.Replace(name)
}

// subscriptionScope is where Envoy shows a subscription, nil for nowhere.
func subscriptionScope(s *client.Subscription) *metrics.Scope {
	user, name := statName(s.User), statName(s.Name)
	manager := func(kind, tag string) *metrics.Scope {
		return metrics.NewScope("http."+user+"."+kind+"."+name, "http."+kind,
			metrics.Tag{Name: tag, Value: name}, metrics.Tag{Name: "envoy_http_conn_manager_prefix", Value: user})
	}
	switch s.Kind {
	case decode.Cluster:
		return metrics.NewScope("cluster_manager.cds", "cluster_manager.cds")
	case decode.Listener:
		return metrics.NewScope("listener_manager.lds", "listener_manager.lds")
	case decode.Endpoints:
		return metrics.NewScope("cluster."+user, "cluster", metrics.Tag{Name: "envoy_cluster_name", Value: user})
	case decode.Route:
		return manager("rds", "envoy_rds_route_config")
	case decode.ScopedRoute:
		return manager("scoped_rds", "envoy_scoped_rds_config")
	case decode.VirtualHost:
		return manager("vhds", "envoy_vhds_route_config")
	case decode.Secret:
		return metrics.NewScope("sds."+name, "sds", metrics.Tag{Name: "envoy_xds_resource_name", Value: name})
	case decode.Extension:
		return metrics.NewScope("extension_config_discovery.http_filter."+name, "extension_config_discovery.http_filter."+name)
	case decode.Runtime:
		return metrics.NewScope("runtime", "runtime")
	}
	return nil
}

// millis is 0 for the zero time.
func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixMilli(), 0))
}
