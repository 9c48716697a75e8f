// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// CircuitBreaker has Hystrix's settings and defaults (metadata "io.outrigger").
type CircuitBreaker struct {
	Enabled                bool
	ErrorThresholdPercent  int           // default 50
	RequestVolumeThreshold int           // default 20
	Window                 time.Duration // default 10 s
	Buckets                int           // default 10
	SleepWindow            time.Duration // default 5 s
	ForceOpen              bool
	ForceClosed            bool
	// What counts as an error.
	Count5xx, CountTimeout, CountConnectFailure, Count4xx, CountReset bool
	CountStatus                                                       []int
}
