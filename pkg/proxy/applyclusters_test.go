// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// unrun is a proxy whose loops do not run, for what Apply itself does.
func unrun(t testing.TB) *Proxy {
	t.Helper()
	p, err := New(Options{Workers: 1, LocalCluster: "c0", Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// randomClusters makes configurations that follow each other.
type randomClusters struct {
	rng *rand.Rand
	now *resource.Snapshot
}

func (r *randomClusters) cluster(name string) *resource.Cluster {
	c := &resource.Cluster{Name: name}
	switch r.rng.IntN(6) {
	case 0:
		c.Type = resource.Aggregate
		for range 1 + r.rng.IntN(3) {
			c.Members = append(c.Members, fmt.Sprintf("c%d", r.rng.IntN(10)))
		}
	case 1:
		c.TLS = &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{ValidationSecret: "roots"}}
	case 2:
		c.Breaker = &resource.CircuitBreaker{Enabled: true, Window: time.Second, Buckets: 10}
	case 3:
		c.LB.SlowStart.Window = time.Second
	}
	return c
}

func (r *randomClusters) assignment(name string) *resource.Assignment {
	return &resource.Assignment{Cluster: name, Localities: []resource.Locality{{Weight: 1, Endpoints: []resource.Endpoint{
		{Address: resource.Address{Host: fmt.Sprintf("192.0.2.%d", 1+r.rng.IntN(9)), Port: 80}, Weight: 1},
	}}}}
}

// next changes some clusters, and says which.
func (r *randomClusters) next() *resource.Snapshot {
	s := *r.now
	s.Version++
	s.Clusters, s.Assignments = maps.Clone(s.Clusters), maps.Clone(s.Assignments)
	names := map[string]bool{}
	for range r.rng.IntN(4) {
		name := fmt.Sprintf("c%d", r.rng.IntN(10))
		names[name] = true
		switch r.rng.IntN(4) {
		case 0:
			delete(s.Clusters, name)
			delete(s.Assignments, name)
		case 1:
			s.Assignments[name] = r.assignment(name)
		default:
			s.Clusters[name] = r.cluster(name)
			if s.Assignments[name] == nil {
				s.Assignments[name] = r.assignment(name)
			}
		}
	}
	if r.rng.IntN(8) == 0 {
		s.Secrets = map[string]*resource.Secret{}
	}
	if r.rng.IntN(16) == 0 {
		s.Runtime = &resource.Runtime{}
	}
	s.Changes = &resource.Changes{Since: r.now.Version, Clusters: slices.Sorted(maps.Keys(names))}
	r.now = &s
	return &s
}

// clusterState is what an Apply has to leave behind, as text.
func clusterState(p *Proxy) string {
	out := ""
	for _, name := range slices.Sorted(maps.Keys(p.slots)) {
		c := p.slots[name]
		s := c.spec.Load()
		if s == nil {
			continue
		}
		out += fmt.Sprintf("%s given %p assigned %p hosts %v circuit %t tls %d changes %d known by name %t", name, s.given, s.assigned, s.lb.View().Len(),
			s.circuit != nil, len(c.transports()), s.changes, (*p.workers[0].byName.Load())[name] == c)
		if list := c.members.Load(); list != nil {
			for _, m := range *list {
				out += fmt.Sprintf(" member %s is that %t", m.name, p.slots[m.name] == m)
			}
		}
		out += "\n"
	}
	var listed []string
	for _, c := range *p.clusters.Load() {
		listed = append(listed, c.name)
	}
	slices.Sort(listed)
	return out + fmt.Sprint("list ", listed, " by name ", len(*p.workers[0].byName.Load()), " restless ", slices.Sorted(maps.Keys(p.restless)), " aggregates ", slices.Sorted(maps.Keys(p.aggregates)))
}

func TestChangesLeaveTheStateThatAllClustersWould(t *testing.T) {
	for seed := range uint64(60) {
		r := &randomClusters{rng: rand.New(rand.NewPCG(seed, 1)), now: &resource.Snapshot{Clusters: map[string]*resource.Cluster{}, Assignments: map[string]*resource.Assignment{}}}
		some, all := unrun(t), unrun(t)
		for step := range 40 {
			s := r.next()
			if r.rng.IntN(10) == 0 {
				s = r.next() // one that is never applied
			}
			whole := *s
			whole.Changes = nil
			errSome, errAll := some.Apply(s), all.Apply(&whole)
			if (errSome == nil) != (errAll == nil) {
				t.Fatalf("seed %d, step %d: by changes %v, as a whole %v", seed, step, errSome, errAll)
			}
			if r.rng.IntN(3) > 0 {
				some.removeStale()
				all.removeStale()
			}
			for _, p := range []*Proxy{some, all} {
				p.tick(int64(step+1) * int64(time.Second))
				p.refreshZones(nil)
				p.rotateFiles()
			}
			if got, want := clusterState(some), clusterState(all); got != want {
				t.Fatalf("seed %d, step %d, by the changes %q:\n%s\n\nas a whole:\n%s", seed, step, s.Changes.Clusters, got, want)
			}
		}
	}
}

// idleClusters is a proxy with n clusters, and the snapshot of them.
func idleClusters(b *testing.B, n int) (*Proxy, *resource.Snapshot) {
	p := unrun(b)
	r := &randomClusters{rng: rand.New(rand.NewPCG(1, 1))}
	s := &resource.Snapshot{Version: 1, Clusters: map[string]*resource.Cluster{}, Assignments: map[string]*resource.Assignment{}}
	for i := range n {
		name := fmt.Sprintf("cluster-%06d", i)
		s.Clusters[name], s.Assignments[name] = &resource.Cluster{Name: name}, r.assignment(name)
	}
	if err := p.Apply(s); err != nil {
		b.Fatal(err)
	}
	p.tick(1)
	return p, s
}

// BenchmarkOneClusterIsChanged applies snapshots of n clusters that change one, with and
// without saying so.
func BenchmarkOneClusterIsChanged(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		for _, said := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/said=%t", n, said), func(b *testing.B) {
				p, s := idleClusters(b, n)
				b.ReportAllocs()
				for b.Loop() {
					next := *s
					next.Version++
					if said {
						next.Changes = &resource.Changes{Since: s.Version, Clusters: []string{"cluster-000007"}}
					}
					s.Clusters["cluster-000007"] = &resource.Cluster{Name: "cluster-000007"}
					if err := p.Apply(&next); err != nil {
						b.Fatal(err)
					}
					p.removeStale()
					s = &next
				}
			})
		}
	}
}

// BenchmarkTickOfIdleClusters is one merge tick of n clusters that nobody uses.
func BenchmarkTickOfIdleClusters(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, _ := idleClusters(b, n)
			for b.Loop() {
				p.tick(1)
			}
		})
	}
}
