// SPDX-License-Identifier: Apache-2.0

package mesh

import "strconv"

// OutlierDetection is Envoy's, in its terms. A detector whose field is empty is off,
// but for consecutive5xx.
type OutlierDetection struct {
	Consecutive5xx                 *uint32            `json:"consecutive5xx,omitempty" rule:"max=1000000" doc:"Failures in a row that eject an instance; 5 when empty, 0 for never."`
	ConsecutiveGatewayFailures     *uint32            `json:"consecutiveGatewayFailures,omitempty" rule:"max=1000000" doc:"502, 503 and 504 in a row, and connections and answers that did not come, that eject an instance; never when empty or 0."`
	ConsecutiveLocalOriginFailures *uint32            `json:"consecutiveLocalOriginFailures,omitempty" rule:"max=1000000" doc:"Connections and answers that did not come, in a row, that eject an instance; needs splitLocalOriginErrors; 5 when empty, 0 for never."`
	SplitLocalOriginErrors         bool               `json:"splitLocalOriginErrors,omitempty" doc:"Judge what an instance answers and that it does not answer apart; together when false."`
	CountAsError                   []string           `json:"countAsError,omitzero" rule:"maxitems=16,maxlen=3" doc:"Answers that count as failures: 5xx, 4xx, or codes from 400 to 599; 5xx when empty."`
	SuccessRate                    *SuccessRate       `json:"successRate,omitempty" doc:"Ejects instances that succeed more rarely than the others."`
	FailurePercentage              *FailurePercentage `json:"failurePercentage,omitempty" doc:"Ejects instances that fail too often."`

	Interval           *Duration `json:"interval,omitempty" rule:"mindur=10ms,maxdur=1h" doc:"How often rates are judged, and ejections forgiven; 10s when empty."`
	BaseEjectionTime   *Duration `json:"baseEjectionTime,omitempty" rule:"mindur=10ms,maxdur=24h" doc:"Length of the first ejection; it grows with each one; 30s when empty."`
	MaxEjectionTime    *Duration `json:"maxEjectionTime,omitempty" rule:"mindur=10ms,maxdur=24h" doc:"Length of the longest ejection; 300s when empty, or the base if that is more."`
	EjectionJitter     *Duration `json:"ejectionJitter,omitempty" rule:"maxdur=1h" doc:"Up to so much is added to an ejection by chance; none when empty."`
	MaxEjectionPercent *uint32   `json:"maxEjectionPercent,omitempty" rule:"max=100" doc:"Most of the instances that may be out; 10 when empty, one always may."`
	HealthCheckReturns *bool     `json:"healthCheckReturns,omitempty" doc:"A health check that succeeds ends an ejection; true when empty."`
	RetryAfter         *bool     `json:"retryAfter,omitempty" doc:"An ejection lasts as long as the instance has asked for, in an answer that counts as its failure, by Retry-After or grpc-retry-pushback-ms, if that is longer, up to 300s; true when empty."`
}

// SuccessRate compares the instances with each other, at the end of each interval.
type SuccessRate struct {
	MinHosts      *uint32 `json:"minHosts,omitempty" rule:"min=1,max=100000" doc:"Instances with enough requests, below which nobody is judged; 5 when empty."`
	RequestVolume *uint32 `json:"requestVolume,omitempty" rule:"min=1,max=1000000000" doc:"Requests to an instance in an interval that are enough; 100 when empty."`
	StdevFactor   *uint32 `json:"stdevFactor,omitempty" rule:"max=1000000" doc:"Thousandths of the standard deviation that a rate may be below the mean; 1900 when empty."`
}

// FailurePercentage compares each instance with a threshold, at the end of each
// interval.
type FailurePercentage struct {
	Threshold     *uint32 `json:"threshold,omitempty" rule:"max=100" doc:"Failures per hundred requests that eject; 85 when empty."`
	MinHosts      *uint32 `json:"minHosts,omitempty" rule:"min=1,max=100000" doc:"Instances with enough requests, below which nobody is judged; 5 when empty."`
	RequestVolume *uint32 `json:"requestVolume,omitempty" rule:"min=1,max=1000000000" doc:"Requests to an instance in an interval that are enough; 50 when empty."`
}

func (o *OutlierDetection) check(f *faults, path string) {
	if o.ConsecutiveLocalOriginFailures != nil && !o.SplitLocalOriginErrors {
		f.add(path+".consecutiveLocalOriginFailures", "needs splitLocalOriginErrors: otherwise they count with consecutive5xx")
	}
	for i, s := range o.CountAsError {
		if _, _, ok := StatusRange(s); !ok {
			f.add(index(path+".countAsError", i), "want 5xx, 4xx or a code from 400 to 599, got %q", clip(s))
		}
	}
	if o.MaxEjectionTime != nil && *o.MaxEjectionTime < o.base() {
		f.add(path+".maxEjectionTime", "%s is less than the base of %s", *o.MaxEjectionTime, o.base())
	}
}

func (o *OutlierDetection) base() Duration {
	if o.BaseEjectionTime == nil {
		return defaultBaseEjection
	}
	return *o.BaseEjectionTime
}

const defaultBaseEjection = Duration(30e9)

// StatusRange reads what a countAsError names of statuses: the first and the last.
func StatusRange(s string) (first, last int, ok bool) {
	switch s {
	case Class5xx:
		return 500, 599, true
	case Class4xx:
		return 400, 499, true
	}
	n, err := strconv.Atoi(s)
	return n, n, err == nil && n >= 400 && n <= 599 && s == strconv.Itoa(n)
}
