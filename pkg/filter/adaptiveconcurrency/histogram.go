// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"math/bits"
	"sync/atomic"
)

// histogram counts durations in slots of which each power of two microseconds has
// sixteen, so that a quantile is off by 3 % at most; longer ones than 2^32 µs are in
// the last. Loops add, one of them at a time takes.
type histogram struct {
	count atomic.Int64 // below zero for a moment where one takes what another is adding
	slots [slots]atomic.Uint32
}

const (
	perPower = 16
	slots    = (32 - 4 + 1) * perPower
)

func slotOf(micros uint64) int {
	if micros < perPower {
		return int(micros)
	}
	exp := bits.Len64(micros) - 1 // 4 and more
	return min((exp-3)*perPower+int(micros>>(exp-4))-perPower, slots-1)
}

// bounds are the least number of microseconds of a slot and that of the next.
func bounds(slot int) (lo, hi float64) {
	if slot < perPower {
		return float64(slot), float64(slot + 1)
	}
	exp := slot/perPower + 3
	return float64(uint64(perPower+slot%perPower) << (exp - 4)), float64(uint64(perPower+slot%perPower+1) << (exp - 4))
}

// add counts a duration and returns how many there are.
func (h *histogram) add(nanos int64) int64 {
	h.slots[slotOf(uint64(max(nanos, 0))/1000)].Add(1)
	return h.count.Add(1)
}

// take empties the histogram and returns the percentile of what was in it, in
// nanoseconds; not ok: there was nothing. What is added meanwhile is in this or in
// the next.
func (h *histogram) take(percentile float64) (nanos int64, ok bool) {
	var counts [slots]uint32
	total := int64(0)
	for i := range h.slots {
		if h.slots[i].Load() != 0 {
			counts[i] = h.slots[i].Swap(0)
			total += int64(counts[i])
		}
	}
	h.count.Add(-total)
	rank, seen := percentile/100*float64(total), 0.0
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if seen+float64(n) >= rank {
			lo, hi := bounds(i)
			return int64((lo + (hi-lo)*(rank-seen)/float64(n)) * 1000), true
		}
		seen += float64(n)
	}
	return 0, false
}
