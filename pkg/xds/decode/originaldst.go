// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultCleanup     = 5 * time.Second
	originalDstHeader  = "x-envoy-original-dst-host"
	maxOriginalDstPort = 65_535
)

// originalDst reads a cluster whose endpoints are where connections were meant to
// go. Destinations that are this host, or metadata services, are never dialled.
func (j *job) originalDst(m *clusterv3.Cluster, c *resource.Cluster, p *place) {
	j.only(m.GetLbPolicy() != clusterv3.Cluster_CLUSTER_PROVIDED || m.GetLoadBalancingPolicy() != nil, p.field("lb_policy"),
		"must be CLUSTER_PROVIDED where type is ORIGINAL_DST")
	j.only(m.GetLoadAssignment() != nil, p.field("load_assignment"), "must not be set where type is ORIGINAL_DST")
	j.only(m.GetEdsClusterConfig() != nil, p.field("eds_cluster_config"), "needs type EDS")
	j.only(m.GetOutlierDetection() != nil, p.field("outlier_detection"), notSupported+" where type is ORIGINAL_DST: its endpoints come and go with connections")
	c.Type = resource.Original
	c.Static = &resource.Assignment{Cluster: c.Name, Overprovisioning: defaultOverprovisioning}
	o := &resource.OriginalDst{Cleanup: j.duration(m.GetCleanupInterval(), defaultCleanup, p.field("cleanup_interval"))}
	j.only(o.Cleanup <= 0, p.field("cleanup_interval"), "must be more than 0s")
	c.OriginalDst = o
	lb := m.GetOriginalDstLbConfig()
	at := p.field("original_dst_lb_config")
	if lb.GetUseHttpHeader() {
		o.Header = strings.ToLower(lb.GetHttpHeaderName())
		if o.Header == "" {
			o.Header = originalDstHeader
		}
	}
	j.only(lb.GetHttpHeaderName() != "" && !lb.GetUseHttpHeader(), at.field("http_header_name"), "needs use_http_header")
	if v := lb.GetUpstreamPortOverride(); v != nil {
		o.Port = uint16(j.within(v.GetValue(), 1, maxOriginalDstPort, at.field("upstream_port_override")))
	}
}
