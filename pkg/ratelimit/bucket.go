// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// fractionBits: a bucket counts in 64ths of a nanosecond, so that a million tokens a
// second come out exact to 2 in 100 000.
const fractionBits = 6

// MaxSpan is the longest that a bucket may take to fill.
const MaxSpan = 365 * 24 * time.Hour

// Config are the settings of a bucket. It fills steadily, by PerFill tokens in each
// Interval, up to Max; it is full at first.
type Config struct {
	Max      uint32
	PerFill  uint32        // at least 1
	Interval time.Duration // above 0
}

// Check says what is wrong with the settings.
func (c Config) Check() error {
	switch {
	case c.Max == 0:
		return errors.New("max_tokens must be at least 1")
	case c.PerFill == 0:
		return errors.New("tokens_per_fill must be at least 1")
	case c.Interval <= 0:
		return errors.New("fill_interval must be above 0s")
	case float64(c.Max)*float64(c.Interval)/float64(c.PerFill) > float64(MaxSpan):
		return errors.New("the bucket would take more than a year to fill: raise tokens_per_fill or lower max_tokens or fill_interval")
	}
	return nil
}

// Bucket is a token bucket. Any number of loops may take from it at once: together they
// get no token more than there is, whatever the order of their clocks.
//
// Its whole state is one word: when it would have been empty last, had it filled
// steadily from then on. A token moves that time on by what it takes to fill one.
type Bucket struct {
	// set once
	cost int64 // of a token, in fractions of a nanosecond; rounded up
	span int64 // of all of them
	max  uint32
	// atomic
	empty atomic.Int64
}

// NewBucket makes a full bucket. The settings must have passed Check.
func NewBucket(c Config) *Bucket {
	b := new(Bucket)
	b.init(c)
	return b
}

func (b *Bucket) init(c Config) {
	per := int64(c.PerFill)
	// Interval is below MaxSpan × PerFill: the product with 64 fits where it matters,
	// and what is left over is shifted by itself.
	whole, rest := int64(c.Interval)/per, int64(c.Interval)%per
	b.cost = max(1, whole<<fractionBits+(rest<<fractionBits+per-1)/per)
	b.max = c.Max
	b.span = b.cost * int64(c.Max)
	b.empty.Store(math.MinInt64)
}

// Take takes n tokens at now, monotonic nanoseconds, or none where there are fewer.
func (b *Bucket) Take(n uint32, now int64) bool {
	t := now << fractionBits
	if n > b.max {
		return false
	}
	for {
		old := b.empty.Load()
		e := max(old, t-b.span) + b.cost*int64(n)
		if e > t {
			return false
		}
		if b.empty.CompareAndSwap(old, e) {
			return true
		}
	}
}

// Max is the most that the bucket holds.
func (b *Bucket) Max() uint32 { return b.max }

// Left is how many whole tokens there are at now.
func (b *Bucket) Left(now int64) uint32 {
	t := now << fractionBits
	return uint32(max(0, t-max(b.empty.Load(), t-b.span)) / b.cost)
}

// Next is how long it takes from now until there is a whole token; 0: there is one.
func (b *Bucket) Next(now int64) time.Duration {
	t := now << fractionBits
	wait := max(b.empty.Load(), t-b.span) + b.cost - t
	return time.Duration((max(0, wait) + 1<<fractionBits - 1) >> fractionBits)
}

// Slower reports whether b fills more slowly than other.
func (b *Bucket) Slower(other *Bucket) bool { return b.cost > other.cost }
