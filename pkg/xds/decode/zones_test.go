// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestZoneAwareRoutingIsReadInBothForms(t *testing.T) {
	robin := func(fields string) string {
		return "load_balancing_policy: " + typedPolicies("type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
			"locality_lb_config: {zone_aware_lb_config: {"+fields+"}}")
	}
	legacy := func(fields string) string { return "common_lb_config: {zone_aware_lb_config: {" + fields + "}}" }
	for text, want := range map[string]resource.ZoneAware{
		legacy(""): {Enabled: 100, MinClusterSize: 6},
		legacy("routing_enabled: {value: 12.6}, min_cluster_size: 0"): {Enabled: 13, MinClusterSize: 0},
		robin(""): {Enabled: 100, MinClusterSize: 6},
		robin("force_locality_direct_routing: true"):                                   {Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 1},
		robin("force_local_zone: {}"):                                                  {Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 1},
		robin("force_local_zone: {min_size: 3}, locality_basis: HEALTHY_HOSTS_WEIGHT"): {Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 3, ByWeight: true},
		robin("routing_enabled: {value: 0}, min_cluster_size: 9"):                      {MinClusterSize: 9},
	} {
		if lb := must[resource.Cluster](t, decode.Cluster, "{name: a, "+eds+", "+text+"}").LB; lb.ZoneAware == nil || *lb.ZoneAware != want {
			t.Errorf("%s: %+v, want %+v", text, lb.ZoneAware, want)
		}
	}
	if lb := must[resource.Cluster](t, decode.Cluster, "{name: a, "+eds+", "+robin("fail_traffic_on_panic: true")+"}").LB; !lb.FailOnPanic {
		t.Error("fail_traffic_on_panic is not read")
	}
}

func TestTheLocalClusterIsAStaticOne(t *testing.T) {
	const text = "node: {id: n, locality: {zone: a}}\ncluster_manager: {local_cluster_name: members}\nstatic_resources: {clusters: [{name: NAME, type: STATIC}]}\n"
	b, err := decode.Bootstrap([]byte(strings.Replace(text, "NAME", "members", 1)), "b.yaml", filter.NewRegistry())
	if err != nil || b.LocalCluster != "members" || b.Node.Zone != "a" {
		t.Errorf("%+v, %v", b, err)
	}
	_, err = decode.Bootstrap([]byte(strings.Replace(text, "NAME", "others", 1)), "b.yaml", filter.NewRegistry())
	if want := `b.yaml:2: cluster_manager.local_cluster_name: "members" is not in static_resources.clusters`; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}
