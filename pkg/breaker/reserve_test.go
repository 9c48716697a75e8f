// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func spendAll(l *Limits) (n int) {
	for l.SpendRetry() {
		n++
	}
	return n
}

func TestABudgetOverTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		t    resource.Thresholds
		paid int
		want int // retries, of an empty reserve
	}{
		{"nothing is paid where nothing works", resource.Thresholds{RetryBudget: true, BudgetPercent: 50, MinRetries: 3}, 0, 0},
		{"a share of what works", resource.Thresholds{RetryBudget: true, BudgetPercent: 50, MinRetries: 3}, 20, 10},
		{"fractions of a percent", resource.Thresholds{RetryBudget: true, BudgetPercent: 12.5, MinRetries: 3}, 80, 10},
		{"no more than a full reserve", resource.Thresholds{RetryBudget: true, BudgetPercent: 100, MinRetries: 3}, 1000, 30},
		{"of 0 % a fifth", resource.Thresholds{RetryBudget: true, MinRetries: 3}, 25, 5},
		{"without a minimum", resource.Thresholds{RetryBudget: true, BudgetPercent: 20}, 1000, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLimits(tt.t)
			if got, want := spendAll(l), reserveMinimums*int(max(tt.t.MinRetries, 1)); got != want {
				t.Errorf("%d retries at the beginning, want %d", got, want)
			}
			if u := l.Use().Retries; !u.Open || u.Remaining != 0 || u.Overflow != 1 {
				t.Errorf("an empty reserve is shown as %+v", u)
			}
			for range tt.paid {
				l.PayRetry()
			}
			if got := spendAll(l); got != tt.want {
				t.Errorf("%d retries after %d requests, want %d", got, tt.paid, tt.want)
			}
		})
	}
}

func TestWithoutABudgetThereIsNoReserve(t *testing.T) {
	l := NewLimits(resource.Thresholds{MaxRetries: 1})
	for range 1000 {
		l.PayRetry()
		if !l.SpendRetry() {
			t.Fatal("max_retries alone has a reserve")
		}
	}
	l.Update(resource.Thresholds{RetryBudget: true, BudgetPercent: 20, MinRetries: 1})
	if got := spendAll(l); got != 10 {
		t.Errorf("%d retries of a budget that is new, want 10", got)
	}
	l.Update(resource.Thresholds{RetryBudget: true, BudgetPercent: 40, MinRetries: 1})
	if l.SpendRetry() {
		t.Error("a budget that changes began with a full reserve again")
	}
	l.Update(resource.Thresholds{MaxRetries: 1})
	if !l.SpendRetry() {
		t.Error("a budget that has gone still counts")
	}
}

// What is spent is never more than what was there and what was paid.
func TestTheReserveIsExactOverWorkers(t *testing.T) {
	const workers, each = 4, 20_000
	l := NewLimits(resource.Thresholds{RetryBudget: true, BudgetPercent: 10, MinRetries: 1})
	var spent atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				l.PayRetry()
				if l.SpendRetry() {
					spent.Add(1)
				}
			}
		})
	}
	wg.Wait()
	got := spent.Load() + int64(spendAll(l))
	if want := int64(reserveMinimums + workers*each/10); got > want || got < want-reserveMinimums {
		t.Errorf("%d spent, want %d", got, want)
	}
}

func TestPayingCostsNothing(t *testing.T) {
	l := NewLimits(resource.Thresholds{RetryBudget: true, BudgetPercent: 20, MinRetries: 3})
	if n := testing.AllocsPerRun(100, func() { l.PayRetry(); l.SpendRetry() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPayRetry(b *testing.B) {
	l := NewLimits(resource.Thresholds{RetryBudget: true, BudgetPercent: 20, MinRetries: 3})
	for b.Loop() {
		l.PayRetry()
	}
}
