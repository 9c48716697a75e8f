// SPDX-License-Identifier: Apache-2.0

package event

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultPerKind is how many events of each kind are kept.
const DefaultPerKind = 256

// maxKinds bounds the kinds that have a ring of their own; there are fewer.
const maxKinds = 32

// Log keeps the last events of each kind.
type Log struct {
	perKind int
	now     func() time.Time

	mu sync.Mutex
	// Guarded by mu.
	rings map[string]*ring
	last  uint64        // id of the newest event
	more  chan struct{} // closed and replaced with each event
	sink  func(line []byte)
}

// ring are the last events of a kind.
type ring struct {
	events  []Event
	at      int    // the oldest, once the ring is full
	evicted uint64 // id of the newest event that has left
}

// NewLog keeps the last perKind events of each kind, 0 for DefaultPerKind. A nil now
// means the wall clock.
func NewLog(perKind int, now func() time.Time) *Log {
	if perKind <= 0 {
		perKind = DefaultPerKind
	}
	if now == nil {
		now = time.Now
	}
	return &Log{perKind: perKind, now: now, rings: map[string]*ring{}, more: make(chan struct{})}
}

// WriteLines makes the log hand each event on as a line of JSON with its newline, those
// that it keeps at once. The sink must neither keep the line nor block.
func (l *Log) WriteLines(sink func(line []byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink = sink
	list, _ := l.kept(0, Filter{})
	for i := range list {
		l.write(&list[i])
	}
}

func (l *Log) write(e *Event) {
	if l.sink == nil {
		return
	}
	if line, err := json.Marshal(e); err == nil { // no field of an event can fail
		l.sink(append(line, '\n'))
	}
}

// Add gives the event its id, and its time where it has none, and keeps it. A nil Log
// keeps nothing.
func (l *Log) Add(e Event) {
	if l == nil {
		return
	}
	e.Clip()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	e.Time = e.Time.Round(0).UTC() // without the monotonic reading
	l.last++
	e.ID = l.last
	r := l.rings[e.Kind]
	if r == nil {
		if len(l.rings) >= maxKinds {
			return
		}
		r = &ring{}
		l.rings[e.Kind] = r
	}
	if len(r.events) < l.perKind {
		r.events = append(r.events, e)
	} else {
		r.evicted = r.events[r.at].ID
		r.events[r.at] = e
		r.at = (r.at + 1) % l.perKind
	}
	close(l.more)
	l.more = make(chan struct{})
	l.write(&e)
}

// Filter says which events are wanted; the zero Filter wants all.
type Filter struct {
	Kinds []string
}

func (f *Filter) wants(kind string) bool {
	return len(f.Kinds) == 0 || slices.ContainsFunc(f.Kinds, func(k string) bool { return strings.EqualFold(k, kind) })
}

// After returns up to limit of the events that follow an id (0: the oldest kept) in
// their order, whether some between are not kept any more, and a channel that is
// closed with the next event. An id that this log has not given yet is one of another
// process: all that is kept follows it.
func (l *Log) After(id uint64, f Filter, limit int) (list []Event, missed bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id > l.last {
		id = 0
	}
	list, missed = l.kept(id, f)
	return list[:min(len(list), limit)], missed, l.more
}

// kept are the events that follow an id, in their order. With mu held.
func (l *Log) kept(id uint64, f Filter) (list []Event, missed bool) {
	for kind, r := range l.rings {
		if !f.wants(kind) {
			continue
		}
		missed = missed || id != 0 && r.evicted > id
		n := len(r.events)
		for i := range n {
			if e := &r.events[(r.at+i)%n]; e.ID > id {
				list = append(list, *e)
			}
		}
	}
	slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.ID, b.ID) })
	return list, missed
}

// Last is the id of the newest event, 0 where there is none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
