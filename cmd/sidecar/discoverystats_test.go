// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

func TestSubscriptionsHaveEnvoysNames(t *testing.T) {
	of := func(kind decode.Kind, user, name string) *client.Subscription {
		return &client.Subscription{
			Kind: kind, User: user, Name: name, Attempts: 12, Accepted: 7, Rejected: 2, Failures: 1, Timeouts: 1, Empty: 3, Changed: 2, Version: "v7",
			Updated: time.UnixMilli(1500), Reloaded: time.UnixMilli(1400), Warming: true, Scopes: 5, ActiveScopes: 4,
		}
	}
	common := map[string]uint64{
		"update_attempt": 12, "update_success": 7, "update_rejected": 2, "update_failure": 1, "init_fetch_timeout": 1, "update_time": 1500, "version": lb.Hash("v7"), "version_text v7": 0,
	}
	reloads := map[string]uint64{"config_reload": 2, "config_reload_time_ms": 1400}
	for _, tt := range []struct {
		s      *client.Subscription
		prefix string
		more   []map[string]uint64
	}{
		{of(decode.Cluster, "", ""), "cluster_manager.cds.", []map[string]uint64{reloads}},
		{of(decode.Listener, "", ""), "listener_manager.lds.", nil},
		{of(decode.Endpoints, "a:b", ""), "cluster.a_b.", []map[string]uint64{{"update_empty": 3, "update_no_rebuild": 2, "warming_state": 1, "assignment_stale": 0, "assignment_timeout_received": 0, "assignment_use_cached": 0}}},
		{of(decode.Route, "in:1", "r:1"), "http.in_1.rds.r_1.", []map[string]uint64{reloads, {"update_empty": 3}}},
		{of(decode.ScopedRoute, "in", "s"), "http.in.scoped_rds.s.", []map[string]uint64{reloads, {"update_empty": 3, "all_scopes": 5, "active_scopes": 4}}},
		{of(decode.VirtualHost, "in", "r"), "http.in.vhds.r.", []map[string]uint64{reloads}},
		{of(decode.Secret, "", "spiffe://a:b"), "sds.spiffe_a_b.", nil},
		{of(decode.Extension, "", "of.calls"), "extension_config_discovery.http_filter.of.calls.", nil},
		{of(decode.Runtime, "", "layer"), "runtime.", nil},
	} {
		got, want := map[string]uint64{}, map[string]uint64{}
		for _, s := range subscriptionSamples([]metrics.Sample(nil), tt.s) {
			got[strings.TrimSpace(s.FullName()+" "+s.Text)] = s.Value
		}
		for _, list := range append(tt.more, common) {
			for name, n := range list {
				want[tt.prefix+name] = n
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tt.prefix, got, want)
		}
	}
}
