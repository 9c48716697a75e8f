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

// The types.
const (
	Consecutive5xx EjectionType = iota
	ConsecutiveGateway
	ConsecutiveLocal
	ejectionTypes
)

// String is Envoy's name.
func (t EjectionType) String() string {
	return [...]string{
		"CONSECUTIVE_5XX", "CONSECUTIVE_GATEWAY_FAILURE", "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
	}[t]
}

// The host's word has a 20-bit counter per type and above them a pending bit per
// type. A counter that reaches its threshold sets the bit and starts again; a
// success clears counters but not bits, because the tick must not miss what has
// happened before it.
const (
	counterBits = 20
	counterMask = 1<<counterBits - 1
	allCounters = 1<<(counterBits*uint(ejectionTypes)) - 1
	pendingBit  = counterBits * uint(ejectionTypes)
)

// Outlier ejects hosts of one cluster that fail several times in a row.
type Outlier struct {
	config  atomic.Pointer[resource.OutlierDetection] // nil: off
	pending atomic.Bool                               // some host has a pending bit

	detector // off the loop
}

// Result counts a response of the host. Loops call it once per response; while a
// host does not fail it costs one load.
func (o *Outlier) Result(h Host, status int) {
	word := h.Consecutive()
	if status < 500 {
		if w := word.Load(); w&allCounters != 0 {
			succeeded(word)
		}
		return
	}
	cfg := o.config.Load()
	if cfg == nil {
		return
	}
	o.failed(word, Consecutive5xx, cfg.Consecutive5xx)
	if status >= 502 && status <= 504 {
		o.failed(word, ConsecutiveGateway, cfg.ConsecutiveGateway)
	} else {
		clearCounters(word, counterOf(ConsecutiveGateway))
	}
	if cfg.SplitLocal {
		clearCounters(word, counterOf(ConsecutiveLocal)) // it did answer
	}
}

// Local counts a failure that the host did not send: no connection, a reset, a
// timeout. Unless such failures are split off, they count like 503, 500 and 504.
func (o *Outlier) Local(h Host, r Result) {
	cfg := o.config.Load()
	if cfg == nil || r == Response {
		return
	}
	word := h.Consecutive()
	if cfg.SplitLocal {
		o.failed(word, ConsecutiveLocal, cfg.ConsecutiveLocal)
		return
	}
	o.failed(word, Consecutive5xx, cfg.Consecutive5xx)
	if r == Reset {
		clearCounters(word, counterOf(ConsecutiveGateway))
	} else {
		o.failed(word, ConsecutiveGateway, cfg.ConsecutiveGateway)
	}
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
