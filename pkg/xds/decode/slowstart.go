// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const defaultMinWeightPercent = 10

// slowStartConfig is the message of the cluster's own options and that of typed
// policies.
type slowStartConfig interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

// slowStart reads how hosts begin; a window below one millisecond is none, as in
// Envoy.
func (j *job) slowStart(m slowStartConfig, p *place) resource.SlowStart {
	s := resource.SlowStart{
		Window:           j.duration(m.GetSlowStartWindow(), 0, p.field("slow_start_window")).Truncate(time.Millisecond),
		Aggression:       1,
		MinWeightPercent: j.percent(m.GetMinWeightPercent(), defaultMinWeightPercent, p.field("min_weight_percent")),
	}
	if a := m.GetAggression(); a != nil {
		s.Aggression = a.GetDefaultValue()
		j.only(!resource.Aggression(s.Aggression), p.field("aggression").field("default_value"), "must be above 0 and at most 100")
		s.AggressionKey = a.GetRuntimeKey()
	}
	return s
}
