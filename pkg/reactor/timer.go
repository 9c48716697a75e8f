// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"math/bits"
	"time"
)

// A wheel tick is 2^20 ns ≈ 1.05 ms. Six levels of 64 slots reach 2^36 ticks,
// about two years; what is later waits in the top level and is placed again.
const (
	wheelShift  = 20
	levelBits   = 6
	levelSlots  = 1 << levelBits
	wheelLevels = 6
	wheelReach  = 1 << (levelBits * wheelLevels)
	slotNone    = -1
	slotFiring  = wheelLevels * levelSlots
)

// Timer calls F, or else Target.OnTimer, once after the time for which
// Loop.Schedule armed it, never early and about 2 ms late at most. It is meant to be embedded by
// value; F or Target is set once, before the first Schedule. The zero Timer is
// not armed. A timer belongs to the loop that armed it and must not be copied
// while it is armed.
type Timer struct {
	F      func()
	Target TimerTarget

	wheel      *wheel
	next, prev *Timer
	when       uint64 // wheel ticks
	slot       int16  // plus one, so that the zero Timer is in none
}

// TimerTarget is the owner of timers that wants no closure for each.
type TimerTarget interface{ OnTimer(*Timer) }

// Stop disarms t; a timer that is not armed is left alone. After Stop, t does not fire.
func (t *Timer) Stop() {
	if t.slot != 0 {
		t.wheel.remove(t)
	}
}

// Armed reports whether t is going to fire.
func (t *Timer) Armed() bool { return t.slot != 0 }

// wheel is a hierarchical timing wheel: arming and stopping cost the same with
// one timer or a million. A timer sits in the level of the highest 6-bit group
// in which its tick differs from the wheel's, and moves down as that time nears.
type wheel struct {
	now      uint64 // ticks; all timers up to here have fired
	occupied [wheelLevels]uint64
	slots    [slotFiring + 1]timerList // the last holds what is being fired
	owner    *owner
}

type timerList struct{ head, tail *Timer }

func (w *wheel) start(now int64, o *owner) { w.now, w.owner = uint64(now)>>wheelShift, o }

// arm places t at the first wheel tick that is not before now+d nanoseconds.
func (w *wheel) arm(t *Timer, now int64, d time.Duration) {
	w.owner.check()
	if t.slot != 0 {
		t.wheel.remove(t)
	}
	if d < 0 {
		d = 0
	}
	at := uint64(now) + uint64(d) // cannot wrap: both are below 2^63
	t.wheel = w
	t.when = max((at+(1<<wheelShift-1))>>wheelShift, w.now+1)
	w.place(t)
}

func (w *wheel) place(t *Timer) {
	when := t.when
	if when <= w.now { // moved down in the very tick that it is due
		w.link(t, slotFiring)
		return
	}
	if when-w.now >= wheelReach {
		when = w.now + wheelReach - 1
	}
	level := (63 - bits.LeadingZeros64((when^w.now)|(levelSlots-1))) / levelBits
	if level >= wheelLevels { // the top level wraps round
		level = wheelLevels - 1
	}
	i := int(when>>(levelBits*level)) & (levelSlots - 1)
	w.occupied[level] |= 1 << i
	w.link(t, level*levelSlots+i)
}

func (w *wheel) link(t *Timer, slot int) {
	l := &w.slots[slot]
	t.slot = int16(slot) + 1
	t.prev, t.next = l.tail, nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
}

func (w *wheel) remove(t *Timer) {
	w.owner.check()
	slot := int(t.slot) - 1
	l := &w.slots[slot]
	if t.prev == nil {
		l.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	if l.head == nil && slot < slotFiring {
		w.occupied[slot/levelSlots] &^= 1 << (slot % levelSlots)
	}
	t.next, t.prev, t.slot = nil, nil, 0
}

// nextSlot returns the slot that is due next and the tick when it is; for a slot
// above level 0 that is when its timers have to move down.
func (w *wheel) nextSlot() (slot int, at uint64, ok bool) {
	for level := range wheelLevels {
		set := w.occupied[level]
		if set == 0 {
			continue
		}
		shift := levelBits * level
		cursor := int(w.now>>shift) & (levelSlots - 1)
		ahead := bits.TrailingZeros64(bits.RotateLeft64(set, -cursor))
		i := (cursor + ahead) & (levelSlots - 1)
		// Below the top level all timers of a level lie in the current turn
		// of it, after the cursor; at the top they may lie in the next turn.
		at := (w.now>>shift + uint64(ahead)) << shift
		if ahead == 0 {
			at = (w.now>>shift + levelSlots) << shift
		}
		// A lower level is always due before a higher one.
		return level*levelSlots + i, at, true
	}
	return 0, 0, false
}

// deadline returns the monotonic time in ns when expire has work to do next.
func (w *wheel) deadline() (int64, bool) {
	if w.slots[slotFiring].head != nil {
		return int64(w.now << wheelShift), true
	}
	_, at, ok := w.nextSlot()
	return int64(at << wheelShift), ok
}

// due returns the next timer that now has reached, disarmed; nil when there is
// none. Timers that callers arm between two calls are not due before the next wheel tick.
func (w *wheel) due(now int64) *Timer {
	target := uint64(now) >> wheelShift
	for {
		if t := w.slots[slotFiring].head; t != nil {
			w.remove(t)
			return t
		}
		slot, at, ok := w.nextSlot()
		if !ok || at > target {
			w.now = max(w.now, target)
			return nil
		}
		w.now = at
		l := w.slots[slot]
		w.slots[slot] = timerList{}
		w.occupied[slot/levelSlots] &^= 1 << (slot % levelSlots)
		for t := l.head; t != nil; {
			next := t.next
			w.place(t)
			t = next
		}
	}
}

func (t *Timer) fire() {
	if t.F != nil {
		t.F()
	} else if t.Target != nil {
		t.Target.OnTimer(t)
	}
}
