// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// moreMemory is what a sidecar may take beyond its own, whatever a management
// server sends: a response of the largest size, once as bytes and once decoded,
// with what the collector leaves of the one before.
const moreMemory = 96 << 20

// hostile is a sidecar under load whose management server sends what it likes.
// All it needs comes from there: cluster and endpoints "app", listener and routes
// "main".
type hostile struct {
	t          *testing.T
	api        string
	server     *xdstest.Raw
	sidecar    *mesh.Sidecar
	app, other *mesh.App
	main       string // address
	load       *mesh.Load
	base       int // bytes of memory
	round      int
}

func newHostile(t *testing.T, api string) *hostile {
	h := &hostile{t: t, api: api, server: xdstest.StartRaw(t), main: mesh.FreeAddress(t)}
	h.app, h.other = mesh.StartApp(t, t.TempDir(), "app"), mesh.StartApp(t, t.TempDir(), "other")
	h.send("", nil)
	h.sidecar = mesh.StartDynamic(t, t.TempDir(), h.server.Addr, api)
	h.sidecar.AwaitReady()
	h.load = mesh.StartLoad(t, mesh.LoadConfig{Address: h.main, Host: "a", Conns: 10, Rate: 200})
	h.load.AwaitSent(50)
	h.base = h.sidecar.RSS()
	return h
}

// send gives the server the good configuration, with a new good cluster and
// listener in it, and of one type further resources. Of those a "main" or "app"
// takes the place of the good one. It returns the new listener's address.
func (h *hostile) send(typeURL string, bad []xdstest.Named) (address string) {
	h.round++
	version := fmt.Sprintf("v%d", h.round)
	ok := "ok-" + version
	address = mesh.FreeAddress(h.t)
	sets := map[string][]xdstest.Named{
		resourcev3.ClusterType:  {named(h.t, "app", edsCluster("app", h.t)), named(h.t, ok, xdsCluster(h.t, ok, h.other.Address))},
		resourcev3.EndpointType: {named(h.t, "app", assignment(h.t, "app", h.app.Address))},
		resourcev3.ListenerType: {named(h.t, "main", xdsListener(h.t, "main", h.main, nil)), named(h.t, ok, xdsListener(h.t, ok, address, clusterRoute(ok)))},
		resourcev3.RouteType:    {named(h.t, "never", routeConfig("never", clusterRoute("app")))},
	}
	for _, b := range bad {
		list := slices.DeleteFunc(sets[typeURL], func(n xdstest.Named) bool { return n.Name == b.Name })
		sets[typeURL] = list
	}
	// In the midst of the good ones, where there is more than one.
	sets[typeURL] = slices.Insert(sets[typeURL], min(1, len(sets[typeURL])), bad...)
	for _, u := range []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType} {
		h.server.Set(u, version, sets[u]...)
	}
	return address
}

// inService waits until the new good listener beside what is bad answers.
func (h *hostile) inService(address, beside string) time.Duration {
	h.t.Helper()
	return mesh.Await(h.t, 40*time.Second, "the good resources beside "+beside, func() error {
		a, err := mesh.Call(address, "a", "/")
		if err == nil && (a.Status != http.StatusOK || a.Header.Get(mesh.InstanceHeader) != "other") {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
}

// refused waits for a NACK that has all the words.
func (h *hostile) refused(since int, what string, words []string) (nack string) {
	h.t.Helper()
	mesh.Await(h.t, 10*time.Second, "a refusal of "+what, func() error {
		var nacks []string
		for _, e := range h.server.Seen()[since:] {
			if e.Nack == "" {
				continue
			}
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Nack, w) }) {
				nack = e.Nack
				return nil
			}
			nacks = append(nacks, e.Nack)
		}
		return fmt.Errorf("none has all of %q: %q", words, nacks)
	})
	return nack
}

// end checks what must hold in the end: no request failed, nothing but the good
// configuration was in use, and memory was bounded.
func (h *hostile) end(what string) (tally mesh.Tally, more int) {
	h.t.Helper()
	h.load.AwaitSent(50)
	tally = h.load.Stop()
	tally.Flawless(h.t, what)
	if n := tally.Instances["app"]; n != tally.Sent {
		h.t.Errorf("%s: %d of %d requests were answered by the application of the good configuration", what, n, tally.Sent)
	}
	if more = h.sidecar.PeakRSS() - h.base; more > moreMemory {
		h.t.Errorf("%s: %d MiB more memory, at most %d are allowed", what, more>>20, moreMemory>>20)
	}
	return tally, more
}

func named(t *testing.T, name string, m proto.Message) xdstest.Named {
	t.Helper()
	return xdstest.Named{Name: name, Any: pack(t, m)}
}

// garbled is a resource whose marker is replaced by other bytes of the same length.
func garbled(t *testing.T, name string, m proto.Message, marker, by string) xdstest.Named {
	t.Helper()
	n := named(t, name, m)
	if !bytes.Contains(n.Any.Value, []byte(marker)) || len(marker) != len(by) {
		t.Fatalf("%q cannot be replaced by %q", marker, by)
	}
	n.Any.Value = bytes.ReplaceAll(n.Any.Value, []byte(marker), []byte(by))
	return n
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func edsCluster(name string, t *testing.T) *clusterv3.Cluster {
	t.Helper()
	c := xdsCluster(t, name, "127.0.0.1:1")
	c.ClusterDiscoveryType, c.LoadAssignment = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, nil
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}
	return c
}

func assignment(t *testing.T, name, address string) *endpointv3.ClusterLoadAssignment {
	t.Helper()
	return xdsCluster(t, name, address).LoadAssignment
}

func routeConfig(name string, routes ...*routev3.Route) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}
}

// gone answers everything with 404: seen where a bad resource is used in part.
func gone() *routev3.Route {
	r := clusterRoute("")
	r.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusNotFound}}
	return r
}

func TestAHostileManagementServerIsRefusedByNameAndTheGoodResourcesAreTaken(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, api)
			var example string
			for _, c := range hostileCases {
				since := len(h.server.Seen())
				address := h.send(c.typeURL, c.make(t))
				took := h.inService(address, c.name)
				words := c.words
				if api == "GRPC" && c.world != nil {
					words = c.world
				}
				if len(words) > 0 {
					example = h.refused(since, c.name, words)
				}
				if took > 5*time.Second {
					t.Errorf("%s: the good resources took %v", c.name, took)
				}
			}
			// None of the refusals stays: all is well again.
			h.inService(h.send("", nil), "nothing bad")
			tally, more := h.end("under hostile configuration")
			mesh.Conformance(t, "C4", "%s: %d hostile responses, each refused by name and field or harmless, the good resources of each in service; %d requests, %d failed; at most %d MiB more memory; e.g. %q",
				api, len(hostileCases), tally.Sent, tally.Failed, more>>20, example)
		})
	}
}

// TestAnOversizedResponseIsNotReadAndNotAskedForInALoop sends 64 MB in one
// resource for some seconds, and then a good configuration.
func TestAnOversizedResponseIsNotReadAndNotAskedForInALoop(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			h := newHostile(t, api)
			huge := pack(t, xdsListener(t, "huge", mesh.FreeAddress(t), regexRoute(strings.Repeat("a", 64<<20))))
			streams := h.server.Streams()
			before := h.sidecar.CPU()
			began := time.Now()
			h.send(resourcev3.ListenerType, []xdstest.Named{{Name: "huge", Any: huge}})
			met := h.sidecar.AwaitStat("control_plane.oversized", func(n int) bool { return n >= 3 })
			share := float64(h.sidecar.CPU()-before) / float64(time.Since(began))
			if n := h.server.Streams() - streams; n > met+1 {
				t.Errorf("%d streams for %d responses that were too large", n, met)
			}
			// The pauses between three are at least half of 500 ms and half of 1 s.
			if took := time.Since(began); took < 750*time.Millisecond {
				t.Errorf("three streams within %v: no pause grows", took)
			}
			if share > 0.5 {
				t.Errorf("%.0f %% of a core", 100*share)
			}
			if log := h.sidecar.Output(); !strings.Contains(log, "xds response too large") || !strings.Contains(log, "more than the 16777216 bytes") {
				t.Errorf("the log does not say so:\n%s", log)
			}
			recovered := h.inService(h.send("", nil), "nothing bad")
			h.sidecar.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 1 })
			tally, more := h.end("during an oversized response")
			if more > 48<<20 {
				t.Errorf("%d MiB more memory for a response that is not read", more>>20)
			}
			mesh.Conformance(t, "C4", "%s: a resource of 64 MB: not read, told of in log and stats, %d streams in %v; %d requests, %d failed; at most %d MiB more memory, %.0f %% of a core; the next good one after %v",
				api, met, time.Since(began).Round(time.Second), tally.Sent, tally.Failed, more>>20, 100*share, recovered.Round(100*time.Millisecond))
		})
	}
}
