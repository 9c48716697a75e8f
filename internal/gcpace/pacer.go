// SPDX-License-Identifier: Apache-2.0

package gcpace

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// Tight is the percentage (GOGC) of a heap that gathers little garbage.
	Tight = 50
	// Headroom is how many bytes of garbage a heap may gather that gathers much, where
	// Tight allows less.
	Headroom = 12 << 20
	// often is how many collections in how long a time are too many. Those of a start are
	// fewer, whatever is loaded.
	often, within = 6, 10 * time.Second
	// quiet is the time without a collection after which the heap is tight again. The
	// runtime collects every two minutes at least.
	quiet = time.Minute
)

// Pacer decides after each collection. It is no use for several goroutines at a time.
type Pacer struct {
	percent int
	last    [often]time.Time // of the collections that the heap's growth has caused
	at      int
	cycles  uint64
}

// Cycle is told of the end of a collection: how many there were that the heap's growth
// has caused, and the bytes that live. It returns the percentage to set, and false where
// that stays as it is.
func (p *Pacer) Cycle(now time.Time, automatic, live uint64) (percent int, changed bool) {
	if p.percent == 0 {
		p.percent = Tight
	}
	before, newest := p.percent, p.last[(p.at+often-1)%often]
	if automatic != p.cycles {
		p.cycles = automatic
		p.last[p.at] = now
		p.at = (p.at + 1) % often
	}
	oldest := p.last[p.at]
	switch {
	case now.Sub(newest) > quiet && p.percent != Tight:
		p.percent = Tight
	case !oldest.IsZero() && now.Sub(oldest) < within || p.percent != Tight:
		p.percent = int(max(Tight, min(Headroom*100/max(live, 1), 1000)))
	}
	return p.percent, p.percent != before
}

// Start sets the heap's percentage to Tight, and from then on to what a Pacer says after
// each collection, for the rest of the process. Once is enough.
var Start = sync.OnceFunc(func() {
	debug.SetGCPercent(Tight)
	watch(&Pacer{})
})

// sentinel is collected by each collection. It has a pointer, so that it is not one of
// several in a block.
type sentinel struct{ _ *sentinel }

func watch(p *Pacer) {
	s := &sentinel{}
	runtime.AddCleanup(s, func(p *Pacer) {
		m := [...]metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(m[:])
		if percent, changed := p.Cycle(time.Now(), m[0].Value.Uint64(), m[1].Value.Uint64()); changed {
			debug.SetGCPercent(percent)
		}
		watch(p)
	}, p)
}
