// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

// parts are the resources of a snapshot by type.
type parts map[resourcev3.Type][]types.Resource

func snapshot(t testing.TB, version string, p parts) *cachev3.Snapshot {
	t.Helper()
	s, err := cachev3.NewSnapshot(version, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func httpListener(mode, name string, port uint32, route string) *listenerv3.Listener {
	return gcptest.MakeRouteHTTPListener(mode, name, port, route)
}

// good is a small world that works.
func good(mode, version string) parts {
	return parts{
		resourcev3.ClusterType:  {cluster(mode, "orders"), cluster(mode, "payments")},
		resourcev3.EndpointType: {endpoints("orders"), endpoints("payments")},
		resourcev3.RouteType:    {routes("main", "orders")},
		resourcev3.ListenerType: {httpListener(mode, "in", 9000, "main")},
	}
}

func TestABadResourceIsRefusedByNameAndDoesNotStopTheOthers(t *testing.T) {
	bad := map[string]struct {
		change func(mode string, p parts)
		nack   string // what the NACK says
		kept   func(s *resource.Snapshot) bool
	}{
		"an unsupported field": {
			func(mode string, p parts) {
				p[resourcev3.ClusterType] = []types.Resource{badCluster(mode, "orders"), cluster(mode, "payments"), cluster(mode, "new")}
				p[resourcev3.EndpointType] = append(p[resourcev3.EndpointType], endpoints("new"))
			},
			`decode cluster "orders": lb_policy: unsupported CLUSTER_PROVIDED`,
			func(s *resource.Snapshot) bool { return s.Clusters["new"] != nil && s.Clusters["orders"] != nil },
		},
		"a regular expression of 1 MB": {
			func(mode string, p parts) {
				rc := routes("main", "orders")
				rc.VirtualHosts[0].Routes[0].Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: strings.Repeat("a?", 500_000)}}
				p[resourcev3.RouteType] = []types.Resource{rc}
				p[resourcev3.ListenerType] = append(p[resourcev3.ListenerType], httpListener(mode, "extra", 9001, "main"))
			},
			`decode route configuration "main": virtual_hosts[0].routes[0].match.safe_regex.regex: has 1000000 bytes, at most 1024 are accepted`,
			func(s *resource.Snapshot) bool { return s.Listeners["extra"] != nil && s.Routes["main"] != nil },
		},
		"a resource of 5 MB": {
			func(mode string, p parts) {
				c := cluster(mode, "orders")
				c.AltStatName = strings.Repeat("x", 5<<20)
				p[resourcev3.ClusterType] = []types.Resource{c, cluster(mode, "payments"), cluster(mode, "new")}
				p[resourcev3.EndpointType] = append(p[resourcev3.EndpointType], endpoints("new"))
			},
			`at most 4194304 are accepted`,
			func(s *resource.Snapshot) bool { return s.Clusters["new"] != nil && s.Clusters["orders"] != nil },
		},
		"duplicate domains": {
			func(mode string, p parts) {
				rc := routes("main", "orders")
				rc.VirtualHosts[0].Domains = []string{"a", "A"}
				p[resourcev3.RouteType] = []types.Resource{rc}
				p[resourcev3.ListenerType] = append(p[resourcev3.ListenerType], httpListener(mode, "extra", 9001, "main"))
			},
			`virtual_hosts[0].domains[1]: "a" is listed twice in the route configuration`,
			func(s *resource.Snapshot) bool { return s.Listeners["extra"] != nil && s.Routes["main"] != nil },
		},
	}
	for name, tt := range bad {
		for _, mode := range []string{"ads", "delta-ads"} {
			t.Run(name+" over "+mode, func(t *testing.T) {
				t.Parallel()
				s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
				p := good(mode, "1")
				s.Set(t, nodeID, snapshot(t, "1", p))
				c := start(t, bootstrapFor(t, mode, s), settings{})
				before := c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
				tt.change(mode, p)
				s.Set(t, nodeID, snapshot(t, "2", p))
				s.Wait(t, "NACK", func(e xdstest.Exchange) bool { return strings.Contains(e.Nack, tt.nack) })
				after := c.wait(t, "the good part of the change", tt.kept)
				if after.Clusters["orders"] != before.Clusters["orders"] || after.Routes["main"] != before.Routes["main"] {
					t.Errorf("what was refused or is unchanged did not keep its pointer")
				}
				st := c.client.Status()
				if len(st.Refused) != 1 || !strings.Contains(st.Refused[0].Reason, tt.nack) {
					t.Errorf("Status shows %+v", st.Refused)
				}
			})
		}
	}
}

func TestAServerThatRepeatsARefusedResponseIsNotAnsweredInALoop(t *testing.T) {
	t.Parallel()
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	p := good("ads", "1")
	s.Set(t, nodeID, snapshot(t, "1", p))
	c := start(t, bootstrapFor(t, "ads", s), settings{})
	c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	p[resourcev3.ClusterType] = []types.Resource{badCluster("ads", "orders"), cluster("ads", "payments")}
	s.Set(t, nodeID, snapshot(t, "2", p))
	// go-control-plane answers a NACK at once with the same response.
	first := s.Wait(t, "NACK", func(e xdstest.Exchange) bool { return e.Nack != "" })
	s.Wait(t, "the same response again", func(e xdstest.Exchange) bool {
		return !e.Request && e.Type == first.Type && e.Version == "2" && e.Nonce > first.Nonce
	})
	began := time.Now()
	s.Wait(t, "second NACK", func(e xdstest.Exchange) bool { return strings.Contains(e.Nack, "refused again") })
	if d := time.Since(began); d < 4*time.Second {
		t.Errorf("the second NACK came after %s, want about 5s", d)
	}
	if st := c.client.Status(); st.Sources[0].Types[0].LastNack == "" {
		t.Errorf("Status does not show the NACK: %+v", st)
	}
}

func TestConfigurationSurvivesTheDeathAndReturnOfItsServer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"ads", "delta-ads", "delta"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			s.Set(t, nodeID, snapshot(t, "1", good(mode, "1")))
			c := start(t, bootstrapFor(t, mode, s), settings{})
			c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
			count := len(c.snapshots())
			s.Stop()
			waitStatus(t, c.client, "disconnected", func(st client.Status) bool { return !st.Sources[0].Connected && st.Sources[0].LastError != "" })
			s2 := xdstest.Start(t, xdstest.Options{ADS: mode == "ads", Addr: s.Addr})
			s2.Set(t, nodeID, snapshot(t, "1", good(mode, "1")))
			e := s2.Wait(t, "request", func(e xdstest.Exchange) bool { return e.Request && e.Type == resourcev3.ClusterType })
			if mode == "ads" && e.Version != "1" || mode != "ads" && len(e.Initial) != 2 {
				t.Errorf("the client does not say what it holds: %+v", e)
			}
			if e.Node.GetUserAgentName() != "outrigger-sidecar" {
				t.Errorf("node is %v", e.Node)
			}
			if n := len(c.snapshots()); n != count {
				t.Errorf("%d snapshots while the server was away", n-count)
			}
			p := good(mode, "2")
			p[resourcev3.RouteType] = []types.Resource{routes("main", "payments")}
			s2.Set(t, nodeID, snapshot(t, "2", p))
			c.wait(t, "the new route", func(s *resource.Snapshot) bool {
				return s.Routes["main"].VirtualHosts[0].Routes[0].Action.Clusters[0].Name == "payments"
			})
		})
	}
}

func waitStatus(t testing.TB, c *client.Client, what string, ok func(client.Status) bool) client.Status {
	t.Helper()
	deadline := time.Now().Add(25 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		st := c.Status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("status is not %s after 25s: %+v", what, st)
		}
	}
	return client.Status{}
}

// keep runs a client until its configuration is on disk, and returns the folder.
func keep(t *testing.T, mode string) (dir, addr string) {
	t.Helper()
	dir = t.TempDir()
	s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
	s.Set(t, nodeID, snapshot(t, "1", good(mode, "1")))
	c := start(t, bootstrapFor(t, mode, s), settings{store: client.NewLastGood(dir)})
	c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	c.stop()
	s.Stop()
	info, err := os.Stat(filepath.Join(dir, "xds-last-good"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %o, want 600", info.Mode().Perm())
	}
	return dir, s.Addr
}

func TestTheLastGoodConfigurationServesWhileTheServerIsAway(t *testing.T) {
	for _, mode := range []string{"ads", "delta-ads"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir, addr := keep(t, mode)
			began := time.Now()
			c := start(t, bootstrapFor(t, mode, &xdstest.Server{Addr: addr}), settings{store: client.NewLastGood(dir)})
			c.wait(t, "the last good world", func(s *resource.Snapshot) bool {
				return s.Listeners["in"] != nil && len(s.Clusters) == 4 && len(s.Assignments["orders"].Localities) == 1
			})
			if d := time.Since(began); d > 5*time.Second { // and not after a timeout
				t.Errorf("it took %s", d)
			}
			if st := c.client.Status(); !st.FromLastGood {
				t.Errorf("Status does not say so: %+v", st)
			}
			// The server returns with less: what it no longer has goes.
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads", Addr: addr})
			p := good(mode, "9")
			p[resourcev3.ClusterType] = p[resourcev3.ClusterType][:1]
			p[resourcev3.EndpointType] = p[resourcev3.EndpointType][:1]
			s.Set(t, nodeID, snapshot(t, "9", p))
			c.wait(t, "the fresh world", func(s *resource.Snapshot) bool { return s.Clusters["payments"] == nil })
			waitStatus(t, c.client, "fresh", func(st client.Status) bool { return !st.FromLastGood })
		})
	}
}

func TestABrokenCopyOfTheLastGoodConfigurationIsNotUsed(t *testing.T) {
	dir, addr := keep(t, "ads")
	path := filepath.Join(dir, "xds-last-good")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-5] ^= 1
	for name, data := range map[string][]byte{
		"cut short": whole[:len(whole)/2], "one bit flipped": flipped, "empty": nil, "something else": []byte("hello"),
		"the checksum only": whole[:15+65],
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			c := start(t, bootstrapFor(t, "ads", &xdstest.Server{Addr: addr}), settings{store: client.NewLastGood(dir)})
			waitStatus(t, c.client, "trying", func(st client.Status) bool { return len(st.Sources) > 0 })
			s := xdstest.Start(t, xdstest.Options{ADS: true, Addr: addr})
			defer s.Stop()
			s.Set(t, nodeID, snapshot(t, "2", good("ads", "2")))
			got := c.wait(t, "the fresh world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
			if got.Version != 1 {
				t.Errorf("something was published before: version is %d", got.Version)
			}
			c.stop()
		})
	}
}

func TestAnotherOnesLastGoodConfigurationIsNotUsed(t *testing.T) {
	dir, addr := keep(t, "ads")
	for _, c := range []struct{ name, server, id, told string }{
		{"another node", "xds_cluster", "somebody-else", "was made for another node"},
		{"another server", "other_cluster", "test-id", "was made by xds_cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			boot := strings.NewReplacer("id: test-id", "id: "+c.id, "xds_cluster", c.server).Replace(bootstrapFor(t, "ads", &xdstest.Server{Addr: addr}))
			var log strings.Builder
			node := start(t, boot, settings{store: client.NewLastGood(dir), log: slog.NewTextHandler(&log, nil)})
			waitStatus(t, node.client, "trying", func(st client.Status) bool { return len(st.Sources) > 0 && st.Sources[0].Failures > 0 })
			if n := len(node.snapshots()); n != 0 {
				t.Errorf("%d snapshots were published", n)
			}
			node.stop()
			if want := "level=INFO msg=\"the last good configuration " + c.told + "; fetched anew\""; !strings.Contains(log.String(), want) {
				t.Errorf("got %q, want %q", log.String(), want)
			}
		})
	}
}

func TestADanglingRouteIsHeldAndTheOldOneServes(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{})
	p := good("delta-ads", "1")
	s.Set(t, nodeID, snapshot(t, "1", p))
	c := start(t, bootstrapFor(t, "delta-ads", s), settings{})
	c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	p[resourcev3.RouteType] = []types.Resource{routes("main", "nowhere")}
	s.Set(t, nodeID, snapshot(t, "2", p))
	waitStatus(t, c.client, "waiting for the cluster", func(st client.Status) bool {
		return st.Held == 1 && strings.Join(st.Waiting, "") == `cluster "nowhere"`
	})
	for _, snap := range c.snapshots() {
		if missing := closed(snap); missing != "" {
			t.Errorf("a snapshot lacks %s", missing)
		}
	}
	p[resourcev3.ClusterType] = append(p[resourcev3.ClusterType], cluster("delta-ads", "nowhere"))
	p[resourcev3.EndpointType] = append(p[resourcev3.EndpointType], endpoints("nowhere"))
	s.Set(t, nodeID, snapshot(t, "3", p))
	c.wait(t, "the route to the new cluster", func(s *resource.Snapshot) bool {
		return s.Clusters["nowhere"] != nil && s.Routes["main"].VirtualHosts[0].Routes[0].Action.Clusters[0].Name == "nowhere"
	})
}

func TestOnlyWhatChangedGetsANewPointer(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	p := good("ads", "1")
	s.Set(t, nodeID, snapshot(t, "1", p))
	c := start(t, bootstrapFor(t, "ads", s), settings{})
	before := c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	p[resourcev3.EndpointType] = []types.Resource{manyEndpoints("orders", 1, 3), endpoints("payments")}
	s.Set(t, nodeID, snapshot(t, "2", p))
	after := c.wait(t, "three endpoints", func(s *resource.Snapshot) bool {
		a := s.Assignments["orders"]
		return a != nil && len(a.Localities) == 1 && len(a.Localities[0].Endpoints) == 3
	})
	switch {
	case before.Assignments["payments"] != after.Assignments["payments"]:
		t.Error("the other assignment has a new pointer")
	case before.Clusters["orders"] != after.Clusters["orders"], before.Listeners["in"] != after.Listeners["in"], before.Routes["main"] != after.Routes["main"]:
		t.Error("an unchanged resource has a new pointer")
	case after.Version <= before.Version:
		t.Error("the version does not grow")
	}
}

func TestStaticResourcesAloneMakeASnapshot(t *testing.T) {
	c := start(t, `
static_resources:
  clusters:
  - name: app
    load_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: app}
layered_runtime:
  layers:
  - {name: base, static_layer: {a: {b: 1}, c: x}}
  - {name: over, static_layer: {a: {b: 2}}}
`, settings{})
	s := c.wait(t, "static resources", func(s *resource.Snapshot) bool { return true })
	if s.Listeners["in"] == nil || s.Assignments["app"] == nil || s.Runtime.Numbers["a.b"] != 2 || s.Runtime.Texts["c"] != "x" {
		t.Errorf("got %+v", s)
	}
}

func TestTheDumpIsEnvoysAndHoldsNoSecrets(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	p := good("ads", "7")
	p[resourcev3.ClusterType] = append(p[resourcev3.ClusterType], badCluster("ads", "broken"))
	s.Set(t, nodeID, snapshot(t, "7", p))
	boot := strings.Replace(bootstrapFor(t, "ads", s), "    - envoy_grpc: {cluster_name: xds_cluster}", "    - envoy_grpc: {cluster_name: xds_cluster}\n      initial_metadata: [{key: authorization, value: hunter2}]", 1)
	c := start(t, boot, settings{})
	c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	text, err := c.client.Dump(true)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("hunter2")) || !bytes.Contains(text, []byte("[redacted]")) {
		t.Error("the token is in the dump")
	}
	var d struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(d.Configs)
	for _, want := range []string{"BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "EndpointsConfigDump", "dynamic_active_clusters", "xds_cluster", "unsupported CLUSTER_PROVIDED"} {
		if !strings.Contains(got, want) {
			t.Errorf("the dump has no %q", want)
		}
	}
}
