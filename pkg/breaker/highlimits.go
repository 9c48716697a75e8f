// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// high are the limits of a cluster's high routing priority, which hang from those of the
// default one. Hardly any route has that priority, and a mesh has clusters by the
// thousand: they are made for the first that does.
type high struct {
	limits atomic.Pointer[Limits] // nil: nobody has asked for them
	given  atomic.Pointer[resource.Thresholds]
}

// SetHigh says what the limits of the high priority are. t is kept and must not change.
func (l *Limits) SetHigh(t *resource.Thresholds) {
	l.high.given.Store(t)
	if h := l.high.limits.Load(); h != nil {
		h.Update(*t)
	}
}

// High returns the limits of the high priority. SetHigh must have been called before.
func (l *Limits) High() *Limits {
	if h := l.high.limits.Load(); h != nil {
		return h
	}
	t := l.high.given.Load()
	h := NewLimits(*t)
	if !l.high.limits.CompareAndSwap(nil, h) {
		h = l.high.limits.Load()
	}
	for { // what SetHigh said before it could see h
		now := l.high.given.Load()
		if now == t {
			return h
		}
		h.Update(*now)
		t = now
	}
}

// UseHigh reads all limits of the high priority, as Use does.
func (l *Limits) UseHigh() LimitUse {
	if h := l.high.limits.Load(); h != nil {
		return h.Use()
	}
	return NewLimits(*l.high.given.Load()).Use()
}

// AllRequests is the number of requests in flight of both priorities.
func (l *Limits) AllRequests() int64 {
	n := int64(l.Requests())
	if h := l.high.limits.Load(); h != nil {
		n += int64(h.Requests())
	}
	return n
}
