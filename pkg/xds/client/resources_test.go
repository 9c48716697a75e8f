// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
)

func endpoints(cluster string) *endpointv3.ClusterLoadAssignment {
	return gcptest.MakeEndpoint(cluster, 8080)
}

// manyEndpoints are n endpoints, each with a zone and weight as registries give them.
func manyEndpoints(cluster string, c, n int) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		Locality: &corev3.Locality{Region: "eu", Zone: "eu-1"},
	}}}
	for i := range n {
		e := gcptest.MakeEndpoint(cluster, 8080).GetEndpoints()[0].GetLbEndpoints()[0]
		e.GetEndpoint().GetAddress().GetSocketAddress().Address = fmt.Sprintf("10.%d.%d.%d", c/200, c%200, i)
		out.Endpoints[0].LbEndpoints = append(out.Endpoints[0].LbEndpoints, e)
	}
	return out
}

func cluster(mode, name string) *clusterv3.Cluster { return gcptest.MakeCluster(mode, name) }

func badCluster(mode, name string) *clusterv3.Cluster {
	c := cluster(mode, name)
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	return c
}

func routes(name, cluster string) *routev3.RouteConfiguration {
	return gcptest.MakeRouteConfig(name, cluster)
}
