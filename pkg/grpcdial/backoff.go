// SPDX-License-Identifier: Apache-2.0

package grpcdial

import (
	"math/rand/v2"
	"time"
)

// Backoff spaces out attempts: each wait is twice the one before, up to Max, and
// is drawn from its upper half, so that many sidecars do not come back together.
// The zero value waits between the package's defaults.
type Backoff struct {
	Min, Max time.Duration

	next time.Duration
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	low, high := b.Min, b.Max
	setDefault(&low, DefaultMinBackoff)
	setDefault(&high, DefaultMaxBackoff)
	b.next = min(max(b.next, low), high)
	wait := b.next
	b.next = min(2*b.next, high)
	return wait/2 + rand.N(wait/2+1)
}

// Reset is called after a success.
func (b *Backoff) Reset() { b.next = 0 }
