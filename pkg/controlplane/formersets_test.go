// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// A cluster that forgot labels before the routes by them had left every proxy would give
// their requests to any instance.
func TestClustersKnowTheLabelsOfRoutesThatProxiesStillHave(t *testing.T) {
	xds, err := server.New(server.Config{Groups: groupsOf})
	if err != nil {
		t.Fatal(err)
	}
	defer xds.Close()
	known := map[string]string{}
	b := newBuilder(func(name string, m proto.Message) (*server.Resource, error) {
		switch x := m.(type) {
		case *clusterv3.Cluster:
			known["cluster"] = ""
			for _, s := range x.GetLbSubsetConfig().GetSubsetSelectors() {
				known["cluster"] += strings.Join(s.GetKeys(), "+") + " "
			}
		case *endpointv3.ClusterLoadAssignment:
			known["endpoints"] = ""
			for _, k := range []string{"stage", "version"} {
				if x.GetEndpoints()[0].GetLbEndpoints()[0].GetMetadata().GetFilterMetadata()[resource.LBNamespace].GetFields()[k] != nil {
					known["endpoints"] += k + " "
				}
			}
		}
		return xds.NewResource(name, m)
	}, "")
	m := mesh.Empty().Apply(mesh.Change{PutInstance: &mesh.Instance{
		Service: "orders", ID: "a", Address: "10.0.0.1", Port: 80, Version: "v1", Metadata: map[string]string{"stage": "canary"},
	}})
	begin := time.Unix(1e9, 0)
	for i, step := range []struct {
		labels    string // of the route; "": there is none, "as before": nothing has changed
		after     time.Duration
		cluster   string
		endpoints string
	}{
		{"{version: v1}", 0, "version ", "version "},
		{"{stage: canary}", time.Second, "stage version ", "stage version "},
		{"{stage: canary, version: v1}", 2 * time.Second, "stage stage+version version ", "stage version "},
		{"as before", 3 * time.Second, "stage stage+version ", "stage version "}, // those of the first route are gone
		{"{stage: canary}", 3500 * time.Millisecond, "stage stage+version ", "stage version "},
		{"as before", 6 * time.Second, "stage ", "stage "},
		{"", 7 * time.Second, "stage ", "stage "},
		{"as before", 9 * time.Second, "", ""},
	} {
		switch step.labels {
		case "as before":
		case "":
			m = m.Apply(mesh.Change{Delete: mesh.Key{Kind: mesh.KindHTTPRoute, Name: "r"}})
		default:
			o, err := mesh.ParseOne([]byte(fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{kind: Service, name: orders}], rules: [{backendRefs: [{name: orders, labels: %s}]}]}
`, step.labels)))
			if err != nil {
				t.Fatal(err)
			}
			m = m.Apply(mesh.Change{Put: o})
		}
		now := begin.Add(step.after)
		epoch := int64(0)
		if step.labels == "as before" {
			if end := b.former.end(); end.After(now) || end.IsZero() {
				t.Errorf("step %d: nothing ends, but at %v", i, end)
			}
			epoch = int64(i) // as the loop counts what has ended
		}
		b.adopt(m, now)
		if _, problems := b.build(Group{Kind: KindMesh}, now, epoch); len(problems) > 0 {
			t.Fatal(problems)
		}
		if known["cluster"] != step.cluster || known["endpoints"] != step.endpoints {
			t.Errorf("step %d: the cluster knows %q, want %q, its endpoints %q, want %q", i, known["cluster"], step.cluster, known["endpoints"], step.endpoints)
		}
	}
	if !b.former.end().IsZero() || len(b.index.SubsetKeys("orders")) > 0 {
		t.Errorf("at last %v are kept", b.former)
	}
}
