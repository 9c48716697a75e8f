// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	aggregateURL = typeURLPrefix + "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
	maxMembers   = 64
)

// isAggregate reports whether a cluster's endpoints are those of others.
func isAggregate(m *clusterv3.Cluster) bool {
	return m.GetClusterType().GetTypedConfig().GetTypeUrl() == aggregateURL
}

// aggregate reads a cluster of cluster_type envoy.clusters.aggregate. A cycle by way of
// other clusters shows only when all of them are there.
func (j *job) aggregate(m *clusterv3.Cluster, a *anypb.Any, c *resource.Cluster, p *place) {
	at := p.field("cluster_type").field("typed_config")
	var t aggregatev3.ClusterConfig
	if !j.unpack(a, &t, at) {
		return
	}
	j.only(m.GetLbPolicy() != clusterv3.Cluster_CLUSTER_PROVIDED || m.GetLoadBalancingPolicy() != nil, p.field("lb_policy"),
		"must be CLUSTER_PROVIDED where the cluster is an aggregate")
	j.only(m.GetLoadAssignment() != nil, p.field("load_assignment"), "must not be set where the cluster is an aggregate")
	j.only(m.GetEdsClusterConfig() != nil, p.field("eds_cluster_config"), "needs type EDS")
	const members = " where the cluster is an aggregate: its members have their own"
	j.only(m.GetOutlierDetection() != nil, p.field("outlier_detection"), "must not be set"+members)
	j.only(m.GetTransportSocket() != nil, p.field("transport_socket"), "must not be set"+members)
	j.only(len(t.GetClusters()) > maxMembers, at.field("clusters"), "has more than 64 entries")
	c.Type = resource.Aggregate
	c.Static = &resource.Assignment{Cluster: c.Name, Overprovisioning: defaultOverprovisioning}
	for i, name := range t.GetClusters() {
		switch {
		case name == c.Name:
			j.fail(at.item("clusters", i), "%q is the cluster itself", clip(name, 100))
		case name == "" || slices.Contains(c.Members, name):
			j.fail(at.item("clusters", i), "%q is empty or listed twice", clip(name, 100))
		default:
			c.Members = append(c.Members, j.intern(name))
			j.need(Cluster, name, Source{})
		}
	}
}
