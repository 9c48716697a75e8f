// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// SlowStart lets the share of a host that has just become healthy grow over a
// window: weight × max(MinWeightPercent, (time healthy / Window)^(1/Aggression)).
type SlowStart struct {
	Window           time.Duration // 0: off; counted in milliseconds
	Aggression       float64       // default 1: linear
	AggressionKey    string        // of the runtime, over Aggression; "" for none
	MinWeightPercent float64       // default 10
}

// Aggression tells whether f can be that of a slow start.
func Aggression(f float64) bool { return f > 0 && f <= 100 }

// ActiveRequestBias tells whether f can be that of least_request.
func ActiveRequestBias(f float64) bool { return f >= 0 && f <= 100 }

// LatencyEstimate says how peak_ewma estimates a host's round-trip time.
type LatencyEstimate struct {
	Decay      time.Duration // after which 1/e of a peak is left; default 10 s
	DefaultRTT time.Duration // of hosts that have not answered yet; default 10 ms
	// Penalty is what such a host counts for once it has requests, in milliseconds ×
	// requests; default 1 000 000; 0: DefaultRTT goes on.
	Penalty float64
}

// ClientWeights says how load reports become weights: requests per second ÷
// (utilization + errors per second ÷ requests per second × ErrorPenalty).
type ClientWeights struct {
	Blackout     time.Duration // for so long reports must have come; default 10 s
	Expiration   time.Duration // of the last report; default 3 min
	Update       time.Duration // between calculations; default 1 s, at least 100 ms
	ErrorPenalty float64       // default 1
	// Metrics of a report that are its utilization, the greatest of them; where none
	// is above 0, application_utilization is, and then cpu_utilization.
	Metrics []string
}
