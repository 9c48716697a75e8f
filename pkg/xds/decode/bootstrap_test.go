// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const routerURL = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"

// testFilters knows the router and one filter of our own kind of configuration.
func testFilters() *filter.Registry {
	return filter.NewRegistry(
		filter.Spec{Name: "router", TypeURL: routerURL},
		filter.Spec{Name: "health", TypeURL: healthURL, Build: func(res any) any { return res }},
		filter.Spec{Name: "fault", TypeURL: faultURL, PerRoute: true, Build: func(res any) any { return res }},
		filter.Spec{Name: "rate", TypeURL: rateURL, PerRoute: true, Build: func(res any) any { return res }},
		filter.Spec{Name: "echo", TypeURL: "type.googleapis.com/io.outrigger.test.Echo", PerRoute: true, Parse: func(b []byte) (any, error) {
			m := map[string]any{}
			err := json.Unmarshal(b, &m)
			return m, err
		}},
	)
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBootstrapAcceptsWhatManagementServersShip(t *testing.T) {
	for _, mode := range []string{"ads", "xds", "rest", "delta", "delta-ads"} {
		t.Run(mode, func(t *testing.T) {
			file := "testdata/bootstrap-" + mode + ".yaml"
			b, err := decode.Bootstrap(mustRead(t, file), file, testFilters())
			if err != nil {
				t.Fatal(err)
			}
			if b.Node.ID != "test-id" || len(b.Clusters) != 2 || b.CDS == nil || b.LDS == nil || b.Admin.Address.Port != 19000 {
				t.Errorf("got %+v", b)
			}
			want := map[string]decode.SourceKind{
				"ads": decode.SourceADS, "delta-ads": decode.SourceADS, "xds": decode.SourceGRPC,
				"rest": decode.SourceREST, "delta": decode.SourceDelta,
			}[mode]
			if b.LDS.Kind != want {
				t.Errorf("lds_config is kind %d, want %d", b.LDS.Kind, want)
			}
			if mode == "rest" && b.LDS.RefreshDelay != 500*time.Millisecond {
				t.Errorf("refresh_delay given as an object is %s, want 500ms", b.LDS.RefreshDelay)
			}
			c := b.Clusters[0].Value.(*resource.Cluster)
			if c.HTTP2 != (mode != "rest") || c.Static.Localities[0].Endpoints[0].Address.Host != "127.0.0.1" {
				t.Errorf("cluster is %+v", c)
			}
		})
	}
}

func TestBootstrapErrorsNameLineAndPath(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"an unknown field", "node:\n  id: a\n  colour: red\n", `b.yaml:3: node.colour: unknown field (of envoy.config.core.v3.Node)`},
		{"a field that Envoy has and this version has not", "static_resources:\n  clusters:\n  - name: a\n    transport_socket: {name: tls}\n", `b.yaml:4: static_resources.clusters[0].transport_socket: not supported by this version`},
		{"an unsupported field deep inside", "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1, resolver_name: x}}}\n", `b.yaml:1: admin.address.socket_address.resolver_name: not supported by this version`},
		{"a wrong port", "admin:\n  address:\n    socket_address:\n      address: 127.0.0.1\n      port_value: 65536\n", `b.yaml:5: admin.address.socket_address.port_value:`},
		{"a wrong type", "node:\n  id: [a]\n", `b.yaml:2: node.id: must be text, is a list`},
		{"a wrong enum", "static_resources:\n  clusters:\n  - name: a\n    lb_policy: FASTEST\n", `b.yaml:4: static_resources.clusters[0].lb_policy: "FASTEST" is no value of LbPolicy`},
		{"a duplicate key", "node: {id: a}\nnode: {id: b}\n", `b.yaml:2: `},
		{"a disk layer", "layered_runtime:\n  layers:\n  - name: d\n    disk_layer: {symlink_root: /x}\n", `b.yaml:4: layered_runtime.layers[0].disk_layer: not supported by this version`},
		{"a host name in a static cluster", "static_resources:\n  clusters:\n  - name: a\n    type: STATIC\n    load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: db, port_value: 1}}}}]}]}\n", `b.yaml:5: static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "db" is no IP address`},
		{"a dangling cluster", "dynamic_resources:\n  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: nowhere}}]}\n", `b.yaml:2: dynamic_resources.ads_config: names cluster "nowhere", which is not among static_resources.clusters`},
		{"an unknown extension", "static_resources:\n  clusters:\n  - name: a\n    typed_extension_protocol_options: {x: {\"@type\": type.googleapis.com/a.B}}\n", `b.yaml:4: static_resources.clusters[0].typed_extension_protocol_options["x"]: unknown type "type.googleapis.com/a.B"`},
		{"an empty file", "", `b.yaml:1: is empty`},
		{"broken YAML", "node: {id: a\n", `b.yaml:`},
		{"two documents", "node: {id: a}\n---\nnode: {id: b}\n", `has more than one document`},
		{"a bad duration", "stats_flush_interval: 5 minutes\n", `b.yaml:1: stats_flush_interval: must be a duration`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode.Bootstrap([]byte(tt.in), "b.yaml", testFilters())
			if err == nil {
				t.Fatalf("accepted, want %q", tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestBootstrapReportsAllErrorsAtOnce(t *testing.T) {
	in := "static_resources:\n  clusters:\n  - name: a\n    lb_policy: CLUSTER_PROVIDED\n    connect_timeout: 0s\n  - name: a\n"
	_, err := decode.Bootstrap([]byte(in), "b.yaml", testFilters())
	for _, want := range []string{"b.yaml:4: static_resources.clusters[0].lb_policy", "b.yaml:5: static_resources.clusters[0].connect_timeout", "b.yaml:6: static_resources.clusters[1].name: \"a\" is used twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant it to have %q", err, want)
		}
	}
}

func TestDeepNestingIsRefusedQuickly(t *testing.T) {
	start := time.Now()
	for _, in := range []string{"[", "{a: ", "- "} {
		for _, n := range []int{200, 1 << 20} {
			_, err := decode.Bootstrap([]byte(strings.Repeat(in, n)), "b.yaml", testFilters())
			if err == nil {
				t.Errorf("%q %d times is accepted", in, n)
			}
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestAliasBombsAreRefusedQuickly(t *testing.T) {
	in := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		in += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	pairs := "{x: &a [" + strings.Repeat("h:1,", 2000) + "h:1], y: [" + strings.Repeat("*a,", 2000) + "*a]}"
	start := time.Now()
	for _, in := range []string{in, pairs} {
		_, err := decode.Bootstrap([]byte(in), "b.yaml", testFilters())
		if err == nil || !strings.Contains(err.Error(), "unfolds to more than") {
			t.Errorf("%.60s: got %v", in, err)
		}
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("took %s", d)
	}
}
