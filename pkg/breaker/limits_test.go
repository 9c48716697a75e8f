// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestTheLimitsOfAPriorityFillOneCacheLine(t *testing.T) {
	if end, size := unsafe.Offsetof(Limits{}.budget), unsafe.Sizeof(Limits{}); end != 64 || size != 128 {
		t.Errorf("the four limits have %d bytes of %d, want 64 of 128", end, size)
	}
	var kept [50]*Limits // so that each has memory of its own
	for i := range kept {
		l := NewLimits(resource.Thresholds{})
		if kept[i] = l; uintptr(unsafe.Pointer(l))%64 != 0 {
			t.Fatalf("limits at %p do not begin a cache line", l)
		}
	}
}

// Whatever workers do at once, no more is in use than allowed; when all have come
// to rest, everything is free, and successes and overflows add up.
func TestLimitsAreExactOverWorkers(t *testing.T) {
	const workers, each, limit = 8, 5000, 5
	l := NewLimits(resource.Thresholds{MaxConnections: limit, MaxPending: limit, MaxRequests: limit, MaxRetries: limit})
	for name, f := range map[string]struct {
		try     func() bool
		release func()
		use     func() Use
	}{
		"connections": {l.TryConnection, l.ReleaseConnection, func() Use { return l.Use().Connections }},
		"pending":     {l.TryPending, l.ReleasePending, func() Use { return l.Use().Pending }},
		"requests":    {l.TryRequest, l.ReleaseRequest, func() Use { return l.Use().Requests }},
		"retries":     {l.TryRetry, l.ReleaseRetry, func() Use { return l.Use().Retries }},
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			var inUse, took atomic.Int64
			for w := range workers {
				wg.Go(func() {
					held := 0
					for i := range each {
						if f.try() {
							took.Add(1)
							held++
							if n := inUse.Add(1); n > limit {
								t.Errorf("%d in use, limit %d", n, limit)
							}
						}
						if held > (i+w)%3 {
							inUse.Add(-1)
							f.release()
							held--
						}
					}
					for range held {
						inUse.Add(-1)
						f.release()
					}
				})
			}
			wg.Wait()
			u := f.use()
			if u.Active != 0 || u.Remaining != limit || u.Open {
				t.Errorf("at rest: %+v, want nothing in use", u)
			}
			if got := uint64(took.Load()) + u.Overflow; got != workers*each {
				t.Errorf("%d taken and %d overflows of %d attempts", took.Load(), u.Overflow, workers*each)
			}
		})
	}
}

// A place that is free must be had: two workers that share two places never fail.
func TestNobodyIsRefusedWhileAPlaceIsFree(t *testing.T) {
	l := NewLimits(resource.Thresholds{MaxRequests: 2})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20000 {
				if !l.TryRequest() {
					t.Error("refused with a place free")
					return
				}
				l.ReleaseRequest()
			}
		})
	}
	wg.Wait()
}

func TestZeroAllowsNothing(t *testing.T) {
	l := NewLimits(resource.Thresholds{})
	if l.TryConnection() || l.TryPending() || l.TryRequest() || l.TryRetry() {
		t.Error("a limit of zero let something pass")
	}
	if u := l.Use(); !u.Requests.Open || u.Requests.Overflow != 1 || u.Requests.Remaining != 0 {
		t.Errorf("requests: %+v, want open with one overflow", u.Requests)
	}
}

func TestALowerLimitLetsTheRestFinish(t *testing.T) {
	l := NewLimits(resource.Thresholds{MaxRequests: 3})
	for range 3 {
		l.TryRequest()
	}
	l.Update(resource.Thresholds{MaxRequests: 1})
	for left := 3; left > 0; left-- {
		if l.TryRequest() {
			t.Fatalf("a request passed with %d in flight and a limit of 1", left)
		}
		l.ReleaseRequest()
	}
	if !l.TryRequest() {
		t.Error("the only request was refused")
	}
}

func TestRetryBudgets(t *testing.T) {
	for _, tt := range []struct {
		name              string
		t                 resource.Thresholds
		requests, pending int
		want              uint32
	}{
		{"without a budget max_retries counts", resource.Thresholds{MaxRetries: 7}, 100, 0, 7},
		{"a percentage of what is active", resource.Thresholds{RetryBudget: true, BudgetPercent: 20}, 100, 0, 20},
		{"and of what is pending", resource.Thresholds{RetryBudget: true, BudgetPercent: 20}, 50, 50, 20},
		{"rounded down", resource.Thresholds{RetryBudget: true, BudgetPercent: 20}, 9, 0, 1},
		{"fractions of a percent", resource.Thresholds{RetryBudget: true, BudgetPercent: 12.5}, 80, 0, 10},
		{"never below the minimum", resource.Thresholds{RetryBudget: true, BudgetPercent: 20, MinRetries: 3}, 1, 0, 3},
		{"max_retries does not matter", resource.Thresholds{RetryBudget: true, BudgetPercent: 100, MaxRetries: 1}, 5, 0, 5},
		{"nothing of nothing", resource.Thresholds{RetryBudget: true, BudgetPercent: 20}, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.t.MaxRequests, tt.t.MaxPending = 1000, 1000
			l := NewLimits(tt.t)
			for range tt.requests {
				l.TryRequest()
			}
			for range tt.pending {
				l.TryPending()
			}
			n := uint32(0)
			for l.TryRetry() {
				n++
			}
			if u := l.Use().Retries; n != tt.want || u.Max != tt.want {
				t.Errorf("%d retries passed, limit shown %d, want %d", n, u.Max, tt.want)
			}
		})
	}
}
