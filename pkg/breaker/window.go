// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultWindow  = 10 * time.Second
	defaultBuckets = 10

	// Hystrix's metrics.rollingPercentile.timeInMilliseconds and numBuckets.
	latencyWindow  = time.Minute
	latencyBuckets = 6
)

// tally is a number per outcome, and that of slow calls.
type tally [counted]uint64

// requests is how many requests the tally's health is made of.
func (t *tally) requests() uint64 { return t[Success] + t.errors() }

func (t *tally) errors() uint64 {
	n := uint64(0)
	for o := Failure; o.isError(); o++ {
		n += t[o]
	}
	return n
}

func (t *tally) health() health {
	return health{requests: t.requests(), errors: t.errors(), slow: t[slow]}
}

// health is what a circuit is judged by.
type health struct{ requests, errors, slow uint64 }

func (h health) errorPercent() int { return percent(h.errors, h.requests) }

// percent is rounded to the nearest whole number.
func percent(part, all uint64) int {
	if all == 0 {
		return 0
	}
	return int(float64(part)/float64(all)*100 + 0.5)
}

// unwell reports whether the thresholds are reached.
func (h health) unwell(cfg *resource.CircuitBreaker) bool {
	return h.errorPercent() >= cfg.ErrorThresholdPercent ||
		cfg.SlowDuration > 0 && percent(h.slow, h.requests) >= cfg.SlowPercent
}

// clock divides time into buckets and says how many have begun since.
type clock struct {
	width  int64 // ns
	number int64 // of the present bucket, counted from time zero
}

// advance moves to now and returns how many buckets have begun, at most limit.
// Time that runs backwards stays in the present bucket.
func (c *clock) advance(now int64, limit int) int {
	n := now / c.width
	if n <= c.number {
		return 0
	}
	began := min(n-c.number, int64(limit))
	c.number = n
	return int(began)
}

// window is a ring of buckets with their sum. It covers the last Buckets-1 whole
// buckets and the present one.
type window struct {
	clock
	buckets []bucket
	at      int
	sum     tally
}

type bucket struct {
	counts tally32
	most   uint32 // requests in flight
}

// tally32 is a bucket's tally: a bucket of 2^32 events saturates.
type tally32 [counted]uint32

func newWindow(span time.Duration, buckets int, now int64) window {
	if span <= 0 {
		span = defaultWindow
	}
	if buckets <= 0 {
		buckets = defaultBuckets
	}
	w := window{buckets: make([]bucket, buckets)}
	w.width = max(int64(span)/int64(buckets), 1)
	w.number = now / w.width
	return w
}

func (w *window) advanceTo(now int64) {
	for range w.advance(now, len(w.buckets)) {
		w.at = (w.at + 1) % len(w.buckets)
		b := &w.buckets[w.at]
		for o, n := range b.counts {
			w.sum[o] -= uint64(n)
		}
		*b = bucket{}
	}
}

func (w *window) add(d *tally, inFlight uint32) {
	b := &w.buckets[w.at]
	for o, n := range d {
		room := uint64(^uint32(0) - b.counts[o])
		n = min(n, room)
		b.counts[o] += uint32(n)
		w.sum[o] += n
	}
	b.most = max(b.most, inFlight)
}

// clear forgets all counts, as a circuit that closes does.
func (w *window) clear() {
	for i := range w.buckets {
		w.buckets[i].counts = tally32{}
	}
	w.sum = tally{}
}

func (w *window) most() uint32 {
	m := uint32(0)
	for i := range w.buckets {
		m = max(m, w.buckets[i].most)
	}
	return m
}

// latencyRing keeps a minute of latencies.
type latencyRing struct {
	clock
	buckets [latencyBuckets]latencies
	at      int
}

func newLatencyRing(now int64) *latencyRing {
	r := new(latencyRing)
	r.width = int64(latencyWindow / latencyBuckets)
	r.number = now / r.width
	return r
}

func (r *latencyRing) advanceTo(now int64) {
	for range r.advance(now, latencyBuckets) {
		r.at = (r.at + 1) % latencyBuckets
		r.buckets[r.at] = latencies{}
	}
}

func (r *latencyRing) total() *latencies {
	t := new(latencies)
	for i := range r.buckets {
		t.add(&r.buckets[i])
	}
	return t
}
