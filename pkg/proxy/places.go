// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// places makes the places for so many connections; 0: no limit.
func places(n int) *reactor.Places {
	if n <= 0 {
		return nil
	}
	return reactor.NewPlaces(n)
}

// makePlace closes an idle connection to any upstream, so that another can be
// dialled where all places are taken. Where this worker has none the others are
// asked: what is dialled a moment later finds the place.
func (w *worker) makePlace() {
	if w.dropIdle() {
		return
	}
	for _, o := range w.proxy.workers {
		if o != w && o.wanted.CompareAndSwap(false, true) {
			o.loop.PostOffLoop(o.yieldPlace)
		}
	}
}

// yieldPlace is what another worker asks for.
func (w *worker) yieldPlace() {
	w.wanted.Store(false)
	w.dropIdle()
}

func (w *worker) dropIdle() bool {
	for on := range w.all.each {
		for p := range on.all.each {
			if n := len(p.idle); n > 0 {
				p.drop(p.idle[0]) // the one that was used longest ago
				return true
			}
		}
	}
	return false
}

// crowdCalm is how long accepting must not have paused for the next pause to be
// news again.
const crowdCalm = 10 * time.Second

// crowdWatch tells the log once when accepting pauses, and once when that is over.
type crowdWatch struct {
	pauses uint64
	last   time.Time // of a pause; zero: it is over
}

// watchCrowd looks at the workers' counters. Off the loops.
func (p *Proxy) watchCrowd(c *crowdWatch, now time.Time) {
	var pauses, refused, open uint64
	for _, w := range p.workers {
		s := w.loop.StatsOffLoop()
		pauses += s.AcceptPauses
		refused += s.Shed
		open += s.Open
	}
	switch {
	case pauses != c.pauses || !c.last.IsZero() && p.accepting.Full():
		if c.last.IsZero() {
			p.log.Warn("accepting pauses until connections end: no place or descriptor is left (ulimit -n)",
				"connections", open, "limit_downstream", p.options.Accepting, "limit_upstream", p.options.Dialling)
		}
		c.pauses, c.last = pauses, now
	case !c.last.IsZero() && now.Sub(c.last) > crowdCalm:
		c.last = time.Time{}
		p.log.Info("accepting goes on", "pauses", pauses, "refused", refused, "connections", open)
	}
}
