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

func checked(check string, more ...string) string {
	return `{name: c, type: STATIC, ` + strings.Join(more, "") + ` health_checks: [{timeout: 1s, interval: 5s, unhealthy_threshold: 3, healthy_threshold: 2, ` + check + `}]}`
}

const overHTTP2 = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}},`

func healthOf(t *testing.T, text string) *resource.HealthCheck {
	t.Helper()
	r, err := from(t, decode.Cluster, text)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value.(*resource.Cluster).Health
}

func TestHealthChecksHaveEnvoysDefaults(t *testing.T) {
	got := healthOf(t, checked(`http_health_check: {path: /healthz}`))
	want := &resource.HealthCheck{
		Kind: resource.CheckHTTP, Timeout: time.Second, Interval: 5 * time.Second, NoTrafficInterval: time.Minute, NoTrafficHealthyInterval: time.Minute,
		UnhealthyInterval: 5 * time.Second, UnhealthyEdgeInterval: 5 * time.Second, HealthyEdgeInterval: 5 * time.Second,
		UnhealthyThreshold: 3, HealthyThreshold: 2, ReuseConnection: true, Uneject: true,
		Path: "/healthz", Method: "GET", Expected: []resource.StatusSpan{{From: 200, To: 201}}, ReceiveBytes: 1024,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got = healthOf(t, checked(`no_traffic_interval: 10s, unhealthy_interval: 2s, tcp_health_check: {}`))
	if got.NoTrafficHealthyInterval != 10*time.Second || got.UnhealthyEdgeInterval != 2*time.Second || got.HealthyEdgeInterval != 5*time.Second {
		t.Errorf("intervals that follow others: %+v", got)
	}
}

func TestHealthChecksAreRead(t *testing.T) {
	got := healthOf(t, checked(`name: a, initial_jitter: 1s, interval_jitter: 2s, interval_jitter_percent: 10, reuse_connection: false, always_log_health_check_failures: true,
    event_logger: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, event_log_path: /tmp/hc}}],
    tls_options: {alpn_protocols: [x]}, http_health_check: {path: "/h?a=b", host: h.example, method: POST, codec_client_type: HTTP2, send: {text: "0a"}, receive: [{binary: b2s=}],
      response_buffer_size: 7, request_headers_to_add: [{header: {key: X-A, value: "100%%"}}], request_headers_to_remove: [User-Agent],
      expected_statuses: [{start: 200, end: 300}], retriable_statuses: [{start: 500, end: 501}], service_name_matcher: {prefix: orders}}`,
		`outlier_detection: {successful_active_health_check_uneject_host: false},`))
	want := resource.HealthCheck{
		Name: "a", InitialJitter: time.Second, IntervalJitter: 2 * time.Second, IntervalJitterPercent: 10, AlwaysLogFailures: true, EventLog: "/tmp/hc", ALPN: []string{"x"},
		Path: "/h?a=b", Host: "h.example", Method: "POST", HTTP2: true, Send: []byte{10}, Receive: [][]byte{[]byte("ok")}, ReceiveBytes: 7,
		Headers: []resource.HeaderValue{{Name: "x-a", Value: "100%", Action: resource.AppendIfExistsOrAdd}}, Remove: []string{"user-agent"},
		Expected: []resource.StatusSpan{{From: 200, To: 300}}, Retriable: []resource.StatusSpan{{From: 500, To: 501}},
		ServiceName: &resource.StringMatch{Kind: resource.MatchPrefix, Value: "orders"},
		Timeout:     got.Timeout, Interval: got.Interval, NoTrafficInterval: got.NoTrafficInterval, NoTrafficHealthyInterval: got.NoTrafficHealthyInterval,
		UnhealthyInterval: got.UnhealthyInterval, UnhealthyEdgeInterval: got.UnhealthyEdgeInterval, HealthyEdgeInterval: got.HealthyEdgeInterval,
		UnhealthyThreshold: 3, HealthyThreshold: 2,
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	got = healthOf(t, checked(`grpc_health_check: {service_name: s, authority: a.example, initial_metadata: [{header: {key: k, value: v}}]}`, overHTTP2))
	if got.Kind != resource.CheckGRPC || got.Service != "s" || got.Host != "a.example" || len(got.Headers) != 1 {
		t.Errorf("gRPC: %+v", got)
	}
	got = healthOf(t, checked(`tcp_health_check: {send: {text: "50494e47"}, receive: [{text: "504f4e47"}], proxy_protocol_config: {version: V2}}`))
	if got.Kind != resource.CheckTCP || string(got.Send) != "PING" || string(got.Receive[0]) != "PONG" || got.SendProxy != 2 {
		t.Errorf("TCP: %+v", got)
	}
}

func TestHealthChecksThatCannotBeMeantAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		checked(`custom_health_check: {name: redis}`):                                                                                    `health_checks[0].custom_health_check: unsupported "redis"`,
		checked(`http_health_check: {path: healthz}`):                                                                                    `http_health_check.path: "healthz" is no path`,
		checked(`http_health_check: {path: "/a b"}`):                                                                                     `http_health_check.path`,
		checked(`http_health_check: {path: /, codec_client_type: HTTP3}`):                                                                `codec_client_type: HTTP3 is not supported`,
		checked(`http_health_check: {path: /, use_alpn_protocol: true}`):                                                                 `use_alpn_protocol: not supported`,
		checked(`http_health_check: {path: /, send: {text: aa}}`):                                                                        `send: needs a method with a body`,
		checked(`http_health_check: {path: /, expected_statuses: [{start: 300, end: 300}]}`):                                             `expected_statuses[0]: want 100`,
		checked(`http_health_check: {path: /, retriable_statuses: [{start: 99, end: 300}]}`):                                             `retriable_statuses[0]: want 100`,
		checked(`http_health_check: {path: /, request_headers_to_add: [{header: {key: a, value: "%PROTOCOL%"}}]}`):                       `request_headers_to_add[0].header.value: command operators`,
		checked(`http_health_check: {path: /, request_headers_to_add: [{header: {key: host, value: a}}]}`):                               `request_headers_to_add[0].header.key`,
		checked(`grpc_health_check: {}`):                                                                                                 `grpc_health_check: needs a cluster of HTTP/2`,
		checked(`tcp_health_check: {send: {text: xyz}}`):                                                                                 `send.text: is not hexadecimal`,
		checked(`tcp_health_check: {}, transport_socket_match_criteria: {a: b}`):                                                         `transport_socket_match_criteria: needs transport_socket_matches`,
		checked(`tcp_health_check: {}, alt_port: 1`):                                                                                     `alt_port: not supported`,
		checked(`tcp_health_check: {}, event_logger: [{name: x, typed_config: {"@type": type.googleapis.com/google.protobuf.Empty}}]`):   `event_logger[0].typed_config: unsupported type`,
		checked(`tcp_health_check: {}}, {timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}`): `health_checks[1]: only one`,
		`{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}`: `health_checks[0]: a cluster of type ORIGINAL_DST`,
		`{name: c, type: STATIC, health_checks: [{interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]}`:                                                 `health_checks[0].timeout: value is required`,
	} {
		if _, err := from(t, decode.Cluster, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", text, err, want)
		}
	}
}

func TestEndpointsSayHowTheyAreChecked(t *testing.T) {
	const head = `{cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}, health_check_config: `
	r, err := from(t, decode.Endpoints, head+`{port_value: 81, hostname: h, address: {socket_address: {address: 10.0.0.2, port_value: 0}}, disable_active_health_check: true}}}]}]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := resource.EndpointCheck{Address: resource.Address{Host: "10.0.0.2"}, Port: 81, Hostname: "h", Disabled: true}
	if got := r.Value.(*resource.Assignment).Localities[0].Endpoints[0].Check; got == nil || *got != want {
		t.Errorf("got %+v", got)
	}
	for text, want := range map[string]string{
		`{port_value: 70000}`: "health_check_config.port_value",
		`{hostname: "a/b"}`:   "health_check_config.hostname",
		`{address: {socket_address: {address: name, port_value: 1}}}`: "health_check_config.address.socket_address.address",
	} {
		if _, err := from(t, decode.Endpoints, head+text+`}}]}]}`); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
