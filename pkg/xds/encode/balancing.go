// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"time"

	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	firstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	robinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// balance sets the policy; gRPC gets the nearest one that it has.
func balance(c *clusterv3.Cluster, lb *mesh.LoadBalancer, f Flavor) error {
	policy := mesh.PolicyLeastRequest
	if lb != nil && lb.Policy != "" {
		policy = lb.Policy
	}
	switch policy {
	case mesh.PolicyRoundRobin:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case mesh.PolicyRandom:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case mesh.PolicyRingHash:
		c.LbPolicy = clusterv3.Cluster_RING_HASH
	case mesh.PolicyMaglev:
		c.LbPolicy = clusterv3.Cluster_MAGLEV
	default:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	}
	if f == GRPC && c.LbPolicy != clusterv3.Cluster_RING_HASH {
		if c.LbPolicy == clusterv3.Cluster_MAGLEV {
			c.LbPolicy = clusterv3.Cluster_RING_HASH
		} else {
			c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
		}
	}
	if lb == nil {
		return nil
	}
	if lb.SlowStart != nil && f != GRPC {
		slowStart(c, lb.SlowStart.Std())
	}
	if lb.HashBalanceFactor != nil && f != GRPC {
		c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
			ConsistentHashingLbConfig: &clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig{HashBalanceFactor: u32(*lb.HashBalanceFactor)},
		}
	}
	var err error
	c.LoadBalancingPolicy, err = typedPolicy(lb, f)
	return err
}

// leastWeight is the percentage of their share that new instances begin with.
const leastWeight = 10

// slowStart lets new instances begin with less than their share.
func slowStart(c *clusterv3.Cluster, window time.Duration) {
	s := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: seconds(window), MinWeightPercent: &typev3.Percent{Value: leastWeight}}
	switch c.LbPolicy {
	case clusterv3.Cluster_ROUND_ROBIN:
		c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: s}}
	case clusterv3.Cluster_LEAST_REQUEST:
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: s}}
	}
}

// typedPolicy is the policy where the cluster has no name of its own for it; nil
// where it has. Whoever does not know the first takes the next.
func typedPolicy(lb *mesh.LoadBalancer, f Flavor) (*clusterv3.LoadBalancingPolicy, error) {
	switch lb.Policy {
	case mesh.PolicyPeakEWMA:
		if f == GRPC {
			return nil, nil
		}
		return policyList(peakEWMA(), &leastv3.LeastRequest{})
	case mesh.PolicyClientWeighted:
		w := &weightedv3.ClientSideWeightedRoundRobin{}
		if lb.SlowStart != nil && f != GRPC {
			w.SlowStartConfig = &commonv3.SlowStartConfig{SlowStartWindow: seconds(lb.SlowStart.Std()), MinWeightPercent: &typev3.Percent{Value: leastWeight}}
		}
		return policyList(w, &robinv3.RoundRobin{})
	case mesh.PolicyPickFirst:
		return policyList(&firstv3.PickFirst{ShuffleAddressList: true}, &robinv3.RoundRobin{})
	}
	return nil, nil
}

func policyList(choices ...proto.Message) (*clusterv3.LoadBalancingPolicy, error) {
	l := &clusterv3.LoadBalancingPolicy{}
	for _, m := range choices {
		packed, err := pack(m)
		if err != nil {
			return nil, err
		}
		l.Policies = append(l.Policies, &clusterv3.LoadBalancingPolicy_Policy{
			TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: string(m.ProtoReflect().Descriptor().Name()), TypedConfig: packed},
		})
	}
	return l, nil
}

// peakEWMA has Linkerd's defaults. Its message is of Envoy's contrib.
func peakEWMA() proto.Message {
	return &xdstypev3.TypedStruct{
		TypeUrl: "type.googleapis.com/envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma",
		Value: &structpb.Struct{Fields: map[string]*structpb.Value{
			"decay_time": structpb.NewStringValue("10s"), "default_rtt": structpb.NewStringValue("0.03s"),
		}},
	}
}
