// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"reflect"
	"strconv"
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestResponsesAreCountedByStatus(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		code, _ := strconv.Atoi(q.URL.Path[1:])
		w.WriteHeader(code)
	})
	r := statusRig(t, 2, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	for _, path := range []string{"/200", "/404", "/404", "/503", "/404"} {
		r.get(path)
	}
	r.wantStats(map[string]uint64{
		"cluster.c.upstream_rq_200": 1, "cluster.c.upstream_rq_404": 3, "cluster.c.upstream_rq_503": 1, "cluster.c.upstream_rq_4xx": 3,
	})
	if _, there := r.stats()["cluster.c.upstream_rq_500"]; there {
		t.Error("a status that was not met is shown")
	}
}

func TestCountingAStatusAllocatesNothingOnceItWasMet(t *testing.T) {
	var c statusCounts
	for s := 200; s < 210; s++ {
		c.add(s, 1)
	}
	if n := testing.AllocsPerRun(100, func() { c.add(209, 1); c.add(200, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if c[0].status != 200 && c[0].status != 209 {
		t.Errorf("what is met often is not found first: %v", c)
	}
}

func TestChangesOfTheConfigurationAreCounted(t *testing.T) {
	r := statusRig(t, 1, func(s *resource.Snapshot) { withCluster(s, "c", "192.0.2.1:80"); withCluster(s, "d", "192.0.2.1:80") })
	r.wantStats(map[string]uint64{
		"cluster_manager.cluster_added": 2, "cluster_manager.cluster_modified": 0, "cluster.c.membership_change": 1,
		"listener_manager.listener_added": 1, "listener_manager.listener_modified": 0,
	})
	r.snap.Assignments["c"] = assignment("c", "192.0.2.1:80", "192.0.2.2:80")
	d := *r.snap.Clusters["d"]
	d.IdleTimeout /= 2
	r.snap.Clusters["d"] = &d
	l := *r.snap.Listeners["l"]
	l.BufferLimit = 5
	r.snap.Listeners["l"] = &l
	r.apply(r.snap)
	r.wantStats(map[string]uint64{
		"cluster_manager.cluster_added": 2, "cluster_manager.cluster_modified": 1, "cluster_manager.cluster_removed": 0,
		"cluster.c.membership_change": 2, "cluster.d.membership_change": 1,
		"listener_manager.listener_added": 1, "listener_manager.listener_modified": 1, "listener_manager.listener_removed": 0,
	})
	delete(r.snap.Clusters, "c")
	busy := *r.snap.Listeners["l"]
	busy.Name = "busy"
	busy.Addresses = []resource.Address{{Host: "192.0.2.1", Port: 1}} // no address of this host
	r.snap.Listeners["busy"] = &busy
	r.snap.Version++
	if r.p.Apply(frozen(r.snap)) == nil {
		t.Fatal("a listener on a foreign address could be opened")
	}
	r.wantStats(map[string]uint64{"outrigger.config_version_adopted": r.snap.Version})
	delete(r.snap.Listeners, "busy")
	delete(r.snap.Listeners, "l")
	r.apply(r.snap)
	r.wantStats(map[string]uint64{
		"cluster_manager.cluster_removed": 1, "listener_manager.listener_removed": 1, "listener_manager.listener_create_failure": 1,
	})
}

func TestEveryCountOfAWorkerIsAddedUp(t *testing.T) {
	var sum, one workerStats
	// All of it are counts, some of them in arrays.
	counts := func(s *workerStats) []uint64 {
		return unsafe.Slice((*uint64)(unsafe.Pointer(s)), unsafe.Sizeof(*s)/unsafe.Sizeof(uint64(0)))
	}
	for i := range counts(&one) {
		counts(&one)[i] = uint64(i + 1)
	}
	sum.add(&one)
	sum.add(&one)
	of := reflect.TypeFor[workerStats]()
	for i := range of.NumField() {
		f := of.Field(i)
		for k := f.Offset / 8; k < (f.Offset+f.Type.Size())/8; k++ {
			if got, want := counts(&sum)[k], 2*counts(&one)[k]; got != want {
				t.Errorf("%s of two workers: got %d, want %d", f.Name, got, want)
			}
		}
	}
}
