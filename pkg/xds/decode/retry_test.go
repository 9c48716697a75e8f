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

const (
	omitMetadata = `{name: envoy.retry_host_predicates.omit_host_metadata, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig, metadata_match: {filter_metadata: `
	omitCanary   = `{name: envoy.retry_host_predicates.omit_canary_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate}}`
)

// inRoute is a route configuration with one route.
func inRoute(s string) string {
	return "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  routes:\n  - " + s + "\n"
}

func TestRetryPoliciesAreRead(t *testing.T) {
	rc := must[resource.RouteConfig](t, decode.Route, inRoute(`{match: {prefix: /}, route: {cluster: c, retry_policy: {rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: X-RateLimit-Reset, format: UNIX_TIMESTAMP}]}, retry_host_predicate: [`+omitCanary+`, `+omitMetadata+`{envoy.lb: {stage: test, zone: a}, other: {x: y}}}}}, `+omitMetadata+`{}}}}]}}}`))
	r := rc.VirtualHosts[0].Routes[0].Action.Retry
	wait := &resource.RateLimitedBackOff{
		Headers: []resource.ResetHeader{{Name: "retry-after"}, {Name: "x-ratelimit-reset", UnixTimestamp: true}}, MaxInterval: 300 * time.Second,
	}
	avoid := resource.HostPredicates{OmitCanaries: true, OmitMetadata: []map[string]string{{"stage": "test", "zone": "a"}}}
	if !reflect.DeepEqual(r.RateLimited, wait) || !reflect.DeepEqual(r.Avoid, avoid) || r.PreviousHosts {
		t.Errorf("got %+v with %+v", r, r.RateLimited)
	}
}

func TestWrongRetryPoliciesNameTheField(t *testing.T) {
	for _, tt := range []struct{ name, policy, want string }{
		{"no header to wait by", `rate_limited_retry_back_off: {}`, `rate_limited_retry_back_off.reset_headers: value must contain at least 1 item`},
		{"no time at all", `rate_limited_retry_back_off: {reset_headers: [{name: a}], max_interval: 0s}`, `rate_limited_retry_back_off.max_interval: value must be greater than 0s`},
		{"a header without a name", `rate_limited_retry_back_off: {reset_headers: [{name: ""}]}`, `reset_headers[0].name:`},
		{"an unknown format", `rate_limited_retry_back_off: {reset_headers: [{name: a, format: 7}]}`, `reset_headers[0].format: value must be one of`},
		{"metadata that is no string", `retry_host_predicate: [` + omitMetadata + `{envoy.lb: {n: 1}}}}}]`, `retry_host_predicate[0].typed_config.metadata_match.filter_metadata["envoy.lb"].n: must be a string`},
		{"an unknown predicate", `retry_host_predicate: [{name: mine}]`, `retry_host_predicate[0]: unsupported "mine"`},
		{"predicates of options", `retry_options_predicates: [{name: mine}]`, `retry_policy.retry_options_predicates: not supported`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := from(t, decode.Route, inRoute(`{match: {prefix: /}, route: {cluster: c, retry_policy: {`+tt.policy+`}}}`))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestHedgePoliciesAreRead(t *testing.T) {
	const hedge = `hedge_policy: {hedge_on_per_try_timeout: true}`
	rc := must[resource.RouteConfig](t, decode.Route, "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  "+hedge+"\n  routes:\n"+
		"  - {match: {prefix: /}, route: {cluster: c}}\n  - {match: {prefix: /}, route: {cluster: c, hedge_policy: {}}}\n")
	vh := rc.VirtualHosts[0]
	if !vh.Hedge.OnPerTryTimeout || vh.Routes[0].Action.Hedge != nil {
		t.Errorf("the virtual host's is %+v, the first route's %+v", vh.Hedge, vh.Routes[0].Action.Hedge)
	}
	if h := vh.Routes[1].Action.Hedge; h == nil || h.OnPerTryTimeout {
		t.Errorf("a route that takes it back has %+v", h)
	}
	for _, field := range []string{"initial_requests: 2", "additional_request_chance: {numerator: 50}"} {
		_, err := from(t, decode.Route, inRoute(`{match: {prefix: /}, route: {cluster: c, hedge_policy: {`+field+`}}}`))
		name, _, _ := strings.Cut(field, ":")
		if want := "hedge_policy." + name + ": not supported"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
