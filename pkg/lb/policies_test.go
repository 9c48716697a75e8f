// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb/lbtest"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestRoundRobinConforms(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.RoundRobin}, lbtest.Traits{})
}

func TestLeastRequestConforms(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.LeastRequest, ChoiceCount: 2, ActiveRequestBias: 1}, lbtest.Traits{})
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.LeastRequest, ChoiceCount: 3, ActiveRequestBias: .5}, lbtest.Traits{})
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: 1, FullScan: true}, lbtest.Traits{})
}

func TestSlowStartConforms(t *testing.T) {
	slow := resource.SlowStart{Window: time.Minute, Aggression: 1, MinWeightPercent: 10}
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.RoundRobin, SlowStart: slow}, lbtest.Traits{})
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: 1, SlowStart: slow}, lbtest.Traits{})
}

func TestRandomConforms(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.Random}, lbtest.Traits{})
}

func TestRingHashConforms(t *testing.T) {
	for _, murmur := range []bool{false, true} {
		lbtest.Run(t, resource.LoadBalancing{Policy: resource.RingHash, MinRingSize: 1 << 16, MurmurHash: murmur},
			lbtest.Traits{Tolerance: .06})
	}
}

func TestMaglevConforms(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.Maglev}, lbtest.Traits{Tolerance: .01})
}

func TestBoundedLoadsConform(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.RingHash, MinRingSize: 1 << 16, HashBalanceFactor: 125}, lbtest.Traits{Tolerance: .06})
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.Maglev, HashBalanceFactor: 125}, lbtest.Traits{Tolerance: .01})
}

func TestPeakEWMAConforms(t *testing.T) {
	cfg := resource.LatencyEstimate{Decay: 10 * time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: 1e6}
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.PeakEWMA, PeakEWMA: cfg}, lbtest.Traits{})
}

func TestClientSideWeightedRoundRobinConforms(t *testing.T) {
	cfg := resource.LoadBalancing{Policy: resource.ClientWeighted, ClientWeights: &resource.ClientWeights{}}
	lbtest.Run(t, cfg, lbtest.Traits{OwnWeights: true})
}

func TestPickFirstConforms(t *testing.T) {
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.PickFirst}, lbtest.Traits{Unequal: true})
	lbtest.Run(t, resource.LoadBalancing{Policy: resource.PickFirst, ShuffleAddresses: true}, lbtest.Traits{Unequal: true})
}
