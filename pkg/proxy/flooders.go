// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// flooders are sources whose connections were closed for floods of late. A flood ends
// with its connection; what is left of an attack is the next one, of which the handshake
// alone costs most of a millisecond. The new connections of such a source are read later,
// the longer the more it goes on; those that it has are not concerned. Each worker has
// those of its own connections.
type flooders struct {
	by   map[netip.Addr]flooder // empty in most proxies
	tidy int64                  // when forget looked last
}

type flooder struct {
	floods int
	last   int64 // when, of the loops' clock
}

const (
	floodsFree    = 2                      // so many are not held against anybody
	floodDelay    = 100 * time.Millisecond // after the next one; doubled by each
	maxFloodDelay = 2 * time.Second        // well below the time for a handshake and for listener filters
	floodMemory   = 10 * time.Second       // without a flood, after which all is forgotten
	maxFlooders   = 4096                   // sources; of more nobody is remembered
)

// note says that a connection from an address was closed for a flood.
func (f *flooders) note(from netip.Addr, now int64) {
	source := mtls.SourceOf(from)
	if !source.IsValid() { // Unix sockets
		return
	}
	if f.by == nil {
		f.by = map[netip.Addr]flooder{}
	}
	e, known := f.by[source]
	if now-e.last > int64(floodMemory) {
		e.floods = 0
	}
	if !known && len(f.by) >= maxFlooders && !f.forget(now) {
		return
	}
	f.by[source] = flooder{min(e.floods+1, 64), now}
}

// forget makes room, looking at all once a second at most, and reports whether there is
// some now.
func (f *flooders) forget(now int64) bool {
	if now-f.tidy < int64(time.Second) {
		return false
	}
	f.tidy = now
	for source, e := range f.by {
		if now-e.last > int64(floodMemory) {
			delete(f.by, source)
		}
	}
	return len(f.by) < maxFlooders
}

// delay is for how long a new connection from an address is not read.
func (f *flooders) delay(from netip.Addr, now int64) time.Duration {
	if len(f.by) == 0 {
		return 0
	}
	e := f.by[mtls.SourceOf(from)]
	switch {
	case e.floods == 0:
		return 0
	case now-e.last > int64(floodMemory):
		f.forget(now)
		return 0
	case e.floods <= floodsFree:
		return 0
	}
	return min(floodDelay<<min(e.floods-floodsFree-1, 10), maxFloodDelay)
}

// delayed is a connection that is not read yet.
type delayed struct {
	c     *reactor.Conn
	timer reactor.Timer
}

// OnTimer implements reactor.TimerTarget.
func (d *delayed) OnTimer(*reactor.Timer) { d.c.Resume() }

// delayFlooder pauses an accepted connection whose source has flooded.
func (w *worker) delayFlooder(c *reactor.Conn) {
	after := w.flooders.delay(c.RemoteAddr().Addr(), w.loop.Now())
	if after == 0 {
		return
	}
	w.stats.flooderDelayed++
	d := &delayed{c: c}
	d.timer.Target = d
	c.Pause()
	w.loop.Schedule(&d.timer, after)
}
