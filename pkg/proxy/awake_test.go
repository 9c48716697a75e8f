// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestOnlyClustersWithSomethingToDoAreTicked(t *testing.T) {
	p := unrun(t)
	s := &resource.Snapshot{Version: 1, Clusters: map[string]*resource.Cluster{}, Assignments: map[string]*resource.Assignment{}}
	withCluster(s, "idle", "192.0.2.1:80")
	withCluster(s, "slow", "192.0.2.2:80").LB.SlowStart.Window = time.Minute
	if err := p.Apply(s); err != nil {
		t.Fatal(err)
	}
	now := int64(time.Second)
	expect := func(when string, names ...string) {
		t.Helper()
		p.tick(now)
		got := map[string]bool{}
		for _, c := range p.awake.list {
			got[c.name] = true
		}
		for _, name := range names {
			if !got[name] {
				t.Errorf("%s: %q is not looked at", when, name)
			}
		}
		if len(got) != len(names) {
			t.Errorf("%s: looked at %v, want %q", when, got, names)
		}
	}
	view := p.slots["idle"].spec.Load().lb.View()
	expect("after the first tick", "slow")
	if p.slots["idle"].watch.view != view {
		t.Error("a new cluster was not looked at once")
	}
	w := p.workers[0]
	on := w.clusterOn(p.slots["idle"])
	on.dirty = true
	on.flush(now)
	expect("after requests", "slow", "idle")
	now += quietAfter
	expect("until it has been quiet for long", "slow", "idle")
	now++
	expect("when it has been", "slow")
	on.dirty = true
	on.flush(now)
	expect("after requests again", "slow", "idle")
	delete(s.Clusters, "idle")
	next := *s
	next.Version++
	if err := p.Apply(&next); err != nil {
		t.Fatal(err)
	}
	p.removeStale()
	expect("when it has gone", "slow")
}
