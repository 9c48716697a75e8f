// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const dynamic = "dynamic" // node of mesh.StartDynamic

// badResources are what a faulty management server sends beside good ones.
var badResources = []struct {
	name string
	make func(t *testing.T) types.Resource
	nack string // part of the reason; empty where it is no error but never ready
}{
	{"a load balancer that nobody has", func(t *testing.T) types.Resource {
		c := xdsCluster(t, "bad", "127.0.0.1:1")
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		return c
	}, "lb_policy"},
	{"a port that is none", func(t *testing.T) types.Resource { return xdsCluster(t, "bad", "127.0.0.1:70000") }, "port_value"},
	{"a regular expression that is none", func(t *testing.T) types.Resource {
		return xdsListener(t, "bad", mesh.FreeAddress(t), regexRoute("(a"))
	}, "regex"},
	{"a regular expression of a megabyte", func(t *testing.T) types.Resource {
		return xdsListener(t, "bad", mesh.FreeAddress(t), regexRoute(strings.Repeat("(a|b)", 1<<20/5)))
	}, "regex"},
	{"a filter that nobody has", func(t *testing.T) types.Resource {
		l := xdsListener(t, "bad", mesh.FreeAddress(t), clusterRoute("app"))
		l.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/example.Nonsense", Value: []byte{1, 2, 3}}}
		return l
	}, "filter"},
	{"an address in use", func(t *testing.T) types.Resource {
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { busy.Close() }) //nolint:errcheck // never used
		return xdsListener(t, "bad", busy.Addr().String(), clusterRoute("app"))
	}, ""},
	{"routes that never come", func(t *testing.T) types.Resource {
		l := xdsListener(t, "bad", mesh.FreeAddress(t), nil)
		return l
	}, ""},
}

// TestABadResourceIsRefusedAndBlocksNothing sends each bad resource together with
// a new good cluster and listener, to a sidecar under load.
func TestABadResourceIsRefusedAndBlocksNothing(t *testing.T) {
	t.Parallel()
	// A server that speaks state of the world answers a refusal with the same again,
	// so the sidecar holds its refusals back, five seconds each: two will do.
	for _, mode := range []struct {
		name, api string
		most      int
	}{{"state of the world", "GRPC", 2}, {"delta", "DELTA_GRPC", len(badResources)}} {
		t.Run(mode.name, func(t *testing.T) { badResource(t, mode.api, mode.most) })
	}
}

func badResource(t *testing.T, api string, most int) {
	server := xdstest.Start(t, xdstest.Options{})
	app, other := mesh.StartApp(t, t.TempDir(), "app"), mesh.StartApp(t, t.TempDir(), "other")
	main := mesh.FreeAddress(t)
	good := []types.Resource{xdsCluster(t, "app", app.Address), xdsListener(t, "main", main, clusterRoute("app"))}
	server.Set(t, dynamic, snapshot(t, "start", good...))
	s := mesh.StartDynamic(t, t.TempDir(), server.Addr, api)
	s.AwaitReady()
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: main, Host: "a", Conns: 10, Rate: 200})
	load.AwaitSent(20)
	var reasons []string
	for i, bad := range badResources[:most] {
		address := mesh.FreeAddress(t)
		version := fmt.Sprintf("bad-%d", i)
		began := len(server.Seen())
		server.Set(t, dynamic, snapshot(t, version, append(slices.Clone(good),
			bad.make(t), xdsCluster(t, version, other.Address), xdsListener(t, version, address, clusterRoute(version)))...))
		s.Await(15*time.Second, "the good resources beside "+bad.name, func() error {
			a, err := mesh.Call(address, "a", "/")
			if err == nil && (a.Status != http.StatusOK || a.Header.Get(mesh.InstanceHeader) != "other") {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return err
		})
		if bad.nack == "" {
			continue
		}
		mesh.Await(t, 10*time.Second, "a refusal of "+bad.name, func() error {
			var others []string
			for _, e := range server.Seen()[began:] {
				if strings.Contains(e.Nack, `"bad"`) && strings.Contains(e.Nack, bad.nack) {
					reasons = append(reasons, e.Nack)
					return nil
				}
				if e.Nack != "" {
					others = append(others, e.Nack)
				}
			}
			return fmt.Errorf("only %q", others)
		})
	}
	// The listener of the load itself, in a version that cannot be used.
	began := len(server.Seen())
	server.Set(t, dynamic, snapshot(t, "main-bad", good[0], xdsListener(t, "main", main, regexRoute("(a"))))
	mesh.Await(t, 10*time.Second, "a refusal of the new version of main", func() error {
		for _, e := range server.Seen()[began:] {
			if strings.Contains(e.Nack, "main") {
				return nil
			}
		}
		return fmt.Errorf("none")
	})
	load.AwaitSent(50)
	tally := load.Stop()
	tally.Flawless(t, "under bad configuration")
	mesh.Conformance(t, "C4", "%s: %d bad resources, each refused by name or left waiting, the good ones beside them in service; %d requests, %d failed; e.g. %q",
		api, most+1, tally.Sent, tally.Failed, reasons[0])
}

func snapshot(t *testing.T, version string, list ...types.Resource) cachev3.ResourceSnapshot {
	t.Helper()
	byType := map[resourcev3.Type][]types.Resource{resourcev3.ClusterType: nil, resourcev3.ListenerType: nil}
	for _, r := range list {
		switch r.(type) {
		case *clusterv3.Cluster:
			byType[resourcev3.ClusterType] = append(byType[resourcev3.ClusterType], r)
		case *listenerv3.Listener:
			byType[resourcev3.ListenerType] = append(byType[resourcev3.ListenerType], r)
		}
	}
	s, err := cachev3.NewSnapshot(version, byType)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func xdsAddress(t *testing.T, address string) *corev3.Address {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
	}}}
}

func xdsCluster(t *testing.T, name, address string) *clusterv3.Cluster {
	t.Helper()
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: xdsAddress(t, address)},
			}}},
		}}},
	}
}

// xdsListener has its routes in it, or waits for some that never come.
func xdsListener(t *testing.T, name, address string, route *routev3.Route) *listenerv3.Listener {
	t.Helper()
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:  name,
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "never", ConfigSource: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}}},
	}
	if route != nil {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{route}}},
		}}
	}
	return &listenerv3.Listener{Name: name, Address: xdsAddress(t, address), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, m)},
		}},
	}}}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func clusterRoute(name string) *routev3.Route {
	return &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name}}},
	}
}

func regexRoute(expression string) *routev3.Route {
	r := clusterRoute("app")
	r.Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}
	return r
}
