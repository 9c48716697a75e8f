// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// OutlierDetection ejects endpoints that fail (zero durations mean defaults
// already applied by decode). Percentages are 0 to 100.
type OutlierDetection struct {
	Consecutive5xx     uint32 // 0: off
	Enforcing5xx       uint32 // percent
	ConsecutiveGateway uint32
	EnforcingGateway   uint32
	ConsecutiveLocal   uint32
	EnforcingLocal     uint32
	SplitLocal         bool

	SuccessRate SuccessRate
	Failure     FailurePercentage
	// Errors are the statuses that count as failures; nil: 500 and above.
	Errors []StatusRange

	Interval           time.Duration
	BaseEjection       time.Duration
	MaxEjection        time.Duration
	MaxEjectionPercent uint32
	AlwaysEjectOne     bool
	Jitter             time.Duration
	// UnejectChecked: an active health check that succeeds takes an ejected endpoint
	// back.
	UnejectChecked bool
	// RetryAfter: an ejection lasts at least as long as the endpoint has asked to be
	// left alone (metadata "io.outrigger").
	RetryAfter bool
}

// SuccessRate ejects those whose share of successes in an interval is further below
// the mean of all endpoints than Stdev standard deviations.
type SuccessRate struct {
	MinHosts       uint32 // with at least Volume requests in the interval; default 5
	Volume         uint32 // default 100
	Stdev          float64
	Enforcing      uint32
	EnforcingLocal uint32 // for failures of local origin, where they are split
}

// FailurePercentage ejects those whose share of failures in an interval reaches
// Threshold.
type FailurePercentage struct {
	Threshold      uint32 // default 85
	MinHosts       uint32 // default 5
	Volume         uint32 // default 50
	Enforcing      uint32
	EnforcingLocal uint32
}

// Rates reports whether successes and failures are to be counted per interval.
func (o *OutlierDetection) Rates() bool {
	return o.SuccessRate.Enforcing|o.Failure.Enforcing != 0 || o.SplitLocal && o.SuccessRate.EnforcingLocal|o.Failure.EnforcingLocal != 0
}

// IsError reports whether a response of that status counts as a failure.
func (o *OutlierDetection) IsError(status int) bool {
	if o.Errors == nil {
		return status >= 500
	}
	for _, r := range o.Errors {
		if r.First <= status && status <= r.Last {
			return true
		}
	}
	return false
}

// StatusRange are the response statuses from First to Last, both included.
type StatusRange struct{ First, Last int }
