// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// BenchmarkAnEndpointChangeIn1000ServicesAnd200Groups is the build alone: what
// is made, and marshalled, is one assignment.
func BenchmarkAnEndpointChangeIn1000ServicesAnd200Groups(b *testing.B) {
	xds, err := server.New(server.Config{Groups: groupsOf})
	if err != nil {
		b.Fatal(err)
	}
	defer xds.Close()
	builder := newBuilder(func(name string, m proto.Message) (*server.Resource, error) { return xds.NewResource(name, m) }, "mesh.example")
	m := mesh.Empty()
	put := func(service string, id, host int) mesh.Change {
		return mesh.Change{PutInstance: &mesh.Instance{Service: service, ID: fmt.Sprint(id), Address: fmt.Sprintf("10.0.0.%d", host), Port: 80}}
	}
	var changes []mesh.Change
	for i := range 1000 {
		for j := range 10 {
			changes = append(changes, put(fmt.Sprint("service-", i), j, j+1))
		}
	}
	m = m.Apply(changes...)
	groups := []Group{{Kind: KindMesh}}
	for i := range 200 {
		groups = append(groups, Group{Kind: KindSidecar, Service: fmt.Sprint("service-", i), Inbound: "0.0.0.0:15006", Outbound: "127.0.0.1:15001", App: "127.0.0.1:80"})
	}
	now := time.Unix(0, 0)
	build := func() (resources int) {
		builder.adopt(m, now)
		for _, g := range groups {
			updates, problems := builder.build(g, now, 0)
			if len(problems) > 0 {
				b.Fatal(problems)
			}
			for _, u := range updates {
				resources += len(u.Changed)
			}
		}
		return resources
	}
	build()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m = m.Apply(put("service-7", 3, i%250+1))
		if got := build(); got != 1 && i > 0 {
			b.Fatalf("got %d resources, want 1", got)
		}
	}
}

// FuzzGroup: a group's key says all that the group is, whatever a node says of itself.
func FuzzGroup(f *testing.F) {
	f.Add("outrigger-sidecar", "orders", "0.0.0.0:15006", "127.0.0.1:15001", "127.0.0.1:8080", "registry-only")
	f.Add("envoy", "", "", "a&b=c", "%", "\x00")
	f.Add("gRPC Go", "x", "?", "", "", "")
	f.Fuzz(func(t *testing.T, agent, service, inbound, outbound, app, policy string) {
		n := server.Node{ID: "n", UserAgent: agent, Metadata: map[string]any{
			"service": service, "inbound": inbound, "outbound": outbound, "app": app, "outboundPolicy": policy,
		}}
		want := groupOf(n)
		got, err := ParseGroup(want.String())
		if err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		resources, problems := Build(mesh.Empty(), got, time.Unix(0, 0), "mesh.example")
		if len(resources) == 0 && len(problems) == 0 && got.Kind == KindEnvoy {
			t.Fatalf("%+v: neither a resource nor a problem", got)
		}
	})
}
