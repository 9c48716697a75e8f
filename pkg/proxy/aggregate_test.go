// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// joinsClusters makes a cluster an aggregate of others.
func joinsClusters(s *resource.Snapshot, name string, members ...string) *resource.Cluster {
	c := withCluster(s, name)
	delete(s.Assignments, name)
	c.Type, c.Members, c.Static = resource.Aggregate, members, &resource.Assignment{Cluster: name}
	return c
}

// named is an instance that answers with its name.
func named(t *testing.T, name string) string {
	return backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

func failed(a *resource.Assignment) *resource.Assignment {
	for i := range a.Localities[0].Endpoints {
		a.Localities[0].Endpoints[i].Health = resource.Unhealthy
	}
	return a
}

func TestAnAggregateUsesItsMembersInOrderWithTheirOwnSettings(t *testing.T) {
	first, second := named(t, "first"), named(t, "second")
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "a", first)
		withCluster(s, "b", second)
		joinsClusters(s, "inner", "b")
		joinsClusters(s, "c", "a", "nowhere", "inner")
	})
	if _, body := r.get("/"); body != "first" {
		t.Errorf("while all are healthy: %q", body)
	}
	r.snap.Assignments["a"] = failed(assignment("a", first))
	r.apply(r.snap)
	if _, body := r.get("/"); body != "second" {
		t.Errorf("after the first member has failed: %q", body)
	}
	// The member's own limits hold, and its own counters count.
	withCluster(r.snap, "a", first).Default.MaxRequests = 0
	joinsClusters(r.snap, "c", "a")
	r.apply(r.snap)
	if resp, _ := r.get("/"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("x-envoy-overloaded") == "" {
		t.Errorf("beyond the member's limit: %d", resp.StatusCode)
	}
	list, err := r.p.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for i := range list {
		got[list[i].FullName()] = list[i].Value
	}
	for name, want := range map[string]uint64{
		"cluster.a.upstream_rq_total": 1, "cluster.c.upstream_rq_total": 0, "cluster.a.upstream_rq_active_overflow": 1,
	} {
		if n := got[name]; n != want {
			t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
}

func TestAnAggregateWithoutHostsRefuses(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "a")
		joinsClusters(s, "c", "a", "nowhere")
	})
	if resp, body := r.get("/"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "no healthy upstream") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestAnAggregateThatIsItsOwnMemberIsRefusedByName(t *testing.T) {
	up := named(t, "up")
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", up) })
	s := baseSnapshot(r.addr)
	s.Version = 100
	joinsClusters(s, "c", "d")
	joinsClusters(s, "d", "e", "ok")
	joinsClusters(s, "e", "c")
	withCluster(s, "ok", up)
	err := r.p.Apply(s)
	if err == nil || !strings.Contains(err.Error(), `cluster "c": aggregate: "c" is a member of itself, by way of c > d > e`) {
		t.Errorf("error %v", err)
	}
}

// The ways through such layers are more than can be walked: 32 to the power of 6.
func TestLayersOfAggregatesThatNameAllOfTheNextAreFlattened(t *testing.T) {
	const layers, width = 7, 32
	up := named(t, "up")
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "leaf", up)
		next := []string{"leaf"}
		for layer := range layers {
			var all []string
			for i := range width {
				name := fmt.Sprintf("g%d-%d", layer, i)
				joinsClusters(s, name, next...)
				all = append(all, name)
			}
			next = all
		}
		joinsClusters(s, "c", next...)
	})
	if _, body := r.get("/"); body != "up" {
		t.Errorf("%q", body)
	}
}

// One of a member's four hosts is healthy: by itself it would be in panic.
func TestTheShareOfAMemberGoesToSoundHostsOfTheRoutesSubset(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		subsetCluster(t, s, "a", byVersion(resource.SubsetAny), "1", "2", "3", "3")
		for i, health := range []resource.HealthStatus{resource.Unhealthy, resource.Healthy, resource.Unhealthy, resource.Unhealthy} {
			s.Assignments["a"].Localities[0].Endpoints[i].Health = health
		}
		subsetCluster(t, s, "b", byVersion(resource.SubsetAny), "1")
		joinsClusters(s, "c", "a", "b")
		routes := &s.Routes["r"].VirtualHosts[0].Routes
		action := *(*routes)[0].Action
		action.Clusters = []resource.WeightedCluster{{Name: "c", Weight: 1, MetadataMatch: wants("1")}}
		one := &resource.Route{Name: "one", Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: "/one"}, Action: &action}
		*routes = append([]*resource.Route{one}, *routes...)
	})
	for range 60 {
		if _, body := r.get("/one"); body != "1" {
			t.Errorf("a request of version 1 went to %q", body)
		}
		if _, body := r.get("/"); body == "3" {
			t.Error("a request went to a host that is unhealthy")
		}
	}
}

func TestAConnectionGoesToAMemberOfAnAggregate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "dead", "127.0.0.1:1")
		s.Assignments["dead"] = failed(assignment("dead", "127.0.0.1:1"))
		withCluster(s, "a", l.Addr().String())
		joinsClusters(s, "c", "dead", "a")
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour,
		}}
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}
