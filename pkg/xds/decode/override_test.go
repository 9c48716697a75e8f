// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/router"
	"github.com/outrigger-mesh/outrigger/pkg/filter/statefulsession"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestTheStatusOfNamedEndpointsIsRead(t *testing.T) {
	for text, want := range map[string]resource.StatusSet{
		"{}":                         0,
		"{override_host_status: {}}": resource.NoStatus,
		"{override_host_status: {statuses: [HEALTHY, DRAINING]}}": resource.NoStatus | resource.Healthy.Bit() | resource.Draining.Bit(),
	} {
		if got := must[resource.Cluster](t, decode.Cluster, "{name: a, "+eds+", common_lb_config: "+text+"}").LB.OverrideStatus; got != want {
			t.Errorf("%s: %08b, want %08b", text, got, want)
		}
	}
}

func TestStatefulSessionsAreReadOfFiles(t *testing.T) {
	const (
		session = `{"@type": ` + statefulsession.TypeURL + `, session_state: {name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {name: sid, ttl: 60s}}}}`
		off     = `{"@type": ` + statefulsession.RouteTypeURL + `, disabled: true}`
		header  = `{"@type": ` + statefulsession.RouteTypeURL + `, stateful_session: {strict: true, session_state: {name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState, name: x-s}}}}`
	)
	file := func(inChain, onRoute string) string {
		return `static_resources: {clusters: [{name: c, type: STATIC}], listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: [{name: h, typed_config: {
			"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x,
			route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {s: ` + onRoute + `}}]}]},
			http_filters: [{name: s, typed_config: ` + inChain + `}, {name: r, typed_config: {"@type": ` + router.TypeURL + `}}]}}]}]}]}`
	}
	reg := filter.NewRegistry(statefulsession.Spec(), statefulsession.RouteSpec(), router.Spec())
	for _, onRoute := range []string{off, header} {
		if _, err := decode.Bootstrap([]byte(file(session, onRoute)), "b.yaml", reg); err != nil {
			t.Error(err)
		}
	}
	for text, want := range map[string]string{
		file(off, off):         "http_filters[0].typed_config: is for typed_per_filter_config only",
		file(session, session): "has no settings by route",
		file(`{"@type": `+statefulsession.TypeURL+`, status_on_strict_destination_not_found: 99}`, off): "status_on_strict_destination_not_found: must be between 200 and 599",
	} {
		if _, err := decode.Bootstrap([]byte(text), "b.yaml", reg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestPoliciesAroundOthersAreRead(t *testing.T) {
	const prefix = "type.googleapis.com/envoy.extensions.load_balancing_policies."
	least := typedPolicies(prefix+"least_request.v3.LeastRequest", "choice_count: 3")
	random := typedPolicies(prefix+"random_subsetting.v3.RandomSubsetting", "subset_size: 7, child_policy: "+least)
	both := typedPolicies(prefix+"override_host.v3.OverrideHost", "override_host_sources: [{header: X-To}, {header: x-more}], fallback_policy: "+random)
	lb := must[resource.Cluster](t, decode.Cluster, "{name: a, "+eds+", load_balancing_policy: "+both+"}").LB
	if lb.Policy != resource.LeastRequest || lb.ChoiceCount != 3 || lb.SubsetSize != 7 || lb.Named == nil || strings.Join(lb.Named.Headers, " ") != "x-to x-more" {
		t.Errorf("%+v, %+v", lb, lb.Named)
	}
	for text, want := range map[string]string{
		typedPolicies(prefix+"random_subsetting.v3.RandomSubsetting", "subset_size: 0, child_policy: "+least):                                                                 "subset_size: value must be greater than 0",
		typedPolicies(prefix+"random_subsetting.v3.RandomSubsetting", "child_policy: "+least):                                                                                 "subset_size: is missing",
		typedPolicies(prefix+"random_subsetting.v3.RandomSubsetting", "subset_size: 3"):                                                                                       "child_policy: value is required",
		typedPolicies(prefix+"override_host.v3.OverrideHost", "override_host_sources: [{}], fallback_policy: "+least):                                                         "override_host_sources[0].header",
		typedPolicies(prefix+"override_host.v3.OverrideHost", "override_host_sources: [{metadata: {key: a, path: [{key: b}]}}], fallback_policy: "+least):                     "override_host_sources[0].metadata: not supported",
		typedPolicies(prefix+"override_host.v3.OverrideHost", "selected_host_key: {key: a, path: [{key: b}]}, override_host_sources: [{header: x}], fallback_policy: "+least): "selected_host_key: not supported",
		typedPolicies(prefix+"override_host.v3.OverrideHost", "override_host_sources: [{header: x}], fallback_policy: "+both):                                                 "must not be within another policy of its type",
	} {
		if _, err := from(t, decode.Cluster, "{name: a, "+eds+", load_balancing_policy: "+text+"}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
