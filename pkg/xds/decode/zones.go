// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"math"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// zones reads the settings of a policy.
//
//nolint:staticcheck // force_locality_direct_routing is deprecated and still in use
func (j *job) zones(o *commonv3.LocalityLbConfig_ZoneAwareLbConfig, lb *resource.LoadBalancing, p *place) {
	if o == nil {
		return
	}
	deflt := resource.DefaultZoneAware
	z := &resource.ZoneAware{
		Enabled:        math.Round(j.percent(o.GetRoutingEnabled(), deflt.Enabled, p.field("routing_enabled"))),
		MinClusterSize: deflt.MinClusterSize,
		ByWeight:       o.GetLocalityBasis() == commonv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT,
	}
	if v := o.GetMinClusterSize(); v != nil {
		z.MinClusterSize = v.GetValue()
	}
	lb.ZoneAware, lb.FailOnPanic = z, lb.FailOnPanic || o.GetFailTrafficOnPanic()
	if o.GetForceLocalZone() != nil || o.GetForceLocalityDirectRouting() {
		z.ForceLocal, z.ForceMinSize = true, uint32Or(o.GetForceLocalZone().GetMinSize(), 1)
	}
}

// localCluster reads cluster_manager.
func (j *job) localCluster(m *bootstrapv3.Bootstrap, b *BootstrapConfig, p *place) {
	name := m.GetClusterManager().GetLocalClusterName()
	if name == "" {
		return
	}
	b.LocalCluster = j.intern(name)
	for _, c := range b.Clusters {
		if c.Name == name {
			return
		}
	}
	j.fail(p.field("local_cluster_name"), "%q is not in static_resources.clusters", clip(name, 200))
}
