// SPDX-License-Identifier: Apache-2.0

package reactor

const (
	// gatherBytes is how much output is worth a system call of its own, whatever may
	// still be added: a record of TLS.
	gatherBytes = 16 << 10
	// gatherEvents bounds for how long output is kept back while events come without end.
	gatherEvents = 2 * eventsPerTick
)

// Gather makes what is written to c leave together with what the loop's next events add:
// once a look at the kernel brings few events or none, once 16 KiB wait, or after 128
// events, and not at the end of each tick. It is for a connection that carries much at a
// time, each piece small and a system call the dearest part of it. A loop with little to
// do makes no difference, and what ends a direction waits for nothing. Gather(false) has
// what was kept back leave in this tick.
func (c *Conn) Gather(on bool) {
	c.loop.owner.check()
	switch {
	case on:
		c.flags |= gathers
	case c.has(gathers):
		c.flags &^= gathers
		if c.has(isKept) && c.hasOutput() {
			c.loop.markDirty(c)
		}
	}
}

// mayKeep reports whether c's output may go on waiting for more. Where writers wait for
// it, it may not: they are told by a flush only.
func (c *Conn) mayKeep() bool {
	return c.has(gathers) && c.state == open && c.waiting < gatherBytes && !c.has(finWanted|overHigh)
}

// keep has c flushed when the loop lets go of what it keeps back.
func (l *Loop) keep(c *Conn) {
	if !c.has(isKept) {
		c.flags |= isKept
		l.kept = append(l.kept, c)
	}
}

// letGo ends the waiting of what is kept back, unless events are coming in numbers: then
// the next tick begins with a look that does not block, and may bring more of it.
func (l *Loop) letGo() {
	if len(l.kept) == 0 {
		return
	}
	l.keptFor += l.ready
	if l.ready <= fewEvents || l.keptFor >= gatherEvents {
		l.release()
	}
}

func (l *Loop) release() {
	for i, c := range l.kept {
		l.kept[i] = nil
		c.flags &^= isKept
		if c.hasOutput() && !c.has(isDirty) {
			c.flags |= isDirty
			l.dirty.add(c)
		}
	}
	l.kept = l.kept[:0]
	l.keptFor = 0
}
