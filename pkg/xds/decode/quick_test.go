// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// manyClusters is a bootstrap of n static clusters with ten endpoints each, in
// block style or as JSON.
func manyClusters(n int, json bool) []byte {
	var b strings.Builder
	b.WriteString(map[bool]string{true: `{"static_resources": {"clusters": [`, false: "static_resources:\n  clusters:\n"}[json])
	for i := range n {
		if json {
			fmt.Fprintf(&b, `%.*s{"name": "cluster-%d", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST", "load_assignment": {"cluster_name": "cluster-%d", "endpoints": [{"lb_endpoints": [`, min(i, 1), ",", i, i)
		} else {
			fmt.Fprintf(&b, "  - name: cluster-%d\n    type: STATIC\n    connect_timeout: 1s\n    lb_policy: LEAST_REQUEST\n    load_assignment:\n      cluster_name: cluster-%d\n      endpoints:\n      - lb_endpoints:\n", i, i)
		}
		for e := range 10 {
			if json {
				fmt.Fprintf(&b, `%.*s{"endpoint": {"address": {"socket_address": {"address": "10.%d.%d.%d", "port_value": 8080}}}}`, min(e, 1), ",", i/250, i%250, e)
			} else {
				fmt.Fprintf(&b, "        - endpoint: {address: {socket_address: {address: 10.%d.%d.%d, port_value: 8080}}}\n", i/250, i%250, e)
			}
		}
		if json {
			b.WriteString("]}]}}")
		}
	}
	if json {
		b.WriteString("]}}\n")
	}
	return []byte(b.String())
}

// bothWays fails if a bootstrap is read in the quick way and the way with
// positions reads anything else.
func bothWays(t *testing.T, in []byte, reg *filter.Registry) (quick bool) {
	t.Helper()
	q := quickBootstrap(in, "b.yaml", reg)
	if q == nil {
		return false
	}
	p, err := placedBootstrap(in, "b.yaml", reg)
	if err != nil {
		t.Fatalf("taken, and refused with positions: %v\n%q", err, in)
	}
	var a, b bootstrapv3.Bootstrap
	if err := proto.Unmarshal(q.Raw, &a); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(p.Raw, &b); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&a, &b) {
		t.Fatalf("%q\nquick:          %v\nwith positions: %v", in, &a, &b)
	}
	q.Raw, p.Raw = nil, nil
	if !reflect.DeepEqual(q, p) {
		t.Fatalf("%q\nquick:          %+v\nwith positions: %+v", in, q, p)
	}
	return true
}

// someBootstraps are documents of much that the quick way has to write.
var someBootstraps = []string{
	`{"node": {"id": "a", "metadata": {"x": [1, null, "y"], "z": {"b": true}}}, "stats_flush_interval": {"seconds": 5, "nanos": 1}}`,
	"stats_flush_interval: 1.25s\nnode: {id: a, locality: {region: r}}\nlayered_runtime:\n  layers:\n  - {name: s, static_layer: {a: {b: 1.5}, c: x}}\n  - {name: d, admin_layer: {}}\n",
	"static_resources:\n  clusters:\n  - name: a\n    per_connection_buffer_limit_bytes: 1024\n    lb_policy: RING_HASH\n    ring_hash_lb_config: {minimum_ring_size: 9}\n    outlier_detection: {consecutive_5xx: 3, interval: 0.5s}\n    common_lb_config: {healthy_panic_threshold: {value: 12.5}}\n    metadata: {filter_metadata: {envoy.lb: {canary: true}}}\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        explicit_http_config: {http_protocol_options: {}}\n        common_http_protocol_options: {idle_timeout: 3s, max_requests_per_connection: 7}\n",
	"static_resources:\n  clusters: {name: a, loadAssignment: {clusterName: a, endpoints: {lbEndpoints: {endpoint: {address: {pipe: {path: /x}}}}}}}\n",
}

func TestABootstrapReadsTheSameWithAndWithoutPositions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	inputs := [][]byte{manyClusters(3, false), manyClusters(3, true)}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, b)
	}
	for _, in := range someBootstraps {
		inputs = append(inputs, []byte(in))
	}
	for _, in := range inputs {
		if !bothWays(t, in, nil) {
			_, err := placedBootstrap(in, "b.yaml", nil)
			t.Errorf("is not read in the quick way (with positions: %v):\n%s", err, in)
		}
	}
}

func TestAStaticClusterCostsLittleToLoad(t *testing.T) {
	const clusters = 200
	for name, in := range map[string][]byte{"YAML": manyClusters(clusters, false), "JSON": manyClusters(clusters, true)} {
		r := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Bootstrap(in, "b.yaml", nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		bytes, allocs := r.AllocedBytesPerOp()/clusters, r.AllocsPerOp()/clusters
		t.Logf("%s: %d bytes and %d allocations for each cluster of ten endpoints (%s)", name, bytes, allocs, r)
		if bytes > 24<<10 || allocs > 300 {
			t.Errorf("%s: a cluster takes %d bytes and %d allocations to load, want at most %d and 300", name, bytes, allocs, 24<<10)
		}
	}
}

func TestAStaticClusterRetainsLittle(t *testing.T) {
	const clusters = 500
	if quickBootstrap(manyClusters(1, false), "b.yaml", nil) == nil { // makes the tables of message types
		t.Fatal("is not read in the quick way")
	}
	in := manyClusters(clusters, false)
	before := heapInUse()
	b, err := Bootstrap(in, "b.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	per := (int64(heapInUse()) - int64(before)) / clusters
	t.Logf("%d bytes for each cluster of ten endpoints", per)
	if per > 3<<10 || len(b.Clusters) != clusters {
		t.Errorf("%d clusters retain %d bytes each, want %d with at most %d", len(b.Clusters), per, clusters, 3<<10)
	}
	runtime.KeepAlive(in)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // what pools hold is free only in the second collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func FuzzABootstrapReadsTheSameWithAndWithoutPositions(f *testing.F) {
	for _, in := range someBootstraps {
		f.Add([]byte(in))
	}
	f.Add(manyClusters(1, false))
	f.Add(manyClusters(1, true))
	f.Fuzz(func(t *testing.T, in []byte) { bothWays(t, in, nil) })
}
