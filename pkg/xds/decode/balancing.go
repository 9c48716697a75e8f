// SPDX-License-Identifier: Apache-2.0

package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	firstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	robinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	lbPrefix         = typeURLPrefix + "envoy.extensions.load_balancing_policies."
	defaultTableSize = 65_537
	maxTableSize     = 5_000_011
	maxRing          = 8 << 20
)

// balancing reads how an endpoint is picked: load_balancing_policy where it is
// given, lb_policy and its options otherwise.
//
//nolint:staticcheck // the deprecated lb configs are still in use
func (j *job) balancing(m *clusterv3.Cluster, c *resource.Cluster, p *place) {
	lb := &c.LB
	*lb = resource.LoadBalancing{
		Policy: resource.RoundRobin, ChoiceCount: 2, ActiveRequestBias: 1,
		MinRingSize: 1024, MaxRingSize: maxRing, TableSize: defaultTableSize, PanicThreshold: 50,
	}
	j.commonLB(m.GetCommonLbConfig(), lb, p.field("common_lb_config"))
	if m.GetLoadBalancingPolicy() != nil {
		j.policies(m.GetLoadBalancingPolicy(), lb, p.field("load_balancing_policy"), 0)
	} else {
		j.legacyPolicy(m, lb, p)
	}
	j.finishLB(lb, p)
}

//nolint:staticcheck // see balancing
func (j *job) legacyPolicy(m *clusterv3.Cluster, lb *resource.LoadBalancing, p *place) {
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
	case clusterv3.Cluster_LEAST_REQUEST:
		lb.Policy = resource.LeastRequest
	case clusterv3.Cluster_RANDOM:
		lb.Policy = resource.Random
	case clusterv3.Cluster_RING_HASH:
		lb.Policy = resource.RingHash
	case clusterv3.Cluster_MAGLEV:
		lb.Policy = resource.Maglev
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		if m.GetType() != clusterv3.Cluster_ORIGINAL_DST && !isAggregate(m) {
			j.fail(p.field("lb_policy"), "unsupported %s", m.GetLbPolicy())
		}
	default:
		j.fail(p.field("lb_policy"), "unsupported %s", m.GetLbPolicy())
	}
	if o := m.GetLeastRequestLbConfig(); o != nil {
		at := p.field("least_request_lb_config")
		j.leastRequest(lb, o.GetChoiceCount(), o.GetActiveRequestBias(), at)
		if s := o.GetSlowStartConfig(); s != nil && lb.Policy == resource.LeastRequest {
			lb.SlowStart = j.slowStart(s, at.field("slow_start_config"))
		}
	}
	if s := m.GetRoundRobinLbConfig().GetSlowStartConfig(); s != nil && lb.Policy == resource.RoundRobin {
		lb.SlowStart = j.slowStart(s, p.field("round_robin_lb_config").field("slow_start_config"))
	}
	if o := m.GetRingHashLbConfig(); o != nil {
		if v := o.GetMinimumRingSize(); v != nil {
			lb.MinRingSize = uint32(min(v.GetValue(), maxRing+1))
		}
		if v := o.GetMaximumRingSize(); v != nil {
			lb.MaxRingSize = uint32(min(v.GetValue(), maxRing+1))
		}
		if o.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2 {
			lb.MurmurHash = true
		}
	}
	if v := m.GetMaglevLbConfig().GetTableSize(); v != nil {
		lb.TableSize = uint32(min(v.GetValue(), maxTableSize+1))
	}
	j.legacySubsets(m, lb, p.field("lb_subset_config"))
}

func (j *job) commonLB(o *clusterv3.Cluster_CommonLbConfig, lb *resource.LoadBalancing, p *place) {
	if o == nil {
		return
	}
	if o.GetHealthyPanicThreshold() != nil {
		lb.HasPanic = true
		lb.PanicThreshold = j.percent(o.GetHealthyPanicThreshold(), 50, p.field("healthy_panic_threshold"))
	}
	if set := o.GetOverrideHostStatus(); set != nil {
		lb.OverrideStatus = resource.NoStatus
		for _, s := range set.GetStatuses() {
			lb.OverrideStatus |= health(s).Bit()
		}
	}
	lb.LocalityWeighted = o.GetLocalityWeightedLbConfig() != nil
	if z := o.GetZoneAwareLbConfig(); z != nil {
		j.zones(&commonv3.LocalityLbConfig_ZoneAwareLbConfig{
			RoutingEnabled: z.GetRoutingEnabled(), MinClusterSize: z.GetMinClusterSize(), FailTrafficOnPanic: z.GetFailTrafficOnPanic(),
		}, lb, p.field("zone_aware_lb_config"))
	}
	lb.IgnoreNewHosts = o.GetIgnoreNewHostsUntilFirstHc()
	lb.UseHostname = o.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	lb.HashBalanceFactor = o.GetConsistentHashingLbConfig().GetHashBalanceFactor().GetValue()
	j.only(o.GetCloseConnectionsOnHostSetChange(), p.field("close_connections_on_host_set_change"), notSupported)
}

// policies reads the first policy of the list that is known, as Envoy does.
func (j *job) policies(l *clusterv3.LoadBalancingPolicy, lb *resource.LoadBalancing, p *place, depth int) {
	if depth > 4 {
		j.fail(p, "is nested more than 4 deep")
		return
	}
	for i, pol := range l.GetPolicies() {
		a := untyped(pol.GetTypedExtensionConfig().GetTypedConfig())
		at := p.item("policies", i).field("typed_extension_config").field("typed_config")
		if j.policy(a, lb, at, depth) {
			return
		}
	}
	var names []string
	for _, pol := range l.GetPolicies() {
		names = append(names, clip(pol.GetTypedExtensionConfig().GetTypedConfig().GetTypeUrl(), 100))
	}
	j.fail(p.field("policies"), "none of %q is supported", names)
}

// policy reads one typed policy; false if its type is not known.
func (j *job) policy(a *anypb.Any, lb *resource.LoadBalancing, p *place, depth int) bool {
	switch a.GetTypeUrl() {
	case lbPrefix + "round_robin.v3.RoundRobin":
		var m robinv3.RoundRobin
		j.unpack(a, &m, p)
		lb.Policy = resource.RoundRobin
		if s := m.GetSlowStartConfig(); s != nil {
			lb.SlowStart = j.slowStart(s, p.field("slow_start_config"))
		}
		j.localityLB(m.GetLocalityLbConfig(), lb, p)
	case lbPrefix + "least_request.v3.LeastRequest":
		var m leastv3.LeastRequest
		j.unpack(a, &m, p)
		lb.Policy = resource.LeastRequest
		j.leastRequest(lb, m.GetChoiceCount(), m.GetActiveRequestBias(), p)
		switch m.GetSelectionMethod() {
		case leastv3.LeastRequest_N_CHOICES:
		case leastv3.LeastRequest_FULL_SCAN:
			lb.FullScan = true
		default:
			j.fail(p.field("selection_method"), "unsupported %s", m.GetSelectionMethod())
		}
		if s := m.GetSlowStartConfig(); s != nil {
			lb.SlowStart = j.slowStart(s, p.field("slow_start_config"))
		}
		j.localityLB(m.GetLocalityLbConfig(), lb, p)
	case lbPrefix + "random.v3.Random":
		var m randomv3.Random
		j.unpack(a, &m, p)
		lb.Policy = resource.Random
		j.localityLB(m.GetLocalityLbConfig(), lb, p)
	case lbPrefix + "ring_hash.v3.RingHash":
		j.ringHash(a, lb, p)
	case lbPrefix + "maglev.v3.Maglev":
		var m maglevv3.Maglev
		j.unpack(a, &m, p)
		lb.Policy = resource.Maglev
		if v := m.GetTableSize(); v != nil {
			lb.TableSize = uint32(min(v.GetValue(), maxTableSize+1))
		}
		lb.UseHostname = lb.UseHostname || m.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
		boundLoad(lb, m.GetConsistentHashingLbConfig())
		lb.LocalityWeighted = lb.LocalityWeighted || m.GetLocalityWeightedLbConfig() != nil
	case lbPrefix + peakEWMAName, lbPrefix + peakEWMAName3:
		j.peakEWMA(a, lb, p)
	case lbPrefix + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin":
		j.clientWeights(a, lb, p)
	case lbPrefix + "pick_first.v3.PickFirst":
		var m firstv3.PickFirst
		j.unpack(a, &m, p)
		lb.Policy, lb.ShuffleAddresses = resource.PickFirst, m.GetShuffleAddressList()
	case lbPrefix + "wrr_locality.v3.WrrLocality":
		var m wrrv3.WrrLocality
		j.unpack(a, &m, p)
		lb.LocalityWeighted = true
		j.policies(m.GetEndpointPickingPolicy(), lb, p.field("endpoint_picking_policy"), depth+1)
	case lbPrefix + "override_host.v3.OverrideHost":
		j.namedHosts(a, lb, p, depth)
	case lbPrefix + "random_subsetting.v3.RandomSubsetting":
		j.randomSubset(a, lb, p, depth)
	case lbPrefix + "subset.v3.Subset":
		j.subsetPolicy(a, lb, p, depth)
	default:
		return false
	}
	return true
}

//nolint:staticcheck // use_hostname_for_hashing moved into consistent_hashing_lb_config
func (j *job) ringHash(a *anypb.Any, lb *resource.LoadBalancing, p *place) {
	var m ringv3.RingHash
	j.unpack(a, &m, p)
	lb.Policy = resource.RingHash
	if v := m.GetMinimumRingSize(); v != nil {
		lb.MinRingSize = uint32(min(v.GetValue(), maxRing+1))
	}
	if v := m.GetMaximumRingSize(); v != nil {
		lb.MaxRingSize = uint32(min(v.GetValue(), maxRing+1))
	}
	if m.GetHashFunction() == ringv3.RingHash_MURMUR_HASH_2 {
		lb.MurmurHash = true
	}
	boundLoad(lb, m.GetConsistentHashingLbConfig())
	lb.UseHostname = lb.UseHostname || m.GetUseHostnameForHashing() || m.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	lb.LocalityWeighted = lb.LocalityWeighted || m.GetLocalityWeightedLbConfig() != nil
}

func boundLoad(lb *resource.LoadBalancing, o *commonv3.ConsistentHashingLbConfig) {
	if f := o.GetHashBalanceFactor(); f != nil {
		lb.HashBalanceFactor = f.GetValue()
	}
}

func (j *job) localityLB(o *commonv3.LocalityLbConfig, lb *resource.LoadBalancing, p *place) {
	lb.LocalityWeighted = lb.LocalityWeighted || o.GetLocalityWeightedLbConfig() != nil
	j.zones(o.GetZoneAwareLbConfig(), lb, p.field("locality_lb_config").field("zone_aware_lb_config"))
}

func (j *job) leastRequest(lb *resource.LoadBalancing, choices interface{ GetValue() uint32 }, bias *corev3.RuntimeDouble, p *place) {
	if n := choices.GetValue(); n != 0 {
		lb.ChoiceCount = uint32(j.within(n, 2, 64, p.field("choice_count")))
	}
	if bias != nil {
		lb.ActiveRequestBias = bias.GetDefaultValue()
		j.only(!resource.ActiveRequestBias(lb.ActiveRequestBias), p.field("active_request_bias").field("default_value"), "must be between 0 and 100")
		lb.BiasKey = bias.GetRuntimeKey()
	}
}

// finishLB checks what must hold whichever way the policy was given.
func (j *job) finishLB(lb *resource.LoadBalancing, p *place) {
	j.only(lb.MinRingSize < 1 || lb.MaxRingSize > maxRing || lb.MinRingSize > lb.MaxRingSize, p,
		"ring_hash: sizes must be at least 1, at most 8388608, the minimum not above the maximum")
	j.only(lb.TableSize < 2 || lb.TableSize > maxTableSize || !prime(int(lb.TableSize)), p, "maglev: table_size must be prime and at most 5000011")
}

func prime(n int) bool {
	if n < 2 {
		return false
	}
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
