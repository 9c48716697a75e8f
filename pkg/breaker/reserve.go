// SPDX-License-Identifier: Apache-2.0

package breaker

import "sync/atomic"

// reserve is what a retry budget is over time. A budget that goes by what is active
// at the moment is never less than its minimum, so that a service which answers
// nothing but errors costs the minimum's worth of retries all the time, and over
// several proxies in a row that to the power of their number. Here each request that
// needs no retry any more pays in the budget's percentage of a retry, and each retry
// takes a whole one: where nothing works, nothing is paid in.
//
// It needs no clock. A full reserve, the state in which everything works, is read and
// not written to.
type reserve struct {
	left  atomic.Int64 // in parts of a retry
	most  atomic.Int64 // 0: no budget, and no reserve
	share atomic.Int64 // what a request pays in
}

const (
	retryParts = 10_000 // a retry, so that the share is in hundredths of a percent
	// reserveMinimums: a full reserve is so many times the budget's minimum.
	reserveMinimums = 10
	// defaultShare takes the place of a share of nothing, by which a reserve would
	// never fill again: a budget of 0 % says that the minimum is all at a time.
	defaultShare = retryParts / 5
)

// update changes the size and the share. A reserve that is new begins full.
func (r *reserve) update(hundredths, minimum uint64) {
	most := int64(max(minimum, 1) * reserveMinimums * retryParts)
	share := int64(hundredths)
	if share == 0 {
		share = defaultShare
	}
	was := r.most.Load()
	r.share.Store(share)
	r.most.Store(most)
	if was == 0 {
		r.left.Store(most)
	}
}

// off ends the budget.
func (r *reserve) off() { r.most.Store(0) }

func (r *reserve) pay() {
	most := r.most.Load()
	for {
		left := r.left.Load()
		if left >= most {
			return
		}
		if r.left.CompareAndSwap(left, min(left+r.share.Load(), most)) {
			return
		}
	}
}

func (r *reserve) take() bool {
	if r.most.Load() == 0 {
		return true
	}
	for {
		left := r.left.Load()
		if left < retryParts {
			return false
		}
		if r.left.CompareAndSwap(left, left-retryParts) {
			return true
		}
	}
}

func (r *reserve) empty() bool { return r.most.Load() != 0 && r.left.Load() < retryParts }

// RetryReserve is how many retries the budget has left over time, and the most that it
// may have; false: there is no budget. Any goroutine may ask.
func (l *Limits) RetryReserve() (left, most float64, ok bool) {
	if l.reserve.most.Load() == 0 {
		return 0, 0, false
	}
	return float64(l.reserve.left.Load()) / retryParts, float64(l.reserve.most.Load()) / retryParts, true
}

// PayRetry says that a request needs no retry any more, which pays a share of one
// into the budget. It costs two loads where the reserve is full.
func (l *Limits) PayRetry() { l.reserve.pay() }

// SpendRetry takes a retry out of the reserve, or counts an overflow. Unlike those of
// TryRetry, which bounds what is under way, it is not given back: every retry spends
// one. Without a budget it always succeeds.
func (l *Limits) SpendRetry() bool {
	if !l.reserve.take() {
		l.retries.overflow.Add(1)
		return false
	}
	return true
}
