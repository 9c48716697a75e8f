// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestARandomSubsetIsFairAndHardlyChanges(t *testing.T) {
	const hosts, size, clusters = 50, 10, 2000
	cfg := &resource.Cluster{LB: resource.LoadBalancing{SubsetSize: size}}
	all, without := manyHosts(hosts, false), manyHosts(hosts, false)
	without.Localities[0].Endpoints = slices.Delete(without.Localities[0].Endpoints, 7, 8)
	used, changed := map[string]int{}, 0
	for range clusters {
		c := NewCluster(cfg)
		c.Update(cfg, all)
		before := slices.Clone(c.View().Hosts())
		if len(before) != size {
			t.Fatalf("%d hosts, want %d", len(before), size)
		}
		for _, h := range before {
			used[h.Text()]++
		}
		c.HealthChanged()
		if !slices.Equal(c.View().Hosts(), before) {
			t.Fatal("another subset without another list")
		}
		c.Update(cfg, without)
		for _, h := range before {
			if h.Gone() {
				changed++
			}
		}
		if len(c.View().Hosts()) != size {
			t.Fatalf("%d hosts after one has gone, want %d", len(c.View().Hosts()), size)
		}
	}
	for host, n := range used { // 400 ± 5 standard deviations of 18
		if n < 310 || n > 490 {
			t.Errorf("%s is in %d of %d subsets, want about %d", host, n, clusters, clusters*size/hosts)
		}
	}
	if changed != used["10.0.0.7:80"] {
		t.Errorf("%d hosts left subsets, want only the one that has gone, from %d", changed, used["10.0.0.7:80"])
	}
}

func TestARandomSubsetIsOfEachPriority(t *testing.T) {
	a := manyHosts(20, false)
	ends := a.Localities[0].Endpoints
	a.Localities = []resource.Locality{{Endpoints: ends[:3]}, {Priority: 1, Endpoints: ends[3:]}}
	cfg := &resource.Cluster{LB: resource.LoadBalancing{SubsetSize: 5}, Static: a}
	v := NewCluster(cfg).View()
	if p := v.Priorities(); len(p) != 2 || p[0].Total() != 3 || p[1].Total() != 5 {
		t.Errorf("%+v, want 3 and 5 hosts", p)
	}
}
