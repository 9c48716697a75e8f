// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// Two sidecars on one host with a copied --id listen at different ports.
func TestANodeIDThatTwoSidecarsHaveIsShown(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	connect := func(inbound string) func() {
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(d.dial()).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := structpb.NewStruct(map[string]any{"service": "orders", "inbound": inbound, "app": "127.0.0.1:8080"})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(node *corev3.Node) {
			if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: clusterType, ResourceNamesSubscribe: []string{"*"}}); err != nil {
				t.Fatal(err)
			}
		}
		ask(&corev3.Node{Id: "orders~o-1", Cluster: "orders", UserAgentName: "outrigger-sidecar", Metadata: meta})
		if _, err := st.Recv(); err != nil {
			t.Fatal(err)
		}
		return func() { ask(nil) }
	}
	first := connect("127.0.0.1:15006")
	d.want(d.run("", "status"), 0, "orders~o-1")
	connect("127.0.0.1:15106")
	first() // it is alive
	d.eventually("! orders~o-1 is the node id of 2 sidecars at once (127.0.0.1:", "status")
	d.want(d.run("", "status", "orders", "-o", "json"), 0, `"shared": [`, `"inbound": "127.0.0.1:15106"`)
	d.eventually("shared orders~o-1: 127.0.0.1:", "events", "--kind", "sidecar")
	d.want(d.run("", "events", "--kind", "sidecar"), 0, "are connected with this node id at once, and each may be taken for the other: give every sidecar its own --id")
}
