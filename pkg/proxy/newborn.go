// SPDX-License-Identifier: Apache-2.0

package proxy

import "slices"

// startNewborn starts the exchanges whose heads were read. While the peer does not
// read what it has asked for they wait, with their time running: there are no more of
// them than streams.
func (c *http2Conn) startNewborn() {
	for c.born < len(c.newborn) && !c.conn.AboveWatermark() {
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
