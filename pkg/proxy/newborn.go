// SPDX-License-Identifier: Apache-2.0

package proxy

import "slices"

// dialsPerTick is how many dials of a worker keep the rest of a connection's streams
// for the next tick. A dial costs some 40 µs: a hundred streams that find no idle
// connection, which a peer asks for by a few hundred bytes, would keep everybody else
// waiting for milliseconds.
const dialsPerTick = 8

// startNewborn starts the exchanges whose heads were read. While the peer does not
// read what it has asked for they wait, with their time running: there are no more of
// them than streams. So do they, until the next tick, when this one has dialled enough;
// each connection starts one in any case.
func (c *http2Conn) startNewborn() {
	for started := 0; c.born < len(c.newborn) && !c.conn.AboveWatermark(); started++ {
		if started > 0 && c.w.dials >= dialsPerTick {
			c.startLater()
			break
		}
		s := c.newborn[c.born]
		c.newborn[c.born] = nil
		c.born++
		s.fresh = false
		s.x.start()
	}
	for _, s := range c.newborn[c.born:] {
		s.x.armFirst()
	}
	if c.born == len(c.newborn) {
		c.newborn, c.born = c.newborn[:0], 0
	}
}

// unborn takes a stream whose exchange has ended before it began out of those that wait.
func (c *http2Conn) unborn(s *http2Stream) {
	if !s.fresh {
		return
	}
	s.fresh = false
	if i := slices.Index(c.newborn[c.born:], s); i >= 0 {
		c.newborn = slices.Delete(c.newborn, c.born+i, c.born+i+1)
	}
}

// startLater goes on with startNewborn in the next tick.
func (c *http2Conn) startLater() {
	if !c.later {
		c.later = true
		c.w.late = append(c.w.late, c)
		c.w.loop.Again()
	}
}

// beginLate makes those that were kept for the tick that begins its own.
func (w *worker) beginLate() {
	w.dials = 0
	if len(w.tardy) == 0 {
		w.tardy, w.late = w.late, w.tardy
	}
}

// startLate starts what was kept for this tick, behind what came in it.
func (w *worker) startLate() {
	if len(w.tardy) > 0 {
		w.loop.Again() // for those behind one that panics
	}
	for i, c := range w.tardy {
		w.tardy[i] = nil
		if c == nil { // its turn was before a panic
			continue
		}
		c.later = false
		if !c.closing {
			w.loop.Blame(c.conn)
			c.startNewborn()
			c.flush()
		}
	}
	w.tardy = w.tardy[:0]
}
