// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"sync/atomic"
	"time"
)

// publishEvery is how old counters read by others may be.
const publishEvery = 100 * time.Millisecond

// Stats are the counters of a loop since it began.
type Stats struct {
	Ticks        uint64
	Events       uint64
	Posted       uint64 // functions run from the mailbox
	Timers       uint64 // timers fired
	Accepted     uint64
	AcceptErrors uint64 // failed accepts, each time descriptors ran out among them
	AcceptPauses uint64 // times accepting stopped for want of places or descriptors
	Shed         uint64 // connections refused after such a pause
	Dialled      uint64
	Closed       uint64
	Open         uint64 // connections that OnClose was not called for yet
	ReadBytes    uint64
	WrittenBytes uint64
	Panics       uint64
	MaxTick      time.Duration // longest tick
}

// fields lists the counters in the order of publishedStats.
func (s *Stats) fields() [published]*uint64 {
	return [...]*uint64{
		&s.Ticks, &s.Events, &s.Posted, &s.Timers, &s.Accepted, &s.AcceptErrors, &s.Shed, &s.Dialled, &s.Closed, &s.Open,
		&s.ReadBytes, &s.WrittenBytes, &s.Panics, &s.AcceptPauses, nil,
	}
}

// publishedStats is the copy that other goroutines read. Each counter is exact;
// two of them may be of different ticks.
type publishedStats [published]atomic.Uint64

// published is how many counters there are; the last is MaxTick.
const published = 15

// publish copies the counters out, every 100 ms and only if one has moved.
func (l *Loop) publish() {
	if !l.unseen || l.now-l.published < int64(publishEvery) && l.published != 0 {
		return
	}
	l.published, l.unseen = l.now, false
	for i, f := range l.stats.fields() {
		if f != nil {
			l.counters[i].Store(*f)
		}
	}
	l.counters[published-1].Store(uint64(l.stats.MaxTick))
}

// Stats returns the counters as they are now.
func (l *Loop) Stats() Stats {
	l.owner.check()
	return l.stats
}

// StatsOffLoop returns the counters as they were at most 100 ms ago.
func (l *Loop) StatsOffLoop() (s Stats) {
	for i, f := range s.fields() {
		if f != nil {
			*f = l.counters[i].Load()
		}
	}
	s.MaxTick = time.Duration(l.counters[published-1].Load())
	return s
}
