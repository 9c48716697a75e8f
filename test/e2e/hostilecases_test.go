// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// hostileCases are what a hostile management server sends beside good resources.
// The routes of the load are called "never", its endpoints "app": new versions of
// those must not take effect, not even in part.
var hostileCases = []struct {
	name    string
	typeURL string
	make    func(t *testing.T) []xdstest.Named
	// words are what the NACK must have, nil where it is no error; world those with
	// state of the world, where resources have no name of their own beside them.
	words, world []string
}{
	{"a cluster with a field that is not supported", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		c := xdsCluster(t, "bad", "127.0.0.1:1")
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		return []xdstest.Named{named(t, "bad", c)}
	}, []string{`decode cluster "bad": lb_policy: `}, nil},
	{"a cluster twice", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "bad", xdsCluster(t, "bad", "127.0.0.1:1")), named(t, "bad", xdsCluster(t, "bad", "127.0.0.1:2"))}
	}, []string{`cluster "bad": is in the response twice`}, nil},
	{"a cluster without a name", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "", xdsCluster(t, "", "127.0.0.1:1"))}
	}, []string{"resources[1]", "cluster", "name: "}, nil},
	{"a cluster that calls itself otherwise", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "bad", xdsCluster(t, "worse", "127.0.0.1:1"))}
	}, []string{`cluster "bad": `, `name: `, `"worse"`}, []string{}},
	{"a cluster with text that is no UTF-8", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		c := xdsCluster(t, "bad", "127.0.0.1:1")
		c.AltStatName = "MARK"
		return []xdstest.Named{garbled(t, "bad", c, "MARK", "\xff\xfe\xfd\xfc")}
	}, []string{`cluster "bad": `, "alt_stat_name", "UTF-8"}, nil},
	{"a cluster whose name is no UTF-8", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{garbled(t, "MARK", xdsCluster(t, "MARK", "127.0.0.1:1"), "MARK", "\xff\xfe\xfd\xfc")}
	}, []string{`cluster "MARK": `, "name", "UTF-8"}, []string{"resources[1]", "cluster: name: ", "UTF-8"}},
	{"a cluster of bytes that are none", resourcev3.ClusterType, func(*testing.T) []xdstest.Named {
		return []xdstest.Named{{Name: "bad", Any: &anypb.Any{TypeUrl: resourcev3.ClusterType, Value: []byte("\x0a\xff\xff\xff\xff\x0f")}}}
	}, []string{`cluster "bad": `, "wire-format"}, []string{"resources[1]", "cluster", "wire-format"}},
	{"a listener among clusters", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "bad", xdsListener(t, "bad", "127.0.0.1:1", clusterRoute("app")))}
	}, []string{`cluster "bad": `, resourcev3.ListenerType}, []string{"resources[1]", "cluster", resourcev3.ListenerType}},
	{"a cluster of a type that nobody has", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		n := named(t, "bad", xdsCluster(t, "bad", "127.0.0.1:1"))
		n.Any.TypeUrl = "type.googleapis.com/example.Nonsense"
		return []xdstest.Named{n}
	}, []string{`cluster "bad": `, "example.Nonsense"}, []string{"resources[1]", "cluster", "example.Nonsense"}},
	{"a cluster of 5 MB", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		c := xdsCluster(t, "bad", "127.0.0.1:1")
		c.AltStatName = strings.Repeat("x", 5<<20)
		return []xdstest.Named{named(t, "bad", c)}
	}, []string{`cluster "bad": has 52`, "at most 4194304 are accepted"}, nil},
	{"a cluster that gets its endpoints through itself", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "bad", through(t, "bad", "bad"))}
	}, []string{`cluster "bad": eds_cluster_config.eds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: `}, nil},
	{"two clusters that get their endpoints through each other", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "bad", through(t, "bad", "worse")), named(t, "worse", through(t, "worse", "bad"))}
	}, []string{`cluster "bad": eds_cluster_config.eds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: `, `cluster "worse": eds_cluster_config.eds_config.api_config_source.grpc_services[0].envoy_grpc.cluster_name: `}, nil},
	{"a cluster without endpoints", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		c := xdsCluster(t, "empty", "127.0.0.1:1")
		c.LoadAssignment.Endpoints = nil
		return []xdstest.Named{named(t, "empty", c)}
	}, nil, nil},
	{"a cluster whose endpoints never come", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "waiting", edsCluster("waiting", t))}
	}, nil, nil},
	{"endpoints with a port that is none", resourcev3.EndpointType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "app", assignment(t, "app", "127.0.0.1:70000"))}
	}, []string{`"app": endpoints[0].lb_endpoints[0]`, "port_value"}, nil},
	{"endpoints of bytes that are none", resourcev3.EndpointType, func(t *testing.T) []xdstest.Named {
		n := named(t, "app", assignment(t, "app", "127.0.0.1:1"))
		n.Any.Value = append(n.Any.Value, 0xff)
		return []xdstest.Named{n}
	}, []string{`"app": `, "wire-format"}, nil},
	{"endpoints twice", resourcev3.EndpointType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "app", assignment(t, "app", "127.0.0.1:1")), named(t, "app", &endpointv3.ClusterLoadAssignment{ClusterName: "app"})}
	}, []string{`"app": is in the response twice`}, nil},
	{"routes with a regular expression of 1 MB", resourcev3.RouteType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "never", routeConfig("never", gone(), regexRoute(strings.Repeat("a?", 1<<19))))}
	}, []string{`"never": virtual_hosts[0].routes[1].match.safe_regex.regex: has 1048576 bytes`}, nil},
	{"routes with a domain twice", resourcev3.RouteType, func(t *testing.T) []xdstest.Named {
		r := routeConfig("never", gone())
		r.VirtualHosts[0].Domains = []string{"*", "a", "A"}
		return []xdstest.Named{named(t, "never", r)}
	}, []string{`"never": virtual_hosts[0].domains[2]: `}, nil},
	{"routes to a cluster that never comes", resourcev3.RouteType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{named(t, "never", routeConfig("never", clusterRoute("nowhere")))}
	}, nil, nil},
	{"a listener with a filter that nobody has", resourcev3.ListenerType, func(t *testing.T) []xdstest.Named {
		l := xdsListener(t, "bad", mesh.FreeAddress(t), clusterRoute("app"))
		l.FilterChains[0].Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/example.Nonsense", Value: []byte{1, 2, 3}}}
		return []xdstest.Named{named(t, "bad", l)}
	}, []string{`listener "bad": filter_chains[0].filters[0].typed_config`, "example.Nonsense"}, nil},
	{"the load's listener with a filter of bytes that are none", resourcev3.ListenerType, func(t *testing.T) []xdstest.Named {
		l := xdsListener(t, "main", mesh.FreeAddress(t), clusterRoute("app"))
		l.FilterChains[0].Filters[0].GetTypedConfig().Value = []byte{0xff}
		return []xdstest.Named{named(t, "main", l)}
	}, []string{`listener "main": filter_chains[0].filters[0].typed_config`, "wire-format"}, nil},
	{"a listener whose routes never come", resourcev3.ListenerType, func(t *testing.T) []xdstest.Named {
		return []xdstest.Named{garbled(t, "waiting", xdsListener(t, "waiting", mesh.FreeAddress(t), nil), "never", "awaited"[:5])}
	}, nil, nil},
	{"a thousand clusters that are bad", resourcev3.ClusterType, func(t *testing.T) []xdstest.Named {
		var list []xdstest.Named
		for i := range 1000 {
			name := fmt.Sprintf("bad-%d", i)
			list = append(list, named(t, name, xdsCluster(t, name, "127.0.0.1:70000")))
		}
		return list
	}, []string{`cluster "bad-0": `, "… and more"}, nil},
}

// through is a cluster with endpoints from a management server that is reached
// through another cluster.
func through(t *testing.T, name, by string) *clusterv3.Cluster {
	t.Helper()
	c := edsCluster(name, t)
	c.EdsClusterConfig.EdsConfig = &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: by}}}},
		}},
	}
	return c
}
