// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// clustersEnv is how many clusters there are; a tenth as many routes.
const clustersEnv = "OUTRIGGER_CLUSTERS"

// clusterBytes is what a cluster with one endpoint may need.
const clusterBytes = 8 << 10

// TestManyClustersAreLoadedAndOneIsChangedAtLittleCost gives a sidecar thousands of clusters
// and routes and an endpoint set of a thousand by delta xDS, under load: what they need, and
// what a change of one of them costs.
func TestManyClustersAreLoadedAndOneIsChangedAtLittleCost(t *testing.T) {
	n, changes := 2000, 10
	if s := os.Getenv(clustersEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1000 {
			t.Fatalf("%s=%q: want at least 1000", clustersEnv, s)
		}
	}
	server, address := xdstest.StartRaw(t), mesh.FreeAddress(t)
	app, other := mesh.StartApp(t, t.TempDir(), "app"), mesh.StartApp(t, t.TempDir(), "other")
	name := func(i int) string { return fmt.Sprintf("cluster-%06d", i) }
	last := name(n - 1)
	var routes []*routev3.Route
	for i := range n/10 - 1 {
		r := clusterRoute(name(i))
		r.Match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/r/%06d/", i)}
		routes = append(routes, r)
	}
	toLast := clusterRoute(last)
	toLast.Match.PathSpecifier = &routev3.RouteMatch_Path{Path: "/last"}
	routes = append(routes, toLast, clusterRoute("app"))
	big := xdsCluster(t, "big", app.Address)
	list := &big.LoadAssignment.Endpoints[0].LbEndpoints
	for i := range 999 {
		*list = append(*list, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: xdsAddress(t, fmt.Sprintf("127.1.%d.%d:80", i/250, 1+i%250))},
		}})
	}
	server.Set(resourcev3.ClusterType, "v0", named(t, "app", xdsCluster(t, "app", app.Address)))
	server.Set(resourcev3.ListenerType, "v0", named(t, "main", xdsListener(t, "main", address, nil)))
	server.Set(resourcev3.RouteType, "v0", named(t, "never", routeConfig("never", routes...)))
	s := mesh.StartDynamic(t, t.TempDir(), server.Addr, "DELTA_GRPC")
	s.AwaitReady()
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: address, Host: "a", Conns: 10, Rate: 200})
	load.AwaitSent(100)
	s.AwaitStat("outrigger.memory_releases_total", func(n int) bool { return n > 0 })
	before := s.RSS()
	load.Take()

	sent := 0
	add := func(list ...xdstest.Named) {
		sent++
		version := fmt.Sprintf("v%d", sent)
		server.Add(resourcev3.ClusterType, version, list...)
		server.Wait(t, "the response "+version, func(e xdstest.Exchange) bool { return !e.Request && e.Version == version })
	}
	var all []xdstest.Named
	for i := range n {
		all = append(all, named(t, name(i), xdsCluster(t, name(i), app.Address)))
	}
	began, cpu := time.Now(), s.CPU()
	add(named(t, "big", big))
	const part = 10_000
	for at := 0; at < n; at += part {
		add(all[at:min(at+part, n)]...)
	}
	answeredBy := func(id string) {
		s.Await(2*time.Minute, "the last cluster to be answered by "+id, func() error {
			a, err := mesh.Call(address, "a", "/last")
			if by := a.Header.Get(mesh.InstanceHeader); err == nil && (a.Status != http.StatusOK || by != id) {
				err = fmt.Errorf("%d by %q", a.Status, by)
			}
			return err
		})
	}
	answeredBy("app")
	loaded, loading := time.Since(began), s.CPU()-cpu
	meanwhile := load.Take()
	meanwhile.Flawless(t, "while clusters were loaded")
	each := 0
	if n < 10_000 { // others' memory would count for too much
		each = (s.PeakRSS() - before) / n
	} else {
		s.Await(time.Minute, "the memory of clusters", func() error {
			if each = (s.RSS() - before) / n; each > clusterBytes {
				return fmt.Errorf("%d bytes each, bound %d", each, clusterBytes)
			}
			return nil
		})
	}
	idle := s.CPUShare(time.Second)
	began, cpu = time.Now(), s.CPU()
	for i := range changes {
		to := []*mesh.App{other, app}[i%2]
		add(named(t, last, xdsCluster(t, last, to.Address)))
		answeredBy(to.ID)
	}
	took := time.Since(began)
	cost := (s.CPU() - cpu - time.Duration(idle*float64(took))) / time.Duration(changes)
	// One of n is changed: that must cost next to nothing of what all of them did.
	if bound := max(loading/20, 50*time.Millisecond); cost > bound {
		t.Errorf("a change of one of %d clusters costs %v of CPU, all of them cost %v", n, cost, loading)
	}
	tally := load.Stop()
	tally.Flawless(t, "while one of them was changed")
	if loaded > 30*time.Second {
		t.Errorf("loaded after %v", loaded)
	}
	mesh.Conformance(t, "D20", "%d clusters, %d routes, a set of 1000 endpoints: in service after %v (%v of CPU), %d bytes for a cluster (bound %d); a change of one in service after %v (mean), %v of CPU; %d requests, 0 failed, slowest %v while they came, %v after",
		n, n/10, loaded.Round(10*time.Millisecond), loading, each, clusterBytes, (took / time.Duration(changes)).Round(time.Millisecond), max(0, cost.Round(time.Millisecond)),
		meanwhile.Sent+tally.Sent, meanwhile.Slowest.Round(time.Millisecond), tally.Slowest.Round(time.Millisecond))
}
