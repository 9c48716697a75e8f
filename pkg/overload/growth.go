// SPDX-License-Identifier: Apache-2.0

package overload

import "sync/atomic"

// growth is what loops have come to hold since memory was measured, by their own counts:
// between two looks at the resources it adds to the pressure of memory.
type growth struct{ own, kernel counted }

// counted are bytes of which a part has been measured.
type counted struct{ total, seen atomic.Int64 }

func (c *counted) since() uint64 { return uint64(max(c.total.Load()-c.seen.Load(), 0)) }

// Grow tells that a loop holds so many bytes more than it has told before, and that the
// kernel may come to queue so many for it; both may be negative. Anybody may call it. It
// reports whether the state is another one now.
func (m *Manager) Grow(own, kernel int64) (changed bool) {
	m.growth.own.total.Add(own)
	m.growth.kernel.total.Add(kernel)
	return m.publish()
}

// Grown is how many bytes the process has come to hold itself since memory was measured.
func (m *Manager) Grown() uint64 { return m.growth.own.since() }

// Measure is the begin of a look at memory, within Update.
func (m *Manager) Measure() Measure {
	return Measure{m, m.growth.own.total.Load(), m.growth.kernel.total.Load()}
}

// Measure is a look at memory; the zero Measure saw nothing.
type Measure struct {
	m           *Manager
	own, kernel int64
}

// Counted says that what the process held when the look began is in what was measured.
func (s Measure) Counted() {
	if s.m != nil {
		s.m.growth.own.seen.Store(s.own)
	}
}

// CountedKernel says the same of what the kernel queues.
func (s Measure) CountedKernel() {
	if s.m != nil {
		s.m.growth.kernel.seen.Store(s.kernel)
	}
}
