// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "fmt"

// Use is a bucket with its settings, for people and scripts.
type Use struct {
	Max      uint32 `json:"maxTokens"`
	PerFill  uint32 `json:"tokensPerFill"`
	Interval int64  `json:"fillIntervalMillis"`
	Left     uint32 `json:"tokens"` // now
}

// Use reads a bucket that was made with the settings. Any goroutine may ask.
func (c Config) Use(b *Bucket, now int64) Use {
	return Use{c.Max, c.PerFill, c.Interval.Milliseconds(), b.Left(now)}
}

// Full is Use of a bucket that nobody has taken from yet.
func (c Config) Full() Use { return Use{c.Max, c.PerFill, c.Interval.Milliseconds(), c.Max} }

// String is the rate with what is left, such as "10 in 1000ms, 20 at once: 7 left".
func (u Use) String() string {
	return fmt.Sprintf("%d in %dms, %d at once: %d left", u.PerFill, u.Interval, u.Max, u.Left)
}
