// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const admissionFilters = `
          - name: envoy.filters.http.fault
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
              delay: {header_delay: {}, percentage: {numerator: 100}}
              abort: {header_abort: {}, percentage: {numerator: 100}}
              response_rate_limit: {header_limit: {}, percentage: {numerator: 100}}
              headers: [{name: ":path", string_match: {prefix: /fault}}]
          - name: envoy.filters.http.local_ratelimit
            typed_config: &limit
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: rl
              token_bucket: {max_tokens: 1000, tokens_per_fill: 1, fill_interval: 3600s}
              filter_enabled: {default_value: {numerator: 100}}
              filter_enforced: {default_value: {numerator: 100}}
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              response_headers_to_add: [{header: {key: x-by, value: "%PROTOCOL%"}}]
              descriptors:
              - {entries: [{key: who, value: me}], token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}}
              - {entries: [{key: who}, {key: generic_key, value: open}], token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 1800s}}
              rate_limits:
              - actions: [{request_headers: {header_name: x-who, descriptor_key: who}}]
              - actions: [{request_headers: {header_name: x-who, descriptor_key: who}}, {generic_key: {descriptor_value: open}}, {header_value_match: {descriptor_value: v, headers: [{name: x-open, present_match: true}], expect_match: false}}]
              - actions: [{request_headers: {header_name: x-each, descriptor_key: who}}, {generic_key: {descriptor_value: open}}]
`

const admissionRoutes = `
              - match: {prefix: /own}
                direct_response: {status: 200, body: {inline_string: own}}
                typed_per_filter_config:
                  envoy.filters.http.local_ratelimit:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                    stat_prefix: own
                    token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}
                    filter_enabled: {default_value: {numerator: 100}}
                    filter_enforced: {default_value: {numerator: 100}}
                    status: {code: 503}
                    rate_limited_as_resource_exhausted: true
              - match: {prefix: /}
                direct_response: {status: 200, body: {inline_string: hi}}
`

// admissionSteps are requests in their order, with what is answered.
var admissionSteps = []struct{ name, path, fields, want string }{
	{"a token of the default bucket", "/", "", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=999 x-ratelimit-reset=0 hi"},
	{"a descriptor", "/", "x-who: me", "200 x-ratelimit-limit=2 x-ratelimit-remaining=1 x-ratelimit-reset=0 hi"},
	{"its last token", "/", "x-who: me", "200 x-ratelimit-limit=2 x-ratelimit-remaining=0 x-ratelimit-reset=3600 hi"},
	{"no token", "/", "x-who: me", "429 x-by=HTTP/1.1 x-ratelimit-limit=2 x-ratelimit-remaining=0 x-ratelimit-reset=3600 local_rate_limited"},
	{"no token for a call", "/", "x-who: me, content-type: application/grpc", "200 grpc-message=local_rate_limited grpc-status=14 x-by=HTTP/1.1 x-ratelimit-limit=2 x-ratelimit-remaining=0 x-ratelimit-reset=3600 "},
	{"a value left open", "/", "x-each: a", "200 x-ratelimit-limit=1 x-ratelimit-remaining=0 x-ratelimit-reset=1800 hi"},
	{"no token for it", "/", "x-each: a", "429 x-by=HTTP/1.1 x-ratelimit-limit=1 x-ratelimit-remaining=0 x-ratelimit-reset=1800 local_rate_limited"},
	{"another value", "/", "x-each: b", "200 x-ratelimit-limit=1 x-ratelimit-remaining=0 x-ratelimit-reset=1800 hi"},
	{"a descriptor that is none", "/", "x-who: you", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=994 x-ratelimit-reset=0 hi"},
	{"a route of its own", "/own", "", "200 own"},
	{"no token of the route", "/own", "", "503 local_rate_limited"},
	{"no token of the route for a call", "/own", "content-type: application/grpc", "200 grpc-message=local_rate_limited grpc-status=8 "},
	{"an abort", "/fault", "x-envoy-fault-abort-request: 418", "418 fault filter abort"},
	{"an abort of a call", "/fault", "x-envoy-fault-abort-grpc-request: 5, content-type: application/grpc", "200 grpc-message=fault filter abort grpc-status=5 "},
	{"an abort of none", "/fault", "x-envoy-fault-abort-request: 418, x-envoy-fault-abort-request-percentage: 0", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=993 x-ratelimit-reset=0 hi"},
	{"a delay", "/fault", "x-envoy-fault-delay-request: 20", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=992 x-ratelimit-reset=0 hi"},
	{"a slow response", "/fault", "x-envoy-fault-throughput-response: 1", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=991 x-ratelimit-reset=0 hi"},
	{"no slow response", "/fault", "x-envoy-fault-throughput-response: 0", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=990 x-ratelimit-reset=0 hi"},
	{"no fault elsewhere", "/", "x-envoy-fault-abort-request: 418", "200 x-ratelimit-limit=1000 x-ratelimit-remaining=989 x-ratelimit-reset=0 hi"},
}

var admissionStats = map[string]string{
	"rl.http_local_rate_limit.enabled": "14", "rl.http_local_rate_limit.ok": "11", "rl.http_local_rate_limit.rate_limited": "3", "rl.http_local_rate_limit.enforced": "3",
	"own.http_local_rate_limit.enabled": "3", "own.http_local_rate_limit.ok": "1", "own.http_local_rate_limit.enforced": "2",
	"http.in.fault.aborts_injected": "2", "http.in.fault.delays_injected": "1", "http.in.fault.response_rl_injected": "1", "http.in.fault.active_faults": "0", "http.in.fault.faults_overflow": "0",
	"overload.envoy.resource_monitors.injected_resource.pressure":           "95",
	"overload.envoy.overload_actions.stop_accepting_requests.active":        "1",
	"overload.envoy.overload_actions.stop_accepting_requests.scale_percent": "100",
	"http.in.downstream_rq_overload_close":                                  "1",
}

// TestAdmissionIsEnvoys: the same bootstrap leads to the same answers and stats of rate
// limits, faults and overload, of the sidecar and of Envoy.
func TestAdmissionIsEnvoys(t *testing.T) {
	mesh.Both(t, func(t *testing.T, program string) {
		f := newOfFiles(t)
		f.write("pressure", "0")
		f.start(program, mesh.Bootstrap{
			Top:     injected(filepath.Join(f.dir, "pressure")) + "  actions: [{name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: envoy.resource_monitors.injected_resource, scaled: {scaling_threshold: 0.5, saturation_threshold: 0.9}}]}]",
			Filters: admissionFilters, Routes: admissionRoutes,
		})
		for _, s := range admissionSteps {
			if got := admissionAnswer(t, f.listen, s.path, s.fields); got != s.want {
				t.Errorf("%s:\n got %s\nwant %s", s.name, got, s.want)
			}
		}
		f.write("pressure", "0.95")
		f.proxy.Await(routeLimit, "overload", func() error {
			if got := f.stat("overload.envoy.overload_actions.stop_accepting_requests.active"); got != "1" {
				return fmt.Errorf("active is %s", got)
			}
			return nil
		})
		if got := admissionAnswer(t, f.listen, "/", ""); got != "503 envoy overloaded" {
			t.Errorf("under pressure the answer is %s", got)
		}
		for name, want := range admissionStats {
			if got := f.stat(name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		f.write("pressure", "0.1")
		f.proxy.Await(routeLimit, "the end of it", func() error {
			if got := admissionAnswer(t, f.listen, "/", ""); !strings.HasPrefix(got, "200") {
				return fmt.Errorf("the answer is %s", got)
			}
			return nil
		})
	})
}

// admissionAnswer is the status, what matters of the fields in order, and the body.
func admissionAnswer(t *testing.T, address, path, fields string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.SplitSeq(fields, ", ") {
		if name, value, ok := strings.Cut(field, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	out := fmt.Sprint(resp.StatusCode, " ")
	for _, name := range []string{"grpc-message", "grpc-status", "retry-after", "x-by", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} {
		if v := resp.Header.Get(name); v != "" {
			out += name + "=" + v + " "
		}
	}
	return out + string(body)
}
