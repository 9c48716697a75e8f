// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// inZones gives each endpoint of an assignment the zone of its place in the list.
func inZones(a *resource.Assignment, zones ...string) {
	ends := a.Localities[0].Endpoints
	a.Localities = nil
	for i, z := range zones {
		a.Localities = append(a.Localities, resource.Locality{Zone: z, Endpoints: ends[i : i+1 : i+1]})
	}
}

func TestRequestsStayInTheZoneOfTheProxy(t *testing.T) {
	answers := func(text string) string {
		return backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
	here, there := answers("a"), answers("b")
	r := newRigOf(t, Options{Workers: 1, DrainTime: 200 * time.Millisecond, LocalCluster: "members", Locality: lb.Place{Zone: "a"}}, func(s *resource.Snapshot) {
		withCluster(s, "c", here, there).LB.ZoneAware = &resource.ZoneAware{Enabled: 100, MinClusterSize: 2}
		inZones(s.Assignments["c"], "a", "b")
		withCluster(s, "members", "10.0.0.1:1", "10.0.0.2:1")
		inZones(s.Assignments["members"], "a", "b")
	})
	for range 10 {
		if _, body := r.get("/"); body != "a" {
			t.Fatalf("answered by zone %s, want a", body)
		}
	}
	r.wantStats(map[string]uint64{
		"cluster.c.lb_zone_routing_all_directly": 10, "cluster.c.lb_zone_routing_cross_zone": 0,
		"cluster.c.lb_recalculate_zone_structures": 1, "cluster.c.lb_zone_cluster_too_small": 0, "cluster.c.lb_local_cluster_not_ok": 0,
	})
	// The members of this zone go: what is not known of is not followed.
	next := assignment("members", "10.0.0.2:1", "10.0.0.3:1")
	inZones(next, "b", "c")
	r.snap.Assignments["members"] = next
	r.apply(r.snap)
	seen := map[string]bool{}
	for range 10 {
		_, body := r.get("/")
		seen[body] = true
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("answered by the zones %v, want both", seen)
	}
	r.wantStats(map[string]uint64{"cluster.c.lb_local_cluster_not_ok": 1, "cluster.c.lb_recalculate_zone_structures": 2})
	// An ejection of a member is seen without a new configuration.
	r.snap.Assignments["members"] = assignment("members", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
	inZones(r.snap.Assignments["members"], "a", "a", "b")
	r.apply(r.snap)
	var members *lb.Cluster
	for _, c := range *r.p.clusters.Load() {
		if c.name == "members" {
			members = c.spec.Load().lb
		}
	}
	members.View().Hosts()[0].SetEjected(true)
	members.HealthChanged()
	r.wantStats(map[string]uint64{"cluster.c.lb_recalculate_zone_structures": 4})
}
