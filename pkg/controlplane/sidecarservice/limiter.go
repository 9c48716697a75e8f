// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"sync"
	"time"
)

// How often certificates may be asked for: by one caller for one service from one
// address, by one certificate or bootstrap token wherever it is used, and by all. A
// host that starts a fleet at once is within it; a loop is not, and takes no more than
// half of what there is for all.
const (
	askBurst      = 200
	askPerSecond  = 5
	holdBurst     = 1000
	holdPerSecond = 250
	allBurst      = 2000
	allPerSecond  = 500
	// maxAskers bounds the memory, of each kind. Beyond it those are forgotten that
	// have all their tokens again, and others until a quarter is free.
	maxAskers = 8192
)

// limiter is buckets of tokens: for askers, for those who hold a credential, and one
// for all.
type limiter struct {
	mu sync.Mutex
	// Guarded by mu.
	all     bucket
	askers  buckets
	holders buckets
}

type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) fill(now time.Time, burst, perSecond float64) {
	if b.last.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*perSecond)
	}
	b.last = now
}

// take says whether the caller, who may act for the service, may go on. Who may not
// takes nothing away from others.
func (l *limiter) take(now time.Time, c Caller, service string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.fill(now, allBurst, allPerSecond)
	wanted := []*bucket{&l.all, l.askers.of(now, c.account()+"\x00"+service, askBurst, askPerSecond)}
	if c.Means == ByCertificate || c.Means == ByBootstrapToken {
		wanted = append(wanted, l.holders.of(now, c.Service+"\x00"+c.Token.ID, holdBurst, holdPerSecond))
	}
	for _, b := range wanted {
		if b.tokens < 1 {
			return false
		}
	}
	for _, b := range wanted {
		b.tokens--
	}
	return true
}

// buckets are some by name. The zero value is ready.
type buckets map[string]*bucket

// of is one bucket, filled.
func (m *buckets) of(now time.Time, name string, burst, perSecond float64) *bucket {
	if *m == nil {
		*m = buckets{}
	}
	b := (*m)[name]
	if b == nil {
		if len(*m) >= maxAskers {
			m.forget(now, burst/perSecond)
		}
		b = &bucket{}
		(*m)[name] = b
	}
	b.fill(now, burst, perSecond)
	return b
}

// forget frees a quarter at least, so that it is not done for each new name: the
// buckets that are full again after so many seconds, and any where that is not enough.
func (m buckets) forget(now time.Time, full float64) {
	for k, b := range m {
		if now.Sub(b.last).Seconds() >= full {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) <= maxAskers-maxAskers/4 {
			return
		}
		delete(m, k)
	}
}

// maxRefusalLines bounds the log: anybody who reaches the port can be refused.
const maxRefusalLines = 20 // a second

// refusals counts the refusals of a second. The zero value is ready.
type refusals struct {
	mu sync.Mutex
	// Guarded by mu.
	second int64
	lines  int
}

// line is how many there were in this second, this one included.
func (r *refusals) line(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := now.Unix(); s != r.second {
		r.second, r.lines = s, 0
	}
	r.lines++
	return r.lines
}
