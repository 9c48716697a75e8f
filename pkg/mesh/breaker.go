// SPDX-License-Identifier: Apache-2.0

package mesh

// CircuitBreaker has Hystrix's settings and meanings, and beside them slow calls,
// windows of calls and tests of several calls as Resilience4j has them, and Traefik's
// recovery.
type CircuitBreaker struct {
	Enabled                *bool     `json:"enabled,omitempty" doc:"false switches the breaker off (Resilience4j's DISABLED); true when empty."`
	ErrorThresholdPercent  *uint32   `json:"errorThresholdPercent,omitempty" rule:"min=1,max=100" doc:"Share of failed requests that opens the circuit; 50 when empty."`
	RequestVolumeThreshold *uint32   `json:"requestVolumeThreshold,omitempty" rule:"min=1,max=1000000" doc:"Requests in the window before the circuit may open (Resilience4j's minimumNumberOfCalls); 20 when empty, and never more than windowCalls."`
	Window                 *Duration `json:"window,omitempty" rule:"mindur=1s,maxdur=10m" doc:"Rolling window; 10s when empty."`
	WindowCalls            *uint32   `json:"windowCalls,omitempty" rule:"min=1,max=10000" doc:"Judge the last so many requests, however old, in place of those of the window."`
	SleepWindow            *Duration `json:"sleepWindow,omitempty" rule:"mindur=10ms,maxdur=10m" doc:"How long an open circuit waits before it lets requests try; 5s when empty."`
	SlowCallDuration       *Duration `json:"slowCallDuration,omitempty" rule:"mindur=1ms,maxdur=10m" doc:"Requests whose answer begins later than this are slow; none are when empty."`
	SlowCallPercent        *uint32   `json:"slowCallPercent,omitempty" rule:"min=1,max=100" doc:"Share of slow requests that opens the circuit; 100 when empty. Needs slowCallDuration."`
	HalfOpenCalls          *uint32   `json:"halfOpenCalls,omitempty" rule:"min=1,max=1000" doc:"Requests that try an open circuit, judged together by the same shares; 1 when empty."`
	Recovery               *Duration `json:"recovery,omitempty" rule:"maxdur=10m" doc:"How long the share of requests that are let through grows from none to all when the circuit closes; all at once when empty."`
	RetryAfter             *bool     `json:"retryAfter,omitempty" doc:"An open circuit waits as long as the first of the failing instances has asked for by Retry-After or grpc-retry-pushback-ms, if that is longer, up to three sleep windows and 300s; true when empty."`
	CountAsError           []string  `json:"countAsError,omitzero" rule:"maxitems=8,enum=5xx|4xx|timeout|connect-failure|reset|overflow" doc:"Failures that count; 5xx, timeout and connect-failure when empty. What limits refuse (overflow) counts always."`
	ForceOpen              bool      `json:"forceOpen,omitempty" doc:"Refuse every request (Resilience4j's FORCED_OPEN)."`
	ForceClosed            bool      `json:"forceClosed,omitempty" doc:"Never open, only count (Resilience4j's METRICS_ONLY)."`
}

func (b *CircuitBreaker) check(f *faults, path string) {
	if b.ForceOpen && b.ForceClosed {
		f.add(path+".forceClosed", "forceOpen and forceClosed exclude each other")
	}
	if b.SlowCallPercent != nil && b.SlowCallDuration == nil {
		f.add(path+".slowCallPercent", "needs slowCallDuration")
	}
}
