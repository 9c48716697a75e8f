// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math/bits"
	"sync/atomic"
)

// latencySlots covers 0 to 2^28 µs (4.5 minutes) in four slots per power of two:
// a percentile is at most 25 % above the true one.
const latencySlots = 112

// latencies is a log-linear histogram of microseconds.
type latencies struct {
	slots [latencySlots]uint32
	sum   uint64 // µs
	count uint32
}

// latencySlot is the slot of a number of microseconds.
func latencySlot(micros uint64) int {
	if micros < 4 {
		return int(micros)
	}
	exp := bits.Len64(micros) - 1
	return min((exp-1)*4+int(micros>>(exp-2)&3), latencySlots-1)
}

// slotMicros is the greatest number of microseconds of a slot.
func slotMicros(i int) uint64 {
	if i < 4 {
		return uint64(i)
	}
	exp := i/4 + 1
	return uint64(4+i%4+1)<<(exp-2) - 1
}

func (l *latencies) observe(nanos int64) {
	micros := uint64(max(nanos, 0)) / 1000
	l.slots[latencySlot(micros)]++
	l.sum += micros
	l.count++
}

func (l *latencies) add(o *latencies) {
	for i, n := range o.slots {
		l.slots[i] += n
	}
	l.sum += o.sum
	l.count += o.count
}

// percentile is in microseconds; 0 gives the smallest value's slot, 100 the
// greatest's.
func (l *latencies) percentile(p float64) uint64 {
	if l.count == 0 {
		return 0
	}
	rank := max(uint64(p/100*float64(l.count)+0.5), 1)
	seen := uint64(0)
	for i, n := range l.slots {
		if seen += uint64(n); seen >= rank {
			return slotMicros(i)
		}
	}
	return slotMicros(latencySlots - 1)
}

func (l *latencies) mean() uint64 {
	if l.count == 0 {
		return 0
	}
	return l.sum / uint64(l.count)
}

// sharedLatencies collects what loops have flushed until the next tick takes it.
type sharedLatencies struct {
	slots [latencySlots]atomic.Uint32
	sum   atomic.Uint64
}

func (s *sharedLatencies) flush(l *latencies) {
	for i, n := range l.slots {
		if n != 0 {
			s.slots[i].Add(n)
		}
	}
	s.sum.Add(l.sum)
	*l = latencies{}
}

// take moves everything into l.
func (s *sharedLatencies) take(l *latencies) {
	for i := range s.slots {
		if s.slots[i].Load() != 0 {
			n := s.slots[i].Swap(0)
			l.slots[i] += n
			l.count += n
		}
	}
	l.sum += s.sum.Swap(0)
}
