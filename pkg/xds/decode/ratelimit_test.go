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

const rateURL = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

// rateFilter is a listener with the filter configured so.
func rateListener(fields string) string {
	return hcmHead + rds + `
      http_filters:
      - name: rate
        typed_config: ` + fields + `
      - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`
}

func rateConfig(fields string) string { return `{"@type": ` + rateURL + `, ` + fields + `}` }

func TestLocalRateLimitsAreRead(t *testing.T) {
	const fields = `stat_prefix: rl, status: {code: 503}, token_bucket: {max_tokens: 10, tokens_per_fill: 5, fill_interval: 1s},
          filter_enabled: {default_value: {numerator: 50}, runtime_key: on}, filter_enforced: {default_value: {numerator: 100}},
          response_headers_to_add: [{header: {key: X-A, value: b}}], request_headers_to_add_when_not_enforced: [{header: {key: x-b, value: c}}],
          descriptors: [{entries: [{key: a, value: b}, {key: c}], token_bucket: {max_tokens: 1, fill_interval: 60s}, shadow_mode: true}],
          local_rate_limit_per_downstream_connection: true, enable_x_ratelimit_headers: DRAFT_VERSION_03, vh_rate_limits: INCLUDE, stage: 2,
          always_consume_default_token_bucket: false, rate_limited_as_resource_exhausted: true, max_dynamic_descriptors: 7, enable_retry_after_header: true`
	want := &resource.LocalRateLimit{
		StatPrefix: "rl", Status: 503, Bucket: &resource.TokenBucket{Max: 10, PerFill: 5, Interval: time.Second},
		Enabled:  resource.Percent{RuntimeKey: "on", PerMillion: 500_000, Denominator: 100},
		Enforced: resource.Percent{PerMillion: 1_000_000, Denominator: 100},
		Descriptors: []resource.RateDescriptor{{
			Entries: []resource.RateEntry{{Key: "a", Value: "b"}, {Key: "c"}},
			Bucket:  resource.TokenBucket{Max: 1, PerFill: 1, Interval: time.Minute}, Shadow: true,
		}},
		PerConnection: true, XRateLimit: true, VHRateLimits: resource.VHInclude, Stage: 2, ResourceExhausted: true, MaxDynamic: 7, RetryAfter: true,
	}
	for name, text := range map[string]string{
		"message":     rateConfig(fields),
		"TypedStruct": `{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: ` + rateURL + `, value: {` + fields + `}}`,
	} {
		l := must[resource.Listener](t, decode.Listener, rateListener(text))
		got := l.FilterChains[0].HTTP.Filters[0].Config.(*resource.LocalRateLimit)
		if got.ResponseAdd[0].Name != "x-a" || got.NotEnforcedAdd[0].Name != "x-b" {
			t.Errorf("%s: headers are %+v and %+v", name, got.ResponseAdd, got.NotEnforcedAdd)
		}
		got.ResponseAdd, got.NotEnforcedAdd = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestLocalRateLimitsDoNothingByDefault(t *testing.T) {
	l := must[resource.Listener](t, decode.Listener, rateListener(rateConfig("stat_prefix: rl, status: {code: 200}")))
	want := &resource.LocalRateLimit{
		StatPrefix: "rl", Status: 429, AlwaysDefault: true, MaxDynamic: 20,
		Enabled: resource.Percent{Denominator: 100}, Enforced: resource.Percent{Denominator: 100},
	}
	if got := l.FilterChains[0].HTTP.Filters[0].Config; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRateLimitActionsAreRead(t *testing.T) {
	rc := must[resource.RouteConfig](t, decode.Route, `
name: r
virtual_hosts:
- name: v
  domains: ["*"]
  rate_limits: [{actions: [{remote_address: {}}]}]
  typed_per_filter_config: {rate: {"@type": `+rateURL+`, stat_prefix: route, token_bucket: {max_tokens: 1, fill_interval: 1s}}}
  routes:
  - match: {prefix: /}
    route:
      cluster: c
      include_vh_rate_limits: true
      rate_limits:
      - stage: 3
        hits_addend: {number: 5}
        actions:
        - {source_cluster: {}}
        - {destination_cluster: {}}
        - {request_headers: {header_name: X-U, descriptor_key: u, skip_if_absent: true}}
        - {query_parameters: {query_parameter_name: q, descriptor_key: p}}
        - {masked_remote_address: {v4_prefix_mask_len: 24}}
        - {generic_key: {descriptor_value: v}}
        - {header_value_match: {descriptor_value: v, expect_match: false, headers: [{name: a, present_match: true}]}}
        - {query_parameter_value_match: {descriptor_key: k, descriptor_value: v, query_parameters: [{name: a}]}}
        - {remote_address_match: {descriptor_value: v, address_matcher: {ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], invert_match: true}}}
`)
	r := rc.VirtualHosts[0].Routes[0]
	if own, ok := r.FilterConfig["rate"].(*resource.LocalRateLimit); !ok || own.StatPrefix != "route" {
		t.Errorf("the host's settings are not the route's: %+v", r.FilterConfig)
	}
	if len(r.HostRateLimits) != 1 || r.HostRateLimits[0].Actions[0].Kind != resource.RateRemoteAddress || !r.IncludeHostRateLimits {
		t.Errorf("the host's are %+v", r.HostRateLimits)
	}
	l := r.RateLimits[0]
	if len(r.RateLimits) != 1 || l.Stage != 3 || l.Hits != 5 || len(l.Actions) != 9 {
		t.Fatalf("got %+v", r.RateLimits)
	}
	var keys []string
	for i, a := range l.Actions {
		keys = append(keys, a.Key)
		if want := [...]resource.RateActionKind{
			resource.RateSourceCluster, resource.RateDestinationCluster, resource.RateRequestHeader, resource.RateQueryParameter, resource.RateMaskedRemoteAddress,
			resource.RateGenericKey, resource.RateHeaderMatch, resource.RateQueryMatch, resource.RateRemoteAddressMatch,
		}[i]; a.Kind != want {
			t.Errorf("action %d is of kind %d, want %d", i, a.Kind, want)
		}
	}
	if got := strings.Join(keys, " "); got != "source_cluster destination_cluster u p masked_remote_address generic_key header_match k remote_address_match" {
		t.Errorf("the keys are %s", got)
	}
	a := l.Actions
	if a[2].Name != "x-u" || !a[2].SkipIfAbsent || a[3].Name != "q" || a[4].V4 != 24 || a[4].V6 != 128 || a[6].Expect || !a[7].Expect || len(a[8].Prefixes) != 1 || !a[8].Invert {
		t.Errorf("got %+v", a)
	}
}

func TestAConnectionRateIsRead(t *testing.T) {
	l := must[resource.Listener](t, decode.Listener, `
name: l
address: {socket_address: {address: 0.0.0.0, port_value: 80}}
filter_chains:
- filters:
  - name: rate
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit
      stat_prefix: cx
      token_bucket: {max_tokens: 10, fill_interval: 0.1s}
      share_key: all
      runtime_enabled: {default_value: false, runtime_key: on}
  - name: tcp
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}
`)
	want := []*resource.ConnectionRateLimit{{
		StatPrefix: "cx", ShareKey: "all", Bucket: resource.TokenBucket{Max: 10, PerFill: 1, Interval: 100 * time.Millisecond},
		Enabled: resource.Percent{RuntimeKey: "on", Denominator: 1},
	}}
	if got := l.FilterChains[0].RateLimits; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got[0], want[0])
	}
}

func TestWrongRateLimitsAreRefusedByPath(t *testing.T) {
	at := "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config."
	for fields, want := range map[string]string{
		"stat_prefix: a, token_bucket: {max_tokens: 1, fill_interval: 0.049s}":                                                  at + "token_bucket.fill_interval: must be at least 50ms",
		"stat_prefix: a, token_bucket: {max_tokens: 1}":                                                                         at + "token_bucket.fill_interval: ",
		"stat_prefix: a, token_bucket: {max_tokens: 4000000000, fill_interval: 3600s}":                                          at + "token_bucket: the bucket would take more than a year to fill",
		"stat_prefix: a, max_dynamic_descriptors: 100001":                                                                       at + "max_dynamic_descriptors: ",
		"stat_prefix: a, local_cluster_rate_limit: {}":                                                                          at + "local_cluster_rate_limit: not supported",
		"stat_prefix: a, rate_limits: [{stage: 1, actions: [{remote_address: {}}]}]":                                            at + "rate_limits[0].stage: ",
		"stat_prefix: a, rate_limits: [{actions: [{metadata: {descriptor_key: a, metadata_key: {key: a, path: [{key: b}]}}}]}]": at + "rate_limits[0].actions[0].metadata: not supported",
		"stat_prefix: a, rate_limits: [{actions: [{generic_key: {descriptor_value: '%NO_SUCH%'}}]}]":                            at + "rate_limits[0].actions[0].generic_key.descriptor_value: ",
		"stat_prefix: a, descriptors: [{entries: [{key: a}], token_bucket: {max_tokens: 1, fill_interval: 1s}}, {entries: [{key: a}], token_bucket: {max_tokens: 1, fill_interval: 1s}}]": at + "descriptors[1].entries: are those of another",
	} {
		_, err := from(t, decode.Listener, rateListener(rateConfig(fields)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", fields, err, want)
		}
	}
	_, err := from(t, decode.Route, `{name: r, virtual_hosts: [{name: v, domains: ["*"], typed_per_filter_config: {rate: {"@type": `+rateURL+`, stat_prefix: a}}, routes: [{match: {prefix: /}, route: {cluster: c}}]}]}`)
	if want := "token_bucket: is missing: the settings of a route need it"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
