// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// labelled is a route with a rule for each of some labels, each with a path of its own.
func labelled(name, created string, labels ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s, createdAt: %q}\nspec:\n  parentRefs: [{kind: Service, name: orders}]\n  rules:\n", name, created)
	for _, l := range labels {
		fmt.Fprintf(&b, "  - matches: [{path: {value: /%s}}]\n    backendRefs: [{name: orders, labels: {%s: x}}]\n", l, l)
	}
	return b.String()
}

// Whoever writes a route may not take the cluster of a service out of force for all others,
// nor what an older route chooses by.
func TestLabelsOfRoutesBeyondTheLimitChooseNothing(t *testing.T) {
	var many []string
	for i := range 70 {
		many = append(many, fmt.Sprint("a", i))
	}
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	s.put(t, labelled("old", "2024-01-01T00:00:00Z", "version"))
	for i := range 2 {
		s.put(t, labelled(fmt.Sprint("new", i), "2025-01-01T00:00:00Z", many[35*i:35*(i+1)]...))
	}
	m := s.Model()
	built, problems := controlplane.Build(m, controlplane.Group{Kind: controlplane.KindMesh}, time.Now(), "")
	cluster, _ := built[server.TypeCluster][encode.OutboundCluster("orders")].(*clusterv3.Cluster)
	selectors := cluster.GetLbSubsetConfig().GetSubsetSelectors()
	if len(selectors) != 64 || !slices.ContainsFunc(selectors, func(s *clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector) bool {
		return slices.Equal(s.GetKeys(), []string{"version"})
	}) {
		t.Errorf("the cluster has %d selectors, want 64 with the oldest route's: %v", len(selectors), problems)
	}
	answers := map[uint32]int{}
	for _, host := range built[server.TypeRoute][encode.OutboundRoutes].(*routev3.RouteConfiguration).GetVirtualHosts() {
		for _, r := range host.GetRoutes() {
			if d := r.GetDirectResponse(); d != nil {
				answers[d.GetStatus()]++
			}
		}
	}
	if len(answers) != 1 || answers[503] != 7 {
		t.Errorf("rules that answer by themselves: %v, want 7 with 503", answers)
	}
	if len(problems) != 7 {
		t.Errorf("problems %v, want one for each such rule", problems)
	}
	for name, refused := range map[string]bool{"old": false, "new0": false, "new1": true} {
		err := controlplane.Check(m, m.Object(mesh.Key{Kind: mesh.KindHTTPRoute, Name: name}), time.Now())
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "spec.rules[28]: labels of \"orders\"") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLabelsThatNoRouteNamesAreForgottenByThemselves(t *testing.T) {
	s := newState()
	s.apply(instance("orders", "a", anywhere))
	p := startPlane(t, s, controlplane.Config{})
	connect(t, p, "orders", 1)
	version := func() string {
		for _, g := range p.Server().Groups() {
			if g.Type == server.TypeCluster && g.Group == controlplane.KindMesh {
				return g.Version
			}
		}
		return ""
	}
	eventually(t, "there are clusters", func() bool { return version() != "" })
	before := version()
	s.put(t, labelled("r", "2024-01-01T00:00:00Z", "version"))
	eventually(t, "the cluster is divided", func() bool { return version() != before })
	s.apply(mesh.Change{Delete: mesh.Key{Kind: mesh.KindHTTPRoute, Name: "r"}})
	eventually(t, "the cluster is as before", func() bool { return version() == before })
}
