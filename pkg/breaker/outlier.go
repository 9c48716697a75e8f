// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Host is what outlier detection needs of an upstream host. *lb.Host is one.
type Host interface {
	// Consecutive is a word on the host, zero at first, that only this package
	// interprets: failures in a row are counted over all workers.
	Consecutive() *atomic.Uint64
	SetEjected(bool)
	Ejected() bool
	String() string // address, for the event log
}

// EjectionType is the reason of an ejection.
type EjectionType uint8

// The types. The first three are found by loops, the others at the end of an
// interval.
const (
	Consecutive5xx EjectionType = iota
	ConsecutiveGateway
	ConsecutiveLocal
	SuccessRate
	SuccessRateLocal
	FailurePercentage
	FailurePercentageLocal
	ejectionTypes
	consecutiveTypes = SuccessRate
)

// EjectionTypes is the number of types, for loops over OutlierStats.
const EjectionTypes = int(ejectionTypes)

// String is Envoy's name.
func (t EjectionType) String() string {
	return [...]string{
		"CONSECUTIVE_5XX", "CONSECUTIVE_GATEWAY_FAILURE", "CONSECUTIVE_LOCAL_ORIGIN_FAILURE", "SUCCESS_RATE",
		"SUCCESS_RATE_LOCAL_ORIGIN", "FAILURE_PERCENTAGE", "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
	}[t]
}

// The host's word has a 20-bit counter per type and above them a pending bit per
// type. A counter that reaches its threshold sets the bit and starts again; a
// success clears counters but not bits, because the tick must not miss what has
// happened before it.
const (
	counterBits = 20
	counterMask = 1<<counterBits - 1
	allCounters = 1<<(counterBits*uint(consecutiveTypes)) - 1
	pendingBit  = counterBits * uint(consecutiveTypes)
)

// Outlier ejects hosts of one cluster that fail: several times in a row, or more
// often than others or than a threshold.
type Outlier struct {
	config  atomic.Pointer[resource.OutlierDetection] // nil: off
	pending atomic.Bool                               // some host has a pending bit
	tallies atomic.Pointer[Tally]                     // those that Tick has not seen yet

	detector // off the loop
}

// Result counts a response of the host. Loops call it once per response; while a
// host does not fail it costs one load. The tally is the loop's own of that host,
// nil where it has none.
func (o *Outlier) Result(h Host, t *Tally, status int) {
	cfg := o.config.Load()
	if cfg == nil {
		return
	}
	word := h.Consecutive()
	if !cfg.IsError(status) {
		t.add(external, true)
		if cfg.SplitLocal {
			t.add(localOrigin, true)
		}
		if w := word.Load(); w&allCounters != 0 {
			succeeded(word)
		}
		return
	}
	t.add(external, false)
	o.failed(word, Consecutive5xx, cfg.Consecutive5xx)
	if status >= 502 && status <= 504 {
		o.failed(word, ConsecutiveGateway, cfg.ConsecutiveGateway)
	} else {
		clearCounters(word, counterOf(ConsecutiveGateway))
	}
	if cfg.SplitLocal {
		t.add(localOrigin, true) // it did answer
		clearCounters(word, counterOf(ConsecutiveLocal))
	}
}

// Connected counts a connection to the host that carries no requests.
func (o *Outlier) Connected(h Host, t *Tally) {
	cfg := o.config.Load()
	switch {
	case cfg == nil:
	case cfg.SplitLocal:
		t.add(localOrigin, true)
		clearCounters(h.Consecutive(), counterOf(ConsecutiveLocal))
	default:
		t.add(external, true)
		clearCounters(h.Consecutive(), allCounters)
	}
}

// Local counts a failure that the host did not send: no connection, a reset, a
// timeout. Unless such failures are split off, they count like 503 and 504.
func (o *Outlier) Local(h Host, t *Tally, r Result) {
	cfg := o.config.Load()
	if cfg == nil || r == Response {
		return
	}
	word := h.Consecutive()
	if cfg.SplitLocal {
		t.add(localOrigin, false)
		o.failed(word, ConsecutiveLocal, cfg.ConsecutiveLocal)
		return
	}
	t.add(external, false)
	o.failed(word, Consecutive5xx, cfg.Consecutive5xx)
	o.failed(word, ConsecutiveGateway, cfg.ConsecutiveGateway)
}

// Enabled reports whether anything is detected.
func (o *Outlier) Enabled() bool { return o.config.Load() != nil }

func (o *Outlier) failed(word *atomic.Uint64, t EjectionType, threshold uint32) {
	if threshold == 0 {
		return
	}
	threshold = min(threshold, counterMask)
	shift := uint(t) * counterBits
	for {
		w := word.Load()
		next := w + 1<<shift
		reached := uint32(next>>shift&counterMask) >= threshold
		if reached {
			next = next&^counterOf(t) | 1<<(pendingBit+uint(t))
		}
		if word.CompareAndSwap(w, next) {
			if reached {
				o.pending.Store(true) // after the bit, so that the tick finds it
			}
			return
		}
	}
}

func counterOf(t EjectionType) uint64 { return counterMask << (uint(t) * counterBits) }

func succeeded(word *atomic.Uint64) { clearCounters(word, allCounters) }

func clearCounters(word *atomic.Uint64, mask uint64) {
	if word.Load()&mask != 0 {
		word.And(^mask)
	}
}
