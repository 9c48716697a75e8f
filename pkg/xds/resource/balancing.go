// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// SlowStart lets the share of a host that has just become healthy grow over a
// window: weight × max(MinWeightPercent, (time healthy / Window)^(1/Aggression)).
type SlowStart struct {
	Window           time.Duration // 0: off; counted in milliseconds
	Aggression       float64       // default 1: linear
	MinWeightPercent float64       // default 10
}
