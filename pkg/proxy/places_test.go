// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A connection that we have no descriptor for says nothing about who was to get it.
func TestAWantOfDescriptorsIsNotHeldAgainstEndpoints(t *testing.T) {
	arrived, release := make(chan bool), make(chan bool)
	holder := backend(t, func(_ http.ResponseWriter, q *http.Request) {
		arrived <- true
		<-release
	})
	good := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	dead := freeAddr(t)
	r := newRigOf(t, Options{Workers: 1, DrainTime: 200 * time.Millisecond, Dialling: 1}, func(s *resource.Snapshot) {
		ejects := &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100, Interval: time.Second, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 100}
		withCluster(s, "holder", holder)
		withCluster(s, "c", good).Outlier = ejects
		withCluster(s, "dead", dead).Outlier = ejects
		vh := s.Routes["r"].VirtualHosts[0]
		for path, cluster := range map[string]string{"/hold": "holder", "/dead": "dead"} {
			vh.Routes = append([]*resource.Route{{Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: path},
				Action: &resource.RouteAction{Clusters: []resource.WeightedCluster{{Name: cluster, Weight: 1}}, TotalWeight: 1, Timeout: 10 * time.Second}}}, vh.Routes...)
		}
	})
	held := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + r.addr + "/hold")
		if err != nil {
			t.Error(err)
			held <- 0
			return
		}
		_ = resp.Body.Close()
		held <- resp.StatusCode
	}()
	<-arrived // its connection has the only place
	for range 10 {
		if resp, _ := r.get("/"); resp.StatusCode != 503 {
			t.Errorf("status %d without a descriptor, want 503", resp.StatusCode)
		}
	}
	close(release)
	if got := <-held; got != 200 {
		t.Errorf("status %d of the request that has the place", got)
	}
	// The ejections of one that is really gone come after any of before.
	eventually(t, "the dead endpoint is ejected", func() bool {
		r.get("/dead")
		return len(r.p.Ejections()) > 0
	})
	for _, e := range r.p.Ejections() {
		if e.Cluster != "dead" {
			t.Errorf("ejected: %+v", e)
		}
	}
	if resp, _ := r.get("/"); resp.StatusCode != 200 {
		t.Errorf("status %d with a descriptor again", resp.StatusCode)
	}
}

func TestAWorkerGivesItsIdleConnectionToOneThatHasNoPlace(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	r := newRigOf(t, Options{Workers: 2, DrainTime: 200 * time.Millisecond, Dialling: 1}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	call := func(worker int) int {
		got := make(chan Answer, 1)
		if err := r.p.SubmitOffLoop(worker, "l", Call{Method: "GET", Authority: "x", Path: "/"}, func(a Answer) { got <- a }); err != nil {
			t.Fatal(err)
		}
		return (<-got).Status
	}
	for i := range 6 {
		eventually(t, "the worker whose turn it is reaches the upstream", func() bool { return call(i%2) == 200 })
	}
}
