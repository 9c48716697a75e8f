// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// CircuitBreaker has Hystrix's settings and defaults, and beside them those of
// Resilience4j and Traefik that Hystrix lacks (metadata "io.outrigger"). Not enabled
// is Resilience4j's DISABLED, ForceClosed its METRICS_ONLY.
type CircuitBreaker struct {
	Enabled                bool
	ErrorThresholdPercent  int           // default 50
	RequestVolumeThreshold int           // default 20; of WindowCalls at most all
	Window                 time.Duration // default 10 s
	Buckets                int           // default 10
	SleepWindow            time.Duration // default 5 s
	ForceOpen              bool
	ForceClosed            bool
	// What counts as an error.
	Count5xx, CountTimeout, CountConnectFailure, Count4xx, CountReset bool
	CountStatus                                                       []int

	// Calls that take longer than SlowDuration are slow, whatever comes of them; a
	// share of SlowPercent opens the circuit as well. 0: off.
	SlowDuration time.Duration
	SlowPercent  int
	// WindowCalls: the last so many calls are judged in place of a time's. 0: off.
	WindowCalls int
	// HalfOpenCalls are let through to test an open circuit, and judged together by
	// the same thresholds; 0 is 1.
	HalfOpenCalls int
	// Recovery is how long the share of requests that pass grows from nothing to all
	// once the test was passed. 0: all pass at once.
	Recovery time.Duration
	// RetryAfter: the sleep window is at least as long as an endpoint has asked for.
	RetryAfter bool
}
