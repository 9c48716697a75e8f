// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// fuzzKind feeds bytes of resources: decode never panics, a refusal is an
// *Error that says something, and what is accepted is accepted again with the
// same result, also after its message has been written anew.
func fuzzKind(f *testing.F, kind decode.Kind, seeds ...proto.Message) {
	for _, m := range seeds {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decodeBytes(kind, b)
		if err != nil {
			var e *decode.Error
			if !errors.As(err, &e) || len(e.Fields) == 0 || e.Fields[0].Reason == "" {
				t.Fatalf("refused without a reason: %#v", err)
			}
			return
		}
		m := empty(kind)
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatalf("accepted bytes that are no message: %v", err)
		}
		again, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		second, err := decodeBytes(kind, again)
		if err != nil {
			t.Fatalf("accepted once, then refused: %v", err)
		}
		if !reflect.DeepEqual(first.Value, second.Value) {
			t.Fatalf("decoded twice, got\n%+v\n%+v", first.Value, second.Value)
		}
	})
}

func decodeBytes(kind decode.Kind, b []byte) (*decode.Resource, error) {
	return decode.NewDecoder(testFilters()).Decode(kind, "", &anypb.Any{TypeUrl: decode.TypeOf(kind).URL, Value: b})
}

// yaml is a seed that is easier to read.
func yaml(f *testing.F, kind decode.Kind, text string) proto.Message {
	m := empty(kind)
	if err := decode.File([]byte(text), "seed", m); err != nil {
		f.Fatal(err)
	}
	return m
}

func FuzzDecodeCluster(f *testing.F) {
	fuzzKind(f, decode.Cluster,
		gcptest.MakeCluster("ads", "a"), gcptest.MakeCluster("rest", "b"),
		yaml(f, decode.Cluster, `{name: a, `+eds+`, circuit_breakers: {thresholds: [{max_retries: 1, retry_budget: {}}]}, outlier_detection: {interval: 1s}, metadata: {filter_metadata: {io.outrigger: {circuitBreaker: {buckets: 5}, fallback: {body: x}}}}}`),
		yaml(f, decode.Cluster, `{name: a, `+eds+`, load_balancing_policy: {policies: {typed_extension_config: {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash, minimum_ring_size: 9}}}}}`),
	)
}

func FuzzDecodeEndpoints(f *testing.F) {
	fuzzKind(f, decode.Endpoints, gcptest.MakeEndpoint("a", 80),
		yaml(f, decode.Endpoints, `{cluster_name: a, endpoints: [{locality: {zone: z}, load_balancing_weight: 2, lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}, metadata: {filter_metadata: {a: {b: c}}}}]}, {priority: 1}], policy: {drop_overloads: [{category: x, drop_percentage: {numerator: 5}}]}}`))
}

func FuzzDecodeListener(f *testing.F) {
	fuzzKind(f, decode.Listener,
		gcptest.MakeRouteHTTPListener("ads", "l", 80, "r"), gcptest.MakeTCPListener("l", 80, "c"),
		gcptest.MakeScopedRouteHTTPListener("delta", "l", 80), gcptest.MakeRouteHTTPListenerDefaultFilterChain("rest", "l", 80, "r"),
		yaml(f, decode.Listener, hcmHead+rds+routerTail+`      local_reply_config: {mappers: [{filter: {not_health_check_filter: {}}, status_code: 500}], body_format: {json_format: {a: {b: ["%PROTOCOL%"]}}}}`),
	)
}

func FuzzDecodeRoute(f *testing.F) {
	fuzzKind(f, decode.Route, gcptest.MakeRouteConfig("r", "c"), gcptest.MakeVHDSRouteConfig("delta", "r"),
		yaml(f, decode.Route, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {safe_regex: {regex: "a(b)"}, headers: [{name: h, string_match: {suffix: x}}]}, route: {weighted_clusters: {clusters: [{name: c, weight: 1}]}, regex_rewrite: {pattern: {regex: "(a)"}, substitution: '\1$'}, retry_policy: {retry_on: 5xx}}}, {match: {prefix: /}, redirect: {path_redirect: /x}}]}]}`))
}

func FuzzBootstrap(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"node": {"id": "a", "metadata": {"x": [1, null, "y"]}}, "stats_flush_interval": {"seconds": 5, "nanos": 1}}`))
	f.Add([]byte("a: &a [*a]\nb: !tag x\n<<: {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decode.Bootstrap(b, "f.yaml", testFilters())
		if err != nil {
			var e *decode.FileError
			if !errors.As(err, &e) || len(e.Fields) == 0 || e.Fields[0].Reason == "" {
				t.Fatalf("refused without a reason: %#v", err)
			}
			return
		}
		second, err := decode.Bootstrap(b, "f.yaml", testFilters())
		if err != nil || !reflect.DeepEqual(first.Clusters, second.Clusters) || !reflect.DeepEqual(first.Listeners, second.Listeners) {
			t.Fatalf("decoded twice, got\n%+v\n%+v, %v", first, second, err)
		}
	})
}
