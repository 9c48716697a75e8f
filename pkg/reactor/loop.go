// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
)

// Config is what a Loop is made of. The zero Config is a loop on the kernel.
type Config struct {
	// Index tells the loops of a process apart; it goes into Conn.ID.
	Index int
	// System is below the loop; nil is the kernel.
	System System
	// ReadBuffer is the size of the scratch buffer that one read fills, 64 KiB
	// when zero.
	ReadBuffer int
	// ReadBudget is how many bytes one connection may read in a tick before the
	// others get their turn, and all those together that go on after theirs; 64 KiB
	// when zero. While bytes cost so much time that others wait for long, it is less
	// for accepted connections.
	ReadBudget int
	// Accepting and Dialling are the places of accepted and of dialled connections,
	// shared with other loops; nil: no limit.
	Accepting, Dialling *Places
	// Ends get to know the connections that are dialled, shared with other loops; nil:
	// nobody wants to know.
	Ends *Ends
	// OnPanic is told of panics in callbacks, on the loop; nil drops them (they
	// are counted in any case).
	OnPanic func(v any, stack []byte)
}

// eventsPerTick bounds what one look at the kernel brings. What is written leaves
// at the end of a tick: with more of them, the first output has left the caches by
// then (at 512 connections 64 cost 2 % less than 256).
const eventsPerTick = 64

// Loop owns connections, listeners and timers, and runs their callbacks.
type Loop struct {
	// set once
	config     Config
	sys        System
	begin, end func()
	owner      owner

	// atomic: touched by other goroutines
	mailbox  mailbox
	stopping atomic.Bool
	counters publishedStats

	// loop-owned
	now, wall int64
	yielded   int64 // when the loop gave way last
	threaded  bool  // has a thread of its own, by Run
	wheel     wheel
	pools     pools
	scratch   []byte
	events    []Event
	ready     int     // events of this tick
	at        int     // next of them
	letters   *letter // taken from the mailbox and not yet run
	slots     []slot
	free      []uint32
	bounds    Bounds
	growth    growthWatch
	budget    int     // of a turn, in bytes: Config.ReadBudget, or less while those are expensive
	pending   turns   // to be read or redelivered though no event says so
	resumable uint64  // what stats.ReadBytes is when they have had enough of this tick
	dirty     turns   // have output that the kernel may take
	kept      []*Conn // have output that waits for more
	keptFor   int     // events since the first of it
	closing   turns   // OnClose is due
	closes    int     // how many of them this tick may still end
	starved   []*Listener
	current   *Conn // whom a panic is blamed on
	bufs      [][]byte
	plain     []byte // scratch of Transports, as scratch is of reads
	sealed    []byte
	lastID    uint64
	stats     Stats
	published int64 // when
	unseen    bool  // counters moved since
	again     bool
	between   bool // relay has bytes that are neither read nor written
	stopped   bool
	err       error
}

// slot is what an event's token points at. The generation tells an event of a
// closed descriptor from one of its successor.
type slot struct {
	conn       *Conn
	listener   *Listener
	generation uint32
}

// turns are connections that wait for something to be done with them. What is
// added while a turn is taken waits for the next one, so that each turn ends.
type turns struct {
	waiting, taken []*Conn
	at             int
}

func (t *turns) add(c *Conn) { t.waiting = append(t.waiting, c) }

func (t *turns) empty() bool { return len(t.waiting) == 0 && t.at == len(t.taken) }

func (t *turns) len() int { return len(t.waiting) + len(t.taken) - t.at }

// take starts a turn, once the one before has ended.
func (t *turns) take() {
	if t.at == len(t.taken) {
		t.taken, t.waiting, t.at = t.waiting, t.taken[:0], 0
	}
}

// next returns the connections of the turn in the order added, then nil.
func (t *turns) next() *Conn {
	if t.at == len(t.taken) {
		return nil
	}
	c := t.taken[t.at]
	t.taken[t.at] = nil
	t.at++
	return c
}

// NewLoop makes a loop; it runs when somebody calls Run or Tick.
func NewLoop(c Config) (*Loop, error) {
	if c.ReadBuffer < 0 || c.ReadBudget < 0 || c.Index < 0 {
		return nil, fmt.Errorf("reactor: negative index %d, read buffer %d or read budget %d", c.Index, c.ReadBuffer, c.ReadBudget)
	}
	if c.ReadBuffer == 0 {
		c.ReadBuffer = 64 << 10
	}
	if c.ReadBudget == 0 {
		c.ReadBudget = 64 << 10
	}
	l := &Loop{config: c, sys: c.System, scratch: make([]byte, c.ReadBuffer), events: make([]Event, eventsPerTick)}
	if l.sys == nil {
		k, err := newKernel()
		if err != nil {
			return nil, fmt.Errorf("reactor: loop %d: %w", c.Index, err)
		}
		l.sys = k
	}
	l.budget = c.ReadBudget
	l.now, l.wall = l.sys.Clock()
	l.wheel.start(l.now, &l.owner)
	return l, nil
}

// Run ticks until StopOffLoop, on a thread of its own, then closes every
// connection with ErrLoopStopped. It returns an error only when the System fails.
func (l *Loop) Run() error {
	runtime.LockOSThread() // else time slices of other goroutines show up in the tail
	l.threaded = true
	defer func() {
		l.threaded = false
		runtime.UnlockOSThread()
	}()
	for l.Tick(-1) {
	}
	return l.err
}

// StopOffLoop ends the loop at its next tick.
func (l *Loop) StopOffLoop() {
	l.stopping.Store(true)
	l.sys.WakeOffLoop()
}

// PostOffLoop runs f on the loop, in its next tick; functions of one goroutine
// run in the order posted. What is posted after the loop has stopped never runs.
func (l *Loop) PostOffLoop(f func()) {
	if l.mailbox.push(f) {
		l.sys.WakeOffLoop()
	}
}

// WakeOffLoop makes the loop tick, so that its begin hook sees what changed.
func (l *Loop) WakeOffLoop() { l.sys.WakeOffLoop() }

// Crowded reports whether accepted connections have nearly used up their places,
// so that those which can be had again should go.
func (l *Loop) Crowded() bool { return l.config.Accepting.Crowded() }

// MayDial reports whether there is a place for a dialled connection; without one
// Dial fails with EMFILE.
func (l *Loop) MayDial() bool { return !l.config.Dialling.Full() }

// Dialled is Ends.Dialled of Config.Ends.
func (l *Loop) Dialled(local, remote netip.AddrPort) bool {
	return l.config.Ends.Dialled(local, remote)
}

// Index returns Config.Index.
func (l *Loop) Index() int { return l.config.Index }

// Now returns the monotonic time of this tick in ns, comparable between loops.
func (l *Loop) Now() int64 { return l.now }

// Wall returns the wall-clock time of this tick in Unix ns.
func (l *Loop) Wall() int64 { return l.wall }

// OnTick sets the hooks: begin is called after the clock was read and before
// any event; end after events, mailbox and timers, and before the flush, so
// that what it writes leaves in this tick. Either may be nil.
func (l *Loop) OnTick(begin, end func()) {
	l.owner.check()
	l.begin, l.end = begin, end
}

// Again asks for one more tick that does not block.
func (l *Loop) Again() {
	l.owner.check()
	l.again = true
}

// Schedule arms t to fire d from now, whether it was armed or not.
func (l *Loop) Schedule(t *Timer, d time.Duration) { l.wheel.arm(t, l.now, d) }

// close takes c out of the loop; OnClose and the descriptor follow in finishCloses.
func (l *Loop) close(c *Conn, err error) {
	if c.state == closed {
		return
	}
	c.state, c.err = closed, err
	switch {
	case c.has(accepted):
		l.config.Accepting.give()
	case c.has(dialled):
		l.config.Dialling.give()
		l.config.Ends.remove(c.local, c.remote)
	}
	if c.linger != nil {
		c.linger.timer.Stop()
	}
	if c.fd >= 0 {
		l.slots[c.slot].generation++ // events that are under way are stale from here on
	}
	l.closing.add(c)
}

// pend has c read, and what is left over redelivered, in the next tick.
func (l *Loop) pend(c *Conn) {
	if c.has(isPending) || c.state != open && c.state != lingering {
		return
	}
	c.flags |= isPending
	l.pending.add(c)
}

func (l *Loop) markDirty(c *Conn) {
	switch {
	case c.has(isDirty):
	case c.mayKeep():
		l.keep(c)
	default:
		c.flags |= isDirty
		l.dirty.add(c)
	}
}

func (l *Loop) takeSlot() uint32 {
	if n := len(l.free); n > 0 {
		i := l.free[n-1]
		l.free = l.free[:n-1]
		return i
	}
	l.slots = append(l.slots, slot{})
	return uint32(len(l.slots) - 1)
}

func (l *Loop) freeSlot(i uint32) {
	s := &l.slots[i]
	s.conn, s.listener = nil, nil
	s.generation++
	l.free = append(l.free, i)
}

func (l *Loop) token(i uint32) uint64 { return uint64(i) | uint64(l.slots[i].generation)<<32 }
