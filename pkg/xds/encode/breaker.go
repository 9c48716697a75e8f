// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// breaker is the circuit, which Envoy has no field for.
func breaker(b *mesh.CircuitBreaker) *structpb.Struct {
	if b == nil {
		b = &mesh.CircuitBreaker{}
	}
	count := b.CountAsError
	if len(count) == 0 {
		count = []string{mesh.Class5xx, mesh.ClassTimeout, mesh.ClassConnectFailure}
	}
	fields := map[string]*structpb.Value{
		"enabled":                structpb.NewBoolValue(or(b.Enabled, true)),
		"errorThresholdPercent":  number(or(b.ErrorThresholdPercent, 50)),
		"requestVolumeThreshold": number(or(b.RequestVolumeThreshold, 20)),
		"windowMs":               millis(or(b.Window, mesh.Duration(10*time.Second)).Std()),
		"buckets":                number(10),
		"sleepWindowMs":          millis(or(b.SleepWindow, mesh.Duration(5*time.Second)).Std()),
		"countAsError":           texts(count),
		"retryAfter":             structpb.NewBoolValue(or(b.RetryAfter, true)),
		"forceOpen":              structpb.NewBoolValue(b.ForceOpen),
		"forceClosed":            structpb.NewBoolValue(b.ForceClosed),
	}
	for name, n := range map[string]*uint32{"windowCalls": b.WindowCalls, "slowCallPercent": b.SlowCallPercent, "halfOpenCalls": b.HalfOpenCalls} {
		if n != nil {
			fields[name] = number(*n)
		}
	}
	for name, d := range map[string]*mesh.Duration{"slowCallMs": b.SlowCallDuration, "recoveryMs": b.Recovery} {
		if d != nil {
			fields[name] = millis(d.Std())
		}
	}
	return &structpb.Struct{Fields: fields}
}
