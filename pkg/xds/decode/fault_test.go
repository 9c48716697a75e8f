// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const faultURL = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"

func TestFaultsAreRead(t *testing.T) {
	const (
		delays = "fault.http.delay.fixed_delay_percent"
		aborts = "fault.http.abort.abort_percent"
		active = "fault.http.max_active_faults"
		long   = "fault.http.delay.fixed_duration_ms"
		status = "fault.http.abort.http_status"
		code   = "fault.http.abort.grpc_status"
	)
	body := []byte("fault filter abort")
	for fields, want := range map[string]*resource.Fault{
		"delay: {fixed_delay: 0.2s, percentage: {numerator: 5, denominator: TEN_THOUSAND}}, max_active_faults: 3, upstream_cluster: c, downstream_nodes: [n]": {
			Delay:   &resource.FaultDelay{Percent: resource.Percent{RuntimeKey: delays, PerMillion: 500, Denominator: 10_000}, Fixed: 200 * time.Millisecond, DurationKey: long},
			Cluster: "c", Nodes: []string{"n"}, MaxActive: 3, MaxActiveKey: active,
		},
		"abort: {http_status: 503, percentage: {numerator: 50}}, headers: [{name: X-A, present_match: true}]": {
			Abort:   &resource.FaultAbort{Percent: resource.Percent{RuntimeKey: aborts, PerMillion: 500_000, Denominator: 100}, HTTP: 503, HTTPKey: status, GRPCKey: code, Body: body},
			Headers: []resource.HeaderMatch{{Name: "x-a", Kind: resource.HeaderPresent, Present: true}}, MaxActive: -1, MaxActiveKey: active,
		},
		"abort: {grpc_status: 14, response_body: sorry}, abort_percent_runtime: mine, max_active_faults_runtime: most": {
			Abort:     &resource.FaultAbort{Percent: resource.Percent{RuntimeKey: "mine", Denominator: 100}, GRPC: 14, IsGRPC: true, HTTPKey: status, GRPCKey: code, Body: []byte("sorry")},
			MaxActive: -1, MaxActiveKey: "most",
		},
		"abort: {header_abort: {}}, delay: {header_delay: {}}": {
			Delay:     &resource.FaultDelay{Percent: resource.Percent{RuntimeKey: delays, Denominator: 100}, DurationKey: long, ByHeader: true},
			Abort:     &resource.FaultAbort{Percent: resource.Percent{RuntimeKey: aborts, Denominator: 100}, ByHeader: true, HTTPKey: status, GRPCKey: code, Body: body},
			MaxActive: -1, MaxActiveKey: active,
		},
		"response_rate_limit: {fixed_limit: {limit_kbps: 64}, percentage: {numerator: 100}}": {
			Slow:      &resource.FaultRate{Percent: resource.Percent{RuntimeKey: "fault.http.rate_limit.response_percent", PerMillion: 1_000_000, Denominator: 100}, Fixed: 64},
			MaxActive: -1, MaxActiveKey: active,
		},
		"response_rate_limit: {header_limit: {}}, response_rate_limit_percent_runtime: mine": {
			Slow:      &resource.FaultRate{Percent: resource.Percent{RuntimeKey: "mine", Denominator: 100}, ByHeader: true},
			MaxActive: -1, MaxActiveKey: active,
		},
	} {
		l := must[resource.Listener](t, decode.Listener, rateListener(`{"@type": `+faultURL+`, `+fields+`}`))
		if got := l.FilterChains[0].HTTP.Filters[0].Config; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", fields, got, want)
		}
	}
}

func TestWrongFaultsAreRefusedByPath(t *testing.T) {
	at := "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config."
	for fields, want := range map[string]string{
		"abort: {http_status: 199}":                               at + "abort.http_status: ",
		"abort: {grpc_status: 17}":                                at + "abort.grpc_status: must be between 1 and 16",
		"abort: {http_status: 500, percentage: {numerator: 101}}": at + "abort.percentage.numerator: ",
		"response_rate_limit: {fixed_limit: {limit_kbps: 0}}":     at + "response_rate_limit.fixed_limit.limit_kbps: ",
		"filter_metadata: {a: b}":                                 at + "filter_metadata: not supported",
		"delay: {fixed_delay: 0s}":                                at + "delay.fixed_delay: ",
	} {
		_, err := from(t, decode.Listener, rateListener(`{"@type": `+faultURL+`, `+fields+`}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", fields, err, want)
		}
	}
}
