// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// policy is one balancing policy: how a loop picks, and what is built off the
// loop for it (nil: nothing).
type policy struct {
	name   resource.LBPolicy
	picker func(cfg *resource.LoadBalancing, seed uint64) Picker
	table  func(s *Set, shares []float64, cfg *resource.LoadBalancing) table
}

// policies lists all there are; the first is the default.
var policies = []policy{
	{resource.RoundRobin, newRoundRobin, nil},
	{resource.LeastRequest, newLeastRequest, nil},
	{resource.Random, newRandom, buildAlias},
	{resource.RingHash, newHashed, buildRing},
	{resource.Maglev, newHashed, buildMaglev},
	{resource.PeakEWMA, newPeakEWMA, buildAlias},
	{resource.ClientWeighted, newRoundRobin, nil},
	{resource.PickFirst, newPickFirst, buildOrder},
}
