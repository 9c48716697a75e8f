// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Limits bound what one routing priority of a cluster may have in use, exactly
// over all workers: of n+1 concurrent attempts at n free places one fails, and
// none fails while a place is free. Each Try that succeeded is undone by one
// Release. ForceConnection alone goes beyond a limit.
type Limits struct {
	connections limit
	pending     limit
	requests    limit
	retries     limit // max is ignored where there is a budget

	// The budget, packed so that an update is seen whole: bit 63 set, percent in
	// hundredths in bits 32 to 62, minimum below; 0 for none.
	budget       atomic.Uint64
	connsPerHost atomic.Uint32
	reserve      reserve
	high         high
	_            [8]byte // to 128 bytes, which the allocator puts on cache lines
}

// limit is 16 bytes: the four of them fill one cache line. They share it on
// purpose: who takes one of them usually takes the next.
type limit struct {
	used     atomic.Uint32
	max      atomic.Uint32
	overflow atomic.Uint64
}

// NewLimits makes limits with nothing in use.
func NewLimits(t resource.Thresholds) *Limits {
	l := new(Limits)
	l.Update(t)
	return l
}

// Update changes the limits. What is in use beyond a lower limit stays, but
// nothing is added to it.
func (l *Limits) Update(t resource.Thresholds) {
	l.connections.max.Store(t.MaxConnections)
	l.pending.max.Store(t.MaxPending)
	l.requests.max.Store(t.MaxRequests)
	l.retries.max.Store(t.MaxRetries)
	l.connsPerHost.Store(t.MaxConnsPerHost)
	var b uint64
	if t.RetryBudget {
		percent := min(max(t.BudgetPercent, 0), 1000)
		hundredths := uint64(math.Round(percent * 100))
		b = 1<<63 | hundredths<<32 | uint64(t.MinRetries)
		l.reserve.update(hundredths, uint64(t.MinRetries))
	} else {
		l.reserve.off()
	}
	l.budget.Store(b)
}

// TryConnection takes a connection, or counts an overflow.
func (l *Limits) TryConnection() bool { return l.connections.try(l.connections.max.Load()) }

// ForceConnection counts a connection beyond the limit: the one that each pool may
// have in any case, so that no worker is shut out by the others. Stop counting it
// with ReleaseConnection.
func (l *Limits) ForceConnection() { l.connections.used.Add(1) }

// ReleaseConnection gives it back.
func (l *Limits) ReleaseConnection() { l.connections.release() }

// TryPending takes a place among the requests that wait for a connection.
func (l *Limits) TryPending() bool { return l.pending.try(l.pending.max.Load()) }

// ReleasePending gives it back.
func (l *Limits) ReleasePending() { l.pending.release() }

// TryRequest takes a request in flight.
func (l *Limits) TryRequest() bool { return l.requests.try(l.requests.max.Load()) }

// ReleaseRequest gives it back.
func (l *Limits) ReleaseRequest() { l.requests.release() }

// TryRetry takes a retry in flight: up to max_retries, or where there is a budget
// up to its percentage of the requests that are active or pending, but always the
// minimum. SpendRetry is the budget over time.
func (l *Limits) TryRetry() bool { return l.retries.try(l.maxRetries()) }

// ReleaseRetry gives it back.
func (l *Limits) ReleaseRetry() { l.retries.release() }

func (l *Limits) maxRetries() uint32 {
	b := l.budget.Load()
	if b == 0 {
		return l.retries.max.Load()
	}
	hundredths, least := b>>32&(1<<31-1), uint32(b)
	active := uint64(l.requests.used.Load()) + uint64(l.pending.used.Load())
	return max(uint32(min(active*hundredths/10000, math.MaxUint32)), least)
}

// ConnsPerHost is the limit of connections of one host; 0 means none.
func (l *Limits) ConnsPerHost() uint32 { return l.connsPerHost.Load() }

// OverflowPerHost counts a connection that ConnsPerHost refused.
func (l *Limits) OverflowPerHost() { l.connections.overflow.Add(1) }

// Use is one limit's state.
type Use struct {
	Active    uint32
	Max       uint32
	Remaining uint32
	Open      bool   // at the limit: the next attempt fails
	Overflow  uint64 // attempts that failed
}

// LimitUse is the state of all limits.
type LimitUse struct {
	Connections, Pending, Requests, Retries Use
}

// Use reads all limits; each is exact by itself.
func (l *Limits) Use() LimitUse {
	u := LimitUse{
		Connections: l.connections.use(l.connections.max.Load()),
		Pending:     l.pending.use(l.pending.max.Load()),
		Requests:    l.requests.use(l.requests.max.Load()),
		Retries:     l.retries.use(l.maxRetries()),
	}
	if l.reserve.empty() {
		u.Retries.Open, u.Retries.Remaining = true, 0
	}
	return u
}

// Requests is the number of requests in flight.
func (l *Limits) Requests() uint32 { return l.requests.used.Load() }

func (l *limit) try(most uint32) bool {
	for {
		u := l.used.Load()
		if u >= most {
			l.overflow.Add(1)
			return false
		}
		if l.used.CompareAndSwap(u, u+1) {
			return true
		}
	}
}

func (l *limit) release() { l.used.Add(^uint32(0)) }

func (l *limit) use(most uint32) Use {
	u := Use{Active: l.used.Load(), Max: most, Overflow: l.overflow.Load()}
	u.Open = u.Active >= u.Max
	if !u.Open {
		u.Remaining = u.Max - u.Active
	}
	return u
}
