// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
)

// clockWait bounds how long a reader of circuits waits for the loops' clock.
const clockWait = 200 * time.Millisecond

// Breakers reads the circuits of all clusters that have one, by name, for
// Hystrix's stream. Any goroutine but a loop may call it.
func (p *Proxy) Breakers() []breaker.Metrics {
	list := []breaker.Metrics{}
	now, known := int64(0), false
	for _, c := range p.clustersByName() {
		if c.spec.circuit == nil {
			continue
		}
		if !known {
			now, known = p.loopTime(), true
		}
		m := c.spec.circuit.Metrics(now)
		m.Group = p.options.Service
		if m.MaxRequests == 0 {
			u := c.spec.limits.Use().Requests
			m.Active, m.MaxRequests = u.Active, u.Max
			m.RollingActive = max(m.RollingActive, m.Active)
		}
		list = append(list, m)
	}
	return list
}

// loopTime is the clock that circuits go by; 0, at which none is half-open, where
// no worker answers.
func (p *Proxy) loopTime() int64 {
	now := make(chan int64, 1)
	w := p.workers[0]
	w.loop.PostOffLoop(func() { now <- w.loop.Now() })
	t := time.NewTimer(clockWait)
	defer t.Stop()
	select {
	case n := <-now:
		return n
	case <-p.Done():
	case <-t.C:
	}
	return 0
}

// Ejections lists the last ejections and returns of endpoints, the oldest first.
func (p *Proxy) Ejections() []breaker.Event { return p.ejections.Events() }

// Workers is the number of loops.
func (p *Proxy) Workers() int { return len(p.workers) }

// Serving reports whether all workers run on the last configuration applied, and
// there was one.
func (p *Proxy) Serving() bool {
	v := p.version.Load()
	return v > 0 && p.AdoptedVersion() >= v
}

// RuntimeValues are the runtime's keys with their present values as text.
func (p *Proxy) RuntimeValues() map[string]string {
	m := map[string]string{}
	rt := p.runtime.Load()
	if rt == nil {
		return m
	}
	for k, v := range rt.Numbers {
		m[k] = strconv.FormatFloat(v, 'f', -1, 64)
	}
	for k, v := range rt.Texts {
		m[k] = v
	}
	return m
}

// How many panics within how long make a proxy unfit. One is a bug that cost one
// connection; many are a state that does not get better by serving on.
const (
	panicLimit  = 10
	panicWindow = 60 * time.Second
	panicLook   = 500 * time.Millisecond
)

// PanicWatch tells whether the workers panic too often to be sent traffic. It
// forgets: once the last minute had fewer panics, the proxy counts as fit again.
type PanicWatch struct {
	total func() uint64 // panics so far; set once

	mu    sync.Mutex
	known uint64   // panics seen
	seen  []panics // of the last minute, oldest first; at most panicLimit
}

// panics are those that a look found new.
type panics struct {
	at time.Time
	n  uint64
}

// NewPanicWatch makes a watch; Run makes it look.
func NewPanicWatch(p *Proxy) *PanicWatch {
	return &PanicWatch{total: func() (n uint64) {
		for _, w := range p.workers {
			n += w.loop.StatsOffLoop().Panics
		}
		return n
	}}
}

// Run looks twice a second until the context ends.
func (w *PanicWatch) Run(ctx context.Context) error {
	t := time.NewTicker(panicLook)
	defer t.Stop()
	for {
		w.look(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Tripped reports whether there were ten panics within a minute.
func (w *PanicWatch) Tripped() bool { return w.look(time.Now()) >= panicLimit }

// look takes notice of new panics and returns how many the last minute had. Of
// more than the limit it only remembers that.
func (w *PanicWatch) look(now time.Time) uint64 {
	total := w.total()
	w.mu.Lock()
	defer w.mu.Unlock()
	if total > w.known {
		w.seen = append(w.seen, panics{now, total - w.known})
		w.known = total
	}
	var sum uint64
	for i := len(w.seen) - 1; i >= 0; i-- {
		if now.Sub(w.seen[i].at) > panicWindow || sum >= panicLimit {
			w.seen = slices.Delete(w.seen, 0, i+1)
			break
		}
		sum += w.seen[i].n
	}
	return sum
}
