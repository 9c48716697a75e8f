// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"math"
	"time"

	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultBlackout     = 10 * time.Second
	defaultExpiration   = 3 * time.Minute
	defaultWeightUpdate = time.Second
	leastWeightUpdate   = 100 * time.Millisecond

	// Each report is searched for them.
	maxUtilizationMetrics = 16
)

// clientWeights reads the policy whose weights come from load reports. Only those of
// answers are read; an endpoint is not asked for more of them.
func (j *job) clientWeights(a *anypb.Any, lb *resource.LoadBalancing, p *place) {
	var m weightedv3.ClientSideWeightedRoundRobin
	j.unpack(a, &m, p)
	j.only(m.GetEnableOobLoadReport().GetValue(), p.field("enable_oob_load_report"), notSupported)
	w := &resource.ClientWeights{
		Blackout:     j.duration(m.GetBlackoutPeriod(), defaultBlackout, p.field("blackout_period")),
		Expiration:   j.duration(m.GetWeightExpirationPeriod(), defaultExpiration, p.field("weight_expiration_period")),
		Update:       max(j.duration(m.GetWeightUpdatePeriod(), defaultWeightUpdate, p.field("weight_update_period")), leastWeightUpdate),
		ErrorPenalty: 1,
	}
	if v := m.GetErrorUtilizationPenalty(); v != nil {
		w.ErrorPenalty = float64(v.GetValue())
		j.only(!(w.ErrorPenalty >= 0 && w.ErrorPenalty <= math.MaxFloat32), p.field("error_utilization_penalty"), "must be at least 0")
	}
	names := m.GetMetricNamesForComputingUtilization()
	at := p.field("metric_names_for_computing_utilization")
	if len(names) > maxUtilizationMetrics {
		j.fail(at, "has %d names, at most %d are accepted", len(names), maxUtilizationMetrics)
		return
	}
	for _, n := range names {
		w.Metrics = append(w.Metrics, j.intern(n))
	}
	lb.Policy, lb.ClientWeights = resource.ClientWeighted, w
	if s := m.GetSlowStartConfig(); s != nil {
		lb.SlowStart = j.slowStart(s, p.field("slow_start_config"))
	}
}
