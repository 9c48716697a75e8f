// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func empty(k decode.Kind) proto.Message {
	switch k {
	case decode.Cluster:
		return &clusterv3.Cluster{}
	case decode.Endpoints:
		return &endpointv3.ClusterLoadAssignment{}
	case decode.Listener:
		return &listenerv3.Listener{}
	case decode.Route:
		return &routev3.RouteConfiguration{}
	case decode.ScopedRoute:
		return &routev3.ScopedRouteConfiguration{}
	case decode.VirtualHost:
		return &routev3.VirtualHost{}
	case decode.Secret:
		return &tlsv3.Secret{}
	case decode.Extension:
		return &corev3.TypedExtensionConfig{}
	}
	return &runtimev3.Runtime{}
}

// from decodes a resource that is written in YAML.
func from(t testing.TB, k decode.Kind, text string) (*decode.Resource, error) {
	t.Helper()
	m := empty(k)
	if err := decode.File([]byte(text), "r.yaml", m); err != nil {
		t.Fatalf("the test's YAML: %v\n%s", err, text)
	}
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return decode.NewDecoder(testFilters()).Decode(k, "", a)
}

func must[T any](t *testing.T, k decode.Kind, text string) *T {
	t.Helper()
	r, err := from(t, k, text)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value.(*T)
}

const eds = "type: EDS, eds_cluster_config: {eds_config: {ads: {}}}"

func TestClusterDefaultsAreEnvoys(t *testing.T) {
	c := must[resource.Cluster](t, decode.Cluster, `{name: a, `+eds+`, outlier_detection: {}, circuit_breakers: {thresholds: [{retry_budget: {}}]}}`)
	limits := resource.Thresholds{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3, BudgetPercent: 20, MinRetries: 3}
	budget := limits
	budget.RetryBudget = true
	want := &resource.Cluster{
		Name: "a", Type: resource.EDS, EDSName: "a", ConnectTimeout: 5 * time.Second, BufferLimit: 64 << 10, IdleTimeout: time.Hour,
		MaxResponseHeaders: 100, MaxResponseHeadBytes: 60 << 10, Default: budget, High: limits,
		LB: resource.LoadBalancing{
			Policy: resource.RoundRobin, ChoiceCount: 2, ActiveRequestBias: 1, MinRingSize: 1024, MaxRingSize: 8 << 20,
			TableSize: 65537, PanicThreshold: 50,
		},
		Outlier: &resource.OutlierDetection{
			Consecutive5xx: 5, Enforcing5xx: 100, ConsecutiveGateway: 5, ConsecutiveLocal: 5, EnforcingLocal: 100,
			Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 10,
			SuccessRate:    resource.SuccessRate{MinHosts: 5, Volume: 100, Stdev: 1.9, Enforcing: 100, EnforcingLocal: 100},
			Failure:        resource.FailurePercentage{Threshold: 85, MinHosts: 5, Volume: 50},
			UnejectChecked: true,
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestClusterSettingsAreRead(t *testing.T) {
	c := must[resource.Cluster](t, decode.Cluster, `
name: a
type: STATIC
load_assignment:
  cluster_name: other
  endpoints:
  - locality: {region: eu, zone: z}
    lb_endpoints:
    - {endpoint: {address: {socket_address: {address: "::1", port_value: 80}}, hostname: h}, health_status: DRAINING, load_balancing_weight: 3,
       metadata: {filter_metadata: {envoy.lb: {version: v2, canary: true, n: 5}}}}
    - {endpoint: {address: {pipe: {path: "@abstract"}}}}
per_connection_buffer_limit_bytes: 4096
circuit_breakers:
  thresholds: [{max_connections: 1, max_retries: 0}, {priority: HIGH, max_requests: 7}]
  per_host_thresholds: [{max_connections: 9}]
outlier_detection: {consecutive_5xx: 0, base_ejection_time: 600s}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    common_http_protocol_options: {idle_timeout: 2s, max_requests_per_connection: 5}
    explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 5, allow_connect: true}}
load_balancing_policy:
  policies:
  - typed_extension_config: {name: unknown, typed_config: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions}}
  - typed_extension_config:
      name: wrr
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality
        endpoint_picking_policy:
          policies:
            typed_extension_config: {name: lr, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, choice_count: 4}}
metadata:
  filter_metadata:
    io.outrigger:
      circuitBreaker: {errorThresholdPercent: 30, windowMs: 1000, countAsError: [5xx, "429", reset]}
      fallback: {status: 203, body: "{}", contentType: application/json}
`)
	e := c.Static.Localities[0].Endpoints
	if c.Static.Cluster != "a" || e[0].Address != (resource.Address{Host: "::1", Port: 80}) || e[0].Health != resource.Draining || e[0].Weight != 3 || !e[0].Canary ||
		!reflect.DeepEqual(e[0].Metadata, resource.Metadata{"envoy.lb": {"version": "v2"}}) || e[1].Address.Path != "@abstract" || e[1].Weight != 1 {
		t.Errorf("endpoints are %+v", e)
	}
	if c.Default.MaxConnections != 1 || c.Default.MaxRetries != 0 || c.Default.MaxConnsPerHost != 9 || c.High.MaxRequests != 7 || c.High.MaxConnections != 1024 {
		t.Errorf("limits are %+v %+v", c.Default, c.High)
	}
	if c.Outlier.Consecutive5xx != 0 || c.Outlier.MaxEjection != 600*time.Second {
		t.Errorf("outlier detection is %+v", c.Outlier)
	}
	if !c.HTTP2 || !c.HTTP2Options.AllowConnect || c.IdleTimeout != 2*time.Second || c.MaxRequestsPerConn != 5 || c.BufferLimit != 4096 {
		t.Errorf("got %+v", c)
	}
	if c.LB.Policy != resource.LeastRequest || c.LB.ChoiceCount != 4 || !c.LB.LocalityWeighted {
		t.Errorf("balancing is %+v", c.LB)
	}
	b := c.Breaker
	if b == nil || !b.Enabled || b.ErrorThresholdPercent != 30 || b.Window != time.Second || b.RequestVolumeThreshold != 20 || !b.Count5xx || b.CountTimeout || !b.CountReset || !reflect.DeepEqual(b.CountStatus, []int{429}) {
		t.Errorf("breaker is %+v", b)
	}
	if c.Fallback == nil || c.Fallback.Static.Status != 203 || c.Fallback.Static.ContentType != "application/json" {
		t.Errorf("fallback is %+v", c.Fallback)
	}
}

const hcmHead = `
name: l
address: {socket_address: {address: 0.0.0.0, port_value: 80}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: s
`

const (
	rds        = "      rds: {route_config_name: r, config_source: {ads: {}}}\n"
	routerTail = "      http_filters: [{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]\n"
)

func TestListenerSettingsAreRead(t *testing.T) {
	l := must[resource.Listener](t, decode.Listener, hcmHead+rds+`
      http_filters:
      - {name: ours, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/io.outrigger.test.Echo, value: {a: 1}}}
      - {name: optional, is_optional: true, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/no.Such}}
      - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      tracing:
        random_sampling: {value: 1.5}
        provider:
          name: ours
          typed_config:
            "@type": type.googleapis.com/xds.type.v3.TypedStruct
            type_url: type.googleapis.com/io.outrigger.v1.Tracer
            value: {serviceName: orders, propagation: [b3, tracecontext], exporters: [{zipkin: {url: "http://z:9411/api/v2/spans"}}, {otlp: {endpoint: "o:4317"}}, {controlplane: {}}]}
      access_log:
      - name: file
        filter: {or_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: k}}}}, {response_flag_filter: {flags: [UH]}}]}}
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: /dev/stdout
          log_format: {json_format: {b: "%PROTOCOL%", a: {x: 5, y: ["%DURATION%"]}}}
      - name: als
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
          common_config: {log_name: n, transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: als}}}
      common_http_protocol_options: {idle_timeout: 7s, headers_with_underscores_action: REJECT_REQUEST}
      http_protocol_options: {accept_http_10: true}
`)
	h := l.FilterChains[0].HTTP
	if h.RouteConfigName != "r" || len(h.Filters) != 2 || h.Filters[0].Config.(map[string]any)["a"] != 1.0 || h.Filters[1].TypeURL != routerURL {
		t.Errorf("filters are %+v", h.Filters)
	}
	if h.ServerName != "outrigger" || !h.GenerateRequestID || h.IdleTimeout != 7*time.Second || !h.RejectUnderscores || !h.Accept10 ||
		h.StreamIdleTimeout != 5*time.Minute || h.RequestHeadersTimeout != 10*time.Second || h.DrainTimeout != 5*time.Second || h.MaxHeadBytes != 60<<10 {
		t.Errorf("got %+v", h)
	}
	if tr := h.Tracing; tr.RandomSampling.PerMillion != 15000 || tr.OverallSampling.PerMillion != 1e6 || tr.Provider.ServiceName != "orders" || len(tr.Provider.Exporters) != 3 || tr.Provider.Exporters[1].OTLPProtocol != "grpc" || !tr.Provider.Exporters[2].ToControlPlane {
		t.Errorf("tracing is %+v %+v", tr, tr.Provider)
	}
	f := h.AccessLog[0]
	if f.Filter.Kind != resource.FilterOr || f.Filter.Sub[0].Value != 500 || f.Filter.Sub[0].Runtime != "k" || f.File.Format.JSON[0].Name != "a" || f.File.Format.JSON[0].Object[0].Literal != "5" || f.File.Format.JSON[0].Object[1].List[0].Format.Parts[0].Command != "DURATION" {
		t.Errorf("access log is %+v", f.File.Format.JSON)
	}
	if g := h.AccessLog[1].GRPC; g.Cluster != "als" || g.BufferBytes != 16<<10 || g.FlushMillis != 1000 {
		t.Errorf("gRPC log is %+v", g)
	}
}

// TestEnvoysZipkinTracerIsRead: its formats are those that Envoy writes.
func TestEnvoysZipkinTracerIsRead(t *testing.T) {
	for option, propagation := range map[string][]string{
		"USE_B3": {"b3", "b3multi"}, "USE_B3_WITH_W3C_PROPAGATION": {"b3", "b3multi", "tracecontext"},
	} {
		l := must[resource.Listener](t, decode.Listener, hcmHead+rds+routerTail+`
      tracing:
        provider:
          name: zipkin
          typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: z, collector_endpoint: /api/v2/spans, collector_endpoint_version: HTTP_JSON, trace_context_option: `+option+`}
`)
		p := l.FilterChains[0].HTTP.Tracing.Provider
		if !reflect.DeepEqual(p.Propagation, propagation) || !reflect.DeepEqual(p.Echo, []string{"b3"}) {
			t.Errorf("%s: got %v, of which %v echo", option, p.Propagation, p.Echo)
		}
		if e := p.Exporters; len(e) != 1 || e[0].ZipkinCluster != "z" || e[0].ZipkinPath != "/api/v2/spans" || !p.SharedSpan {
			t.Errorf("%s: got %+v", option, p)
		}
	}
}

func TestRouteSettingsAreRead(t *testing.T) {
	rc := must[resource.RouteConfig](t, decode.Route, `
name: r
request_headers_to_add: [{header: {key: X-A, value: "%START_TIME%"}, append: false}]
virtual_hosts:
- name: v
  domains: ["*.Example.com", "a.*"]
  retry_policy: {retry_on: "5xx, connect-failure,cancelled", retry_back_off: {base_interval: 0.1s}, retriable_status_codes: [409]}
  typed_per_filter_config: {ours: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/io.outrigger.test.Echo, value: {v: 1}}}
  routes:
  - match: {safe_regex: {regex: "/a+"}, headers: [{name: Host, string_match: {prefix: A, ignore_case: true}}, {name: n, range_match: {start: 1, end: 5}}, {name: gone, present_match: false}],
            query_parameters: [{name: q, string_match: {exact: x}}, {name: p, present_match: true}], runtime_fraction: {default_value: {numerator: 5, denominator: TEN_THOUSAND}, runtime_key: k}}
    route:
      weighted_clusters: {clusters: [{name: c1, weight: 1}, {cluster_header: X-C, weight: 2}]}
      regex_rewrite: {pattern: {regex: "^/(a)(b)"}, substitution: '\2$\1'}
      hash_policy: [{cookie: {name: c, ttl: 0s, path: /}, terminal: true}, {header: {header_name: X-U}}]
      request_mirror_policies: [{cluster: shadow, runtime_fraction: {default_value: {numerator: 10}}}]
      timeout: 0s
      max_stream_duration: {max_stream_duration: 3s, grpc_timeout_header_max: 5s, grpc_timeout_header_offset: 0.1s}
  - match: {path_separated_prefix: /api}
    redirect: {https_redirect: true, response_code: PERMANENT_REDIRECT, prefix_rewrite: /v2}
  - match: {prefix: /, case_sensitive: false}
    direct_response: {status: 503, body: {inline_string: sorry}}
`)
	vh := rc.VirtualHosts[0]
	if !reflect.DeepEqual(vh.Domains, []string{"*.example.com", "a.*"}) || rc.HeaderEdits.RequestAdd[0].Action != resource.OverwriteIfExistsOrAdd || rc.HeaderEdits.RequestAdd[0].Name != "x-a" {
		t.Errorf("got %+v", rc)
	}
	if r := vh.Retry; r.On != resource.Retry5xx|resource.RetryConnectFailure|resource.RetryGRPCCancelled || r.NumRetries != 1 || r.BaseInterval != 100*time.Millisecond || r.MaxInterval != time.Second {
		t.Errorf("retry is %+v", r)
	}
	r := vh.Routes[0]
	m := r.Match
	if m.Regex.MatchString("/ab") || m.Regex.MatchString("x/a") || !m.Regex.MatchString("/aaa") {
		t.Error("a regular expression must match the whole path")
	}
	if m.Headers[0].Name != ":authority" || m.Headers[0].String.Value != "a" || m.Headers[2].Present || m.Query[0].String.Value != "x" || !m.Query[1].Present || m.Fraction.PerMillion != 500 || m.Fraction.RuntimeKey != "k" {
		t.Errorf("match is %+v", m)
	}
	a := r.Action
	if a.TotalWeight != 3 || a.Clusters[1].Header != "x-c" || a.Timeout != 0 || a.MaxDuration != 3*time.Second || a.GRPCTimeout != (resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration, Max: 5 * time.Second, Offset: 100 * time.Millisecond}) || !a.Hash[0].HasTTL || a.Hash[1].Name != "x-u" || a.Mirrors[0].Fraction.PerMillion != 100_000 || a.NotFound != 503 {
		t.Errorf("action is %+v", a)
	}
	if got := a.RegexRewrite.Regex.ReplaceAllString("/abc", a.RegexRewrite.Substitution); got != "b$ac" {
		t.Errorf("the rewrite gives %q, want b$ac", got)
	}
	if r.FilterConfig["ours"].(map[string]any)["v"] != 1.0 {
		t.Errorf("the virtual host's filter configuration is not the route's: %+v", r.FilterConfig)
	}
	if d := vh.Routes[1].Redirect; d.Status != 308 || !d.HTTPS || d.PrefixRewrite != "/v2" {
		t.Errorf("redirect is %+v", d)
	}
	if d := vh.Routes[2].Direct; d.Status != 503 || string(d.Body) != "sorry" || d.ContentType != "text/plain" || !vh.Routes[2].Match.CaseFold {
		t.Errorf("direct response is %+v", d)
	}
}

func TestTimesOfCallsAreRead(t *testing.T) {
	for in, want := range map[string]resource.RouteAction{
		``:                       {Timeout: 15 * time.Second},
		`, max_grpc_timeout: 0s`: {Timeout: 15 * time.Second, GRPCTimeout: resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute}},
		`, max_grpc_timeout: 9s, grpc_timeout_offset: 1s`:               {Timeout: 15 * time.Second, GRPCTimeout: resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Max: 9 * time.Second, Offset: time.Second}},
		`, max_stream_duration: {grpc_timeout_header_max: 0s}`:          {GRPCTimeout: resource.GRPCTimeout{Kind: resource.GRPCTimeoutDuration}},
		`, timeout: 1s, max_stream_duration: {max_stream_duration: 9s}`: {Timeout: time.Second, MaxDuration: 9 * time.Second},
	} {
		rc := must[resource.RouteConfig](t, decode.Route, `
name: r
virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c`+in+`}}]}]
`)
		got := rc.VirtualHosts[0].Routes[0].Action
		if got.Timeout != want.Timeout || got.MaxDuration != want.MaxDuration || got.GRPCTimeout != want.GRPCTimeout {
			t.Errorf("%q: %v, %v, %+v", in, got.Timeout, got.MaxDuration, got.GRPCTimeout)
		}
	}
}

func TestBadResourcesAreRefusedByFieldPath(t *testing.T) {
	vh := func(s string) string {
		return "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  routes:\n  - " + s + "\n"
	}
	tests := []struct {
		name string
		kind decode.Kind
		in   string
		want string
	}{
		{"a policy", decode.Cluster, `{name: orders, ` + eds + `, lb_policy: CLUSTER_PROVIDED}`, `decode cluster "orders": lb_policy: unsupported CLUSTER_PROVIDED`},
		{"original destination with a policy", decode.Cluster, `{name: a, type: ORIGINAL_DST}`, `lb_policy: must be CLUSTER_PROVIDED where type is ORIGINAL_DST`},
		{"original destination with endpoints", decode.Cluster, `{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: a}}`, `load_assignment: must not be set where type is ORIGINAL_DST`},
		{"original destination with ejection", decode.Cluster, `{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, outlier_detection: {}}`, `outlier_detection: not supported`},
		{"original destination from metadata", decode.Cluster, `{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {metadata_key: {key: k}}}`, `original_dst_lb_config.metadata_key`},
		{"original destination of a wrong port", decode.Cluster, `{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {upstream_port_override: 65536}}`, `upstream_port_override`},
		{"two times of calls", decode.Route, `{name: a, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, max_grpc_timeout: 0s, max_stream_duration: {grpc_timeout_header_max: 0s}}}]}]}`, `max_grpc_timeout: must not be given together`},
		{"an offset of nothing", decode.Route, `{name: a, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, grpc_timeout_offset: 1s}}]}]}`, `grpc_timeout_offset: needs max_grpc_timeout`},
		{"an offset of nothing", decode.Route, `{name: a, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, max_stream_duration: {grpc_timeout_header_offset: 1s}}}]}]}`, `grpc_timeout_header_offset: needs grpc_timeout_header_max`},
		{"original destination elsewhere", decode.Cluster, `{name: a, type: STATIC, original_dst_lb_config: {}}`, `original_dst_lb_config: needs type ORIGINAL_DST`},
		{"TLS", decode.Cluster, `{name: a, ` + eds + `, transport_socket: {name: tls}}`, `transport_socket: not supported by this version`},
		{"a table that is not prime", decode.Cluster, `{name: a, ` + eds + `, maglev_lb_config: {table_size: 10}}`, `table_size must be prime`},
		{"an unknown breaker setting", decode.Cluster, `{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {circuitBreaker: {treshold: 1}}}}}`, `metadata.filter_metadata["io.outrigger"]: json: unknown field "treshold"`},
		{"HTTP/2 for what is not known", decode.Cluster, `{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {http2: always}}}}`, `metadata.filter_metadata["io.outrigger"].http2: want calls, or nothing`},
		{"HTTP/2 of an endpoint for what is not known", decode.Endpoints, `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 1.1.1.1, port_value: 1}}}, metadata: {filter_metadata: {io.outrigger: {http2: true}}}}]}]}`, `lb_endpoints[0].metadata.filter_metadata["io.outrigger"].http2: want calls, or nothing`},
		{"HTTP/2 for calls of a cluster of HTTP/1", decode.Cluster, `{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {http2: calls}}}}`, `http2: is for clusters with use_downstream_protocol_config`},
		{"a breaker out of range", decode.Cluster, `{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {circuitBreaker: {errorThresholdPercent: 0}}}}}`, `circuitBreaker.errorThresholdPercent: must be between 1 and 100, is 0`},
		{"no EDS source", decode.Cluster, `{name: a, type: EDS}`, `eds_cluster_config.eds_config: is missing`},
		{"a priority gap", decode.Endpoints, `{cluster_name: a, endpoints: [{priority: 1}]}`, `endpoints: priorities must be contiguous from 0`},
		{"an endpoint twice", decode.Endpoints, `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}}, {endpoint: {address: {pipe: {path: /x}}}}]}]}`, `endpoints[0].lb_endpoints[1].endpoint.address: is listed twice`},
		{"a host name", decode.Endpoints, `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: db, port_value: 1}}}}]}]}`, `address.socket_address.address: "db" is no IP address`},
		{"port 0", decode.Endpoints, `{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 1.1.1.1, port_value: 0}}}}]}]}`, `port_value: must not be 0`},
		{"no chain", decode.Listener, `{name: l, address: {socket_address: {address: 1.1.1.1, port_value: 1}}}`, `filter_chains: is empty`},
		{"no router", decode.Listener, hcmHead + rds, `http_filters: is empty: the router is needed`},
		{"the router first", decode.Listener, hcmHead + rds + `      http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}, {name: r2, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`, `http_filters[0]: the router must be the last filter`},
		{"an unknown filter", decode.Listener, hcmHead + rds + `      http_filters: [{name: x, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: no.Such}}]`, `unknown HTTP filter type "no.Such"`},
		{"HTTP/3", decode.Listener, hcmHead + rds + routerTail + `      codec_type: HTTP3`, `filter_chains[0].filters[0].typed_config.codec_type: unsupported HTTP3`},
		{"a listener filter", decode.Listener, hcmHead + rds + routerTail + "listener_filters: [{name: envoy.filters.listener.tls_inspector}]", `listener_filters[0]: unsupported listener filter "envoy.filters.listener.tls_inspector" of type ""`},
		{"a bad format", decode.Listener, hcmHead + rds + routerTail + `      access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, log_format: {text_format_source: {inline_string: "%NO%"}}}}]`, `access_log[0].typed_config.log_format.text_format_source: at byte 0: unknown command %NO%`},
		{"a bad regex", decode.Route, vh(`{match: {safe_regex: {regex: "("}}, route: {cluster: c}}`), `virtual_hosts[0].routes[0].match.safe_regex.regex: error parsing regexp`},
		{"weights of 0", decode.Route, vh(`{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 0}]}}}`), `weighted_clusters: the weights add up to 0`},
		{"two rewrites", decode.Route, vh(`{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /x, regex_rewrite: {pattern: {regex: a}, substitution: b}}}`), `regex_rewrite: must not be given together with prefix_rewrite`},
		{"a group that is not there", decode.Route, vh(`{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\1'}}}`), `substitution: refers to group 1, the pattern has 0`},
		{"a pseudo header", decode.Route, "name: r\nrequest_headers_to_add: [{header: {key: ':path', value: x}}]", `request_headers_to_add[0].header.key: ":path": pseudo headers and host must not be changed`},
		{"a framing header", decode.Route, "name: r\nresponse_headers_to_remove: [Transfer-Encoding]", `response_headers_to_remove[0]: "transfer-encoding" belongs to the connection`},
		{"a header value with a line feed", decode.Route, "name: r\nrequest_headers_to_add: [{header: {key: a, value: \"x\\ny\"}}]", `request_headers_to_add[0].header.value:`},
		{"the same domain twice", decode.Route, "name: r\nvirtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [X]}]", `virtual_hosts[1].domains[0]: "x" is listed twice`},
		{"a star in the middle", decode.Route, "name: r\nvirtual_hosts: [{name: a, domains: ['a*b']}]", `one * is allowed`},
		{"an unknown retry condition", decode.Route, vh(`{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: sometimes}}}`), `retry_policy.retry_on: unknown condition "sometimes"`},
		{"a body that is too long", decode.Route, vh(`{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "` + strings.Repeat("x", 4097) + `"}}}`), `direct_response.body: has 4097 bytes, at most 4096 are accepted`},
		{"CORS", decode.Route, "name: r\nvirtual_hosts: [{name: a, domains: [x], cors: {}}]", `virtual_hosts[0].cors: not supported by this version`},
		{"more than all", decode.Route, vh(`{match: {prefix: /, runtime_fraction: {default_value: {numerator: 101}}}, route: {cluster: c}}`), `101 is more than the denominator 100`},
		{"a list in the runtime", decode.Runtime, "name: r\nlayer: {a: [1]}", `layer.a: must be a number, boolean, text or object`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := from(t, tt.kind, tt.in)
			var e *decode.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestBytesThatAreNoResourceAreRefused(t *testing.T) {
	c := &clusterv3.Cluster{Name: "a"}
	a, err := anypb.New(c)
	if err != nil {
		t.Fatal(err)
	}
	newer := proto.Clone(a).(*anypb.Any)
	newer.Value = append(newer.Value, 0xfa, 0xff, 0x07, 1, 'x') // a field of number 16383
	tests := []struct {
		name, want string
		wantName   string
		in         *anypb.Any
	}{
		{"another type", `is a "type.googleapis.com/x.Y", want "type.googleapis.com/envoy.config.cluster.v3.Cluster"`, "", &anypb.Any{TypeUrl: "type.googleapis.com/x.Y"}},
		{"a field of a newer API", "has fields that this version of the API does not know", "", newer},
		{"invalid UTF-8", "contains invalid UTF-8", "", &anypb.Any{TypeUrl: a.TypeUrl, Value: []byte{0x0a, 1, 0xff}}},
		{"another name", `the resource calls itself "a"`, "b", a},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode.NewDecoder(nil).Decode(decode.Cluster, tt.wantName, tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
