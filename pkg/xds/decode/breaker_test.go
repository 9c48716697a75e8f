// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func circuit(fields string) string {
	return `{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {circuitBreaker: {` + fields + `}}}}}`
}

func TestCircuitsHaveHystrixDefaultsAndNothingBeyondThem(t *testing.T) {
	b := must[resource.Cluster](t, decode.Cluster, circuit("")).Breaker
	if b.WindowCalls != 0 || b.HalfOpenCalls != 1 || b.Recovery != 0 || b.SlowDuration != 0 || b.RetryAfter || b.RequestVolumeThreshold != 20 || !b.Enabled {
		t.Errorf("got %+v", b)
	}
}

func TestSlowCallsWindowsOfCallsAndRecoveryAreRead(t *testing.T) {
	b := must[resource.Cluster](t, decode.Cluster, circuit("windowCalls: 50, slowCallMs: 1500, halfOpenCalls: 7, recoveryMs: 2000, retryAfter: true")).Breaker
	if b.WindowCalls != 50 || b.SlowDuration != 1500*time.Millisecond || b.SlowPercent != 100 || b.HalfOpenCalls != 7 || b.Recovery != 2*time.Second || !b.RetryAfter {
		t.Errorf("got %+v", b)
	}
}

// Every class that a TrafficPolicy may name is one that sidecars know.
func TestCircuitsCountWhatTheMeshNames(t *testing.T) {
	b := must[resource.Cluster](t, decode.Cluster, circuit(`countAsError: ["5xx", "4xx", timeout, connect-failure, reset, overflow, "429"]`)).Breaker
	if !b.Count5xx || !b.Count4xx || !b.CountTimeout || !b.CountConnectFailure || !b.CountReset || len(b.CountStatus) != 1 {
		t.Errorf("got %+v", b)
	}
	_, err := from(t, decode.Cluster, circuit("countAsError: [overflows]"))
	if err == nil || !strings.Contains(err.Error(), `countAsError[0]: "overflows" is none of`) {
		t.Errorf("got %v", err)
	}
}

func TestCircuitsOutOfBoundsAreRefusedByName(t *testing.T) {
	for fields, want := range map[string]string{
		"windowCalls: 10001":                "circuitBreaker.windowCalls: must be between 1 and 10000",
		"halfOpenCalls: 0":                  "circuitBreaker.halfOpenCalls: must be between 1 and 1000",
		"slowCallPercent: 5":                "circuitBreaker.slowCallPercent: needs slowCallMs",
		"slowCallMs: 5, slowCallPercent: 0": "circuitBreaker.slowCallPercent: must be between 1 and 100",
		"recoveryMs: -1":                    "circuitBreaker.recoveryMs: must be between 0 and 3600000",
	} {
		_, err := from(t, decode.Cluster, circuit(fields))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", fields, err, want)
		}
	}
}
