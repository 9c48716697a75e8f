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

// typed is a cluster with a typed policy of Envoy's own.
func typed(name, message, settings string) string {
	return `{name: a, ` + eds + `, load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.` +
		name + `.v3.` + message + settings + `}}}]}}`
}

func TestBalancingIsRead(t *testing.T) {
	slow := resource.SlowStart{Window: 30 * time.Second, Aggression: 2, MinWeightPercent: 5}
	const slowText = `slow_start_config: {slow_start_window: 30s, aggression: {default_value: 2}, min_weight_percent: {value: 5}}`
	usual := resource.LoadBalancing{
		Policy: resource.RoundRobin, ChoiceCount: 2, ActiveRequestBias: 1,
		MinRingSize: 1024, MaxRingSize: 8 << 20, TableSize: 65537, PanicThreshold: 50,
	}
	for _, c := range []struct {
		name string
		in   string
		want func(*resource.LoadBalancing)
	}{
		{"nothing", `{name: a, ` + eds + `}`, func(*resource.LoadBalancing) {}},
		{"slow start of round robin", `{name: a, ` + eds + `, round_robin_lb_config: {` + slowText + `}}`,
			func(l *resource.LoadBalancing) { l.SlowStart = slow }},
		{"slow start with Envoy's defaults", `{name: a, ` + eds + `, round_robin_lb_config: {slow_start_config: {slow_start_window: 1.0009s}}}`,
			func(l *resource.LoadBalancing) {
				l.SlowStart = resource.SlowStart{Window: time.Second, Aggression: 1, MinWeightPercent: 10}
			}},
		{"slow start of least request", `{name: a, ` + eds + `, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 3, ` + slowText + `}}`,
			func(l *resource.LoadBalancing) {
				l.Policy, l.ChoiceCount, l.SlowStart = resource.LeastRequest, 3, slow
			}},
		{"slow start of the typed round robin", typed("round_robin", "RoundRobin", `, `+slowText),
			func(l *resource.LoadBalancing) { l.SlowStart = slow }},
		{"slow start of the typed least request", typed("least_request", "LeastRequest", `, selection_method: FULL_SCAN, `+slowText),
			func(l *resource.LoadBalancing) {
				l.Policy, l.FullScan, l.SlowStart = resource.LeastRequest, true, slow
			}},
		{"peak EWMA", typed("peak_ewma", "PeakEwma", ``), func(l *resource.LoadBalancing) {
			l.Policy = resource.PeakEWMA
			l.PeakEWMA = resource.LatencyEstimate{Decay: 10 * time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: 1e6}
		}},
		{"peak EWMA of contrib, as a struct", `{name: a, ` + eds + `, load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {
			"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma,
			value: {decay_time: 5s, defaultRtt: 0.03s, penalty_value: 7, max_samples_per_host: 9, aggregation_interval: 1s}}}}]}}`, func(l *resource.LoadBalancing) {
			l.Policy = resource.PeakEWMA
			l.PeakEWMA = resource.LatencyEstimate{Decay: 5 * time.Second, DefaultRTT: 30 * time.Millisecond, Penalty: 7}
		}},
		{"weights by load reports", typed("client_side_weighted_round_robin", "ClientSideWeightedRoundRobin", ``), func(l *resource.LoadBalancing) {
			l.Policy = resource.ClientWeighted
			l.ClientWeights = &resource.ClientWeights{Blackout: 10 * time.Second, Expiration: 3 * time.Minute, Update: time.Second, ErrorPenalty: 1}
		}},
		{"weights by load reports with settings", typed("client_side_weighted_round_robin", "ClientSideWeightedRoundRobin", `, blackout_period: 0s, oob_reporting_period: 1s,
			weight_expiration_period: 60s, weight_update_period: 0.05s, error_utilization_penalty: 0, metric_names_for_computing_utilization: [named_metrics.queue], `+slowText),
			func(l *resource.LoadBalancing) {
				l.Policy, l.SlowStart = resource.ClientWeighted, slow
				l.ClientWeights = &resource.ClientWeights{Expiration: time.Minute, Update: 100 * time.Millisecond, Metrics: []string{"named_metrics.queue"}}
			}},
		{"a bias and an aggression of the runtime", typed("least_request", "LeastRequest", `, active_request_bias: {default_value: 2, runtime_key: b}, slow_start_config: {slow_start_window: 1s, aggression: {default_value: 1.5, runtime_key: k}}`),
			func(l *resource.LoadBalancing) {
				l.Policy, l.ActiveRequestBias, l.BiasKey = resource.LeastRequest, 2, "b"
				l.SlowStart = resource.SlowStart{Window: time.Second, Aggression: 1.5, AggressionKey: "k", MinWeightPercent: 10}
			}},
		{"the first", typed("pick_first", "PickFirst", `, shuffle_address_list: true`),
			func(l *resource.LoadBalancing) { l.Policy, l.ShuffleAddresses = resource.PickFirst, true }},
		{"bounded loads", `{name: a, ` + eds + `, lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true, hash_balance_factor: 120}}}`,
			func(l *resource.LoadBalancing) {
				l.Policy, l.UseHostname, l.HashBalanceFactor = resource.Maglev, true, 120
			}},
		{"bounded loads of the typed maglev", typed("maglev", "Maglev", `, consistent_hashing_lb_config: {hash_balance_factor: 150}`),
			func(l *resource.LoadBalancing) { l.Policy, l.HashBalanceFactor = resource.Maglev, 150 }},
		{"bounded loads of the typed ring", typed("ring_hash", "RingHash", `, consistent_hashing_lb_config: {hash_balance_factor: 100}`),
			func(l *resource.LoadBalancing) { l.Policy, l.HashBalanceFactor = resource.RingHash, 100 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := usual
			c.want(&want)
			if got := must[resource.Cluster](t, decode.Cluster, c.in).LB; !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestBadBalancingIsRefusedByFieldPath(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a negative window", `{name: a, ` + eds + `, round_robin_lb_config: {slow_start_config: {slow_start_window: -1s}}}`,
			`round_robin_lb_config.slow_start_config.slow_start_window: must be between`},
		{"no aggression", typed("round_robin", "RoundRobin", `, slow_start_config: {slow_start_window: 1s, aggression: {default_value: 0}}`),
			`slow_start_config.aggression.default_value: must be above 0 and at most 100`},
		{"more than all", typed("least_request", "LeastRequest", `, slow_start_config: {slow_start_window: 1s, min_weight_percent: {value: 101}}`),
			`slow_start_config.min_weight_percent.value: value must be inside range [0, 100]`},
		{"no decay", typed("peak_ewma", "PeakEwma", `, decay_time: 0s`), `typed_config.decay_time: must be above 0s`},
		{"no penalty", typed("peak_ewma", "PeakEwma", `, penalty_value: 0`), `typed_config.penalty_value: must be above 0`},
		{"reports out of band", typed("client_side_weighted_round_robin", "ClientSideWeightedRoundRobin", `, enable_oob_load_report: true`),
			`typed_config.enable_oob_load_report: not supported by this version`},
		{"a negative penalty", typed("client_side_weighted_round_robin", "ClientSideWeightedRoundRobin", `, error_utilization_penalty: -1`),
			`typed_config.error_utilization_penalty: `},
		{"less than its share", typed("maglev", "Maglev", `, consistent_hashing_lb_config: {hash_balance_factor: 99}`),
			`consistent_hashing_lb_config.hash_balance_factor: value must be greater than or equal to 100`},
		{"less than its share of the cluster's", `{name: a, ` + eds + `, common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 1}}}`,
			`common_lb_config.consistent_hashing_lb_config.hash_balance_factor: value must be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := from(t, decode.Cluster, c.in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
