// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// settleRounds bounds the ping-pong of closes that write to connections whose
// flush closes others; what is left goes on in the next tick.
const settleRounds = 16

// Tick runs the loop once, blocking for no longer than wait if there is nothing
// to do (negative: no limit). It returns false when the loop has stopped.
func (l *Loop) Tick(wait time.Duration) bool {
	l.owner.claim()
	if l.stopped {
		return false
	}
	before := l.now
	// Wait for events first: everything below works on what they bring.
	l.ready, l.at = l.poll(wait), 0
	// One clock read for all of them: it costs as much as parsing a small head.
	l.readClock()
	if l.stopping.Load() || l.err != nil {
		l.shutdown()
		return false
	}
	// New configuration before any event, so that a tick sees one of them only.
	l.hook(l.begin)
	l.growth.mark = int64(l.stats.ReadBytes - l.stats.WrittenBytes)
	// What wants its turn from here on gets it in the next tick: nobody has two.
	l.pending.take()
	l.closes = max(closesPerTick, l.closing.len()/4)
	// Events before all else: they are what the peers wait for. If they are few,
	// each is brought to its end before the next.
	for l.dispatch() {
	}
	// Then what budget or back-pressure held up, so that fresh peers go first. All of
	// it has one budget: that is what fresh peers wait for in the next tick.
	l.resumable = l.stats.ReadBytes + uint64(l.budget)
	for l.resume() {
	}
	// The mailbox after the events: what others post is seldom urgent.
	for l.runMailbox() {
	}
	// Timers after the events, so that an answer that came in time beats its timeout.
	if l.now-before > int64(standstill) {
		l.catchUp()
	}
	for l.expire() {
	}
	// The owner's list of what became ready by all of the above.
	l.hook(l.end)
	// Everything written goes out, but for what may wait for more: one system call for
	// each connection.
	l.letGo()
	// Closes come last: nobody holds a connection half-way through a callback.
	l.settle()
	l.publish()
	return true
}

// standstill is how late timers have to be for the loop to have stood still: the process
// was stopped, or the machine was.
const standstill = 100 * time.Millisecond

// catchUpRounds bounds the events of a standstill, to 65 536.
const catchUpRounds = 1024

// catchUp takes all events that came while the loop stood still, before timers find that
// their time has passed. A wait that was interrupted has brought none at all, and any
// other only as many as fit into one tick.
func (l *Loop) catchUp() {
	if at, ok := l.wheel.deadline(); !ok || l.now-at <= int64(standstill) {
		return // it has waited for all that time
	}
	for range catchUpRounds {
		n, errno := l.sys.Poll(l.events, 0)
		if n == 0 || errno != 0 {
			return
		}
		l.stats.Events += uint64(n)
		l.unseen = true
		l.ready, l.at = n, 0
		for l.dispatch() {
		}
		if n < len(l.events) {
			return
		}
	}
}

// yieldEvery is how often a loop gives way to the scheduler. A goroutine that keeps
// its processor for 10 ms has it taken away in each system call that blocks from
// then on, and the runtime's monitor looks every 20 µs: at four connections that
// was a tenth of the CPU. To give way wakes another thread, so it is done as seldom
// as that allows.
const yieldEvery = 8 * time.Millisecond

// giveWay lets the scheduler run. A goroutine with a thread of its own would wait for
// another thread to come by and hand the processor back, two switches each: it does
// without for the moment, and goes on at once where nobody else wants to run.
func (l *Loop) giveWay() {
	l.yielded = l.now
	if !l.threaded {
		runtime.Gosched()
		return
	}
	runtime.UnlockOSThread()
	runtime.Gosched()
	runtime.LockOSThread()
}

// fewEvents is how many events a wait may bring for the next one to block at once.
const fewEvents = 2

// handEach is up to how many events a tick sends out what each one caused before
// it goes on to the next. With few of them the peers are about to fall asleep for
// want of work, and to wake one costs more than to keep it busy (at four
// connections 2 % of the CPU); with many, one thing at a time is cheaper.
const handEach = 8

// poll waits for events. While they come in numbers it looks without blocking
// first: a wait that the scheduler sees costs more than a look. When they come
// one by one the look would find nothing, and its price is saved (at four
// connections two system calls in ten).
func (l *Loop) poll(wait time.Duration) int {
	if l.now-l.yielded > int64(yieldEvery) {
		l.giveWay()
	}
	n, errno := 0, syscall.Errno(0)
	if l.busy() || wait == 0 || l.ready > fewEvents {
		n, errno = l.sys.Poll(l.events, 0)
	}
	busy := l.busy()
	l.again = false
	if n == 0 && errno == 0 && wait != 0 && !busy {
		l.readClock() // idle anyway; timers are measured from a fresh time
		if at, ok := l.due(); ok {
			wait = sooner(wait, at-l.now)
		}
		if wait != 0 {
			n, errno = l.sys.Poll(l.events, wait)
			l.now = 0 // what was slept is not the length of a tick
		}
	}
	if errno != 0 {
		l.err = os.NewSyscallError("epoll_wait", errno)
		return 0
	}
	l.stats.Ticks++
	l.stats.Events += uint64(n)
	l.unseen = l.unseen || n > 0
	return n
}

// busy reports whether the next tick has work already.
func (l *Loop) busy() bool {
	return l.again || len(l.kept) > 0 || !l.pending.empty() || !l.dirty.empty() || !l.closing.empty() || !l.mailbox.empty() || l.stopping.Load()
}

// Due returns the monotonic time at which a tick has something to do though
// nothing happens outside: a time that has passed if there is work already. ok
// is false when only the world can bring more.
func (l *Loop) Due() (at int64, ok bool) {
	l.owner.check()
	if l.busy() {
		return l.now, true
	}
	return l.due()
}

// due is when the next timer fires, or counters that moved are published.
func (l *Loop) due() (at int64, ok bool) {
	at, ok = l.wheel.deadline()
	if l.unseen {
		if next := l.published + int64(publishEvery); !ok || next < at {
			return next, true
		}
	}
	return at, ok
}

func sooner(wait time.Duration, in int64) time.Duration {
	in = max(in, 0)
	if wait < 0 || in < int64(wait) {
		return time.Duration(in)
	}
	return wait
}

// readClock starts the time of a tick. The time since it was last read is the
// length of the tick before, unless the loop slept.
func (l *Loop) readClock() {
	before := l.now
	l.now, l.wall = l.sys.Clock()
	if before != 0 {
		l.stats.MaxTick = max(l.stats.MaxTick, time.Duration(l.now-before))
	}
}

// contain is deferred once for each batch. The batches keep their position in
// the Loop, and return true after a panic so that the caller runs the rest.
func (l *Loop) contain() {
	v := recover()
	if v == nil {
		return
	}
	l.dropBetween()
	if c := l.current; c != nil {
		l.current = nil
		l.close(c, ErrPanic)
	}
	l.Panicked(v)
}

// Panicked counts and reports a panic of this loop. The owner calls it, deferred,
// for those that it recovers from itself.
func (l *Loop) Panicked(v any) {
	l.stats.Panics++
	l.unseen = true
	if l.config.OnPanic != nil {
		l.config.OnPanic(v, debug.Stack())
	}
}

// Blame makes c the connection that a panic in the rest of a timer's or a posted
// callback is blamed on: it is closed, as it is in callbacks of its own.
func (l *Loop) Blame(c *Conn) {
	l.owner.check()
	l.current = c
}

func (l *Loop) hook(f func()) {
	if f == nil {
		return
	}
	l.current = nil
	defer l.contain()
	f()
}

func (l *Loop) dispatch() (more bool) {
	more = true
	defer l.contain()
	for l.at < l.ready {
		e := l.events[l.at]
		l.at++
		i := uint32(e.Token)
		if int(i) >= len(l.slots) { // the wake token too
			continue
		}
		s := l.slots[i]
		if s.generation != uint32(e.Token>>32) {
			continue // closed earlier in this tick
		}
		if s.listener != nil {
			l.current = nil
			s.listener.accept()
		} else if s.conn != nil {
			l.current = s.conn
			l.event(s.conn, e.Flags)
		}
		if l.ready <= handEach && l.at < l.ready {
			l.hook(l.end)
			l.settle()
		}
	}
	return false
}

func (l *Loop) resume() (more bool) {
	more = true
	defer l.contain()
	for l.stats.ReadBytes < l.resumable {
		c := l.pending.next()
		if c == nil {
			return false
		}
		l.current = c
		c.flags &^= isPending
		if c.spent == uint32(l.stats.Ticks) { // had its turn by an event
			l.pend(c)
			continue
		}
		if c.secure != nil && c.secure.early && c.pauses == 0 && c.state == open {
			l.openEarly(c)
		}
		if c.has(redeliver) && c.left != nil && c.pauses == 0 && c.state == open {
			l.present(c)
		}
		if c.has(tellsEOF) && c.pauses == 0 && c.state == open {
			c.flags &^= tellsEOF
			c.handler.OnEOF(c)
			l.endIfBoth(c)
		}
		l.readConn(c)
	}
	return false
}

func (l *Loop) runMailbox() (more bool) {
	more = true
	l.current = nil
	defer l.contain()
	if l.letters == nil {
		l.letters = l.mailbox.take()
	}
	for l.letters != nil {
		f := l.letters.f
		l.letters = l.letters.next
		l.unseen = true
		l.stats.Posted++
		l.current = nil
		f()
	}
	return false
}

func (l *Loop) expire() (more bool) {
	more = true
	l.current = nil
	defer l.contain()
	for {
		t := l.wheel.due(l.now)
		if t == nil {
			return false
		}
		l.unseen = true
		l.stats.Timers++
		l.current = nil
		t.fire()
	}
}

// closesPerTick is how many connections a tick closes at least. A close costs 15 to
// 20 µs; the hundred that a peer can bring about by ending one connection would keep
// everybody else waiting for as many events. Of more than that each tick closes a part,
// so that descriptors come back as fast as they are taken.
const closesPerTick = 16

// settle flushes and closes until neither has caused more of the other, or the tick has
// closed enough.
func (l *Loop) settle() {
	for range settleRounds {
		if l.dirty.empty() && (l.closing.empty() || l.closes <= 0) {
			return
		}
		l.dirty.take()
		for l.flushDirty() {
		}
		l.closing.take()
		for l.finishCloses() {
		}
	}
}

func (l *Loop) flushDirty() (more bool) {
	more = true
	defer l.contain()
	for c := l.dirty.next(); c != nil; c = l.dirty.next() {
		l.current = c
		c.flags &^= isDirty
		l.flush(c)
		l.drained(c)
	}
	return false
}

// finishCloses gives back what closed connections held and tells their handlers.
func (l *Loop) finishCloses() (more bool) {
	more = true
	defer l.contain()
	for l.closes > 0 {
		c := l.closing.next()
		if c == nil {
			return false
		}
		l.closes--
		if c.fd >= 0 {
			l.sys.CloseFD(int(c.fd))
			l.freeSlot(c.slot)
		}
		c.releaseInput()
		l.releaseOutput(c)
		l.stats.Closed++
		l.stats.Open--
		l.unseen = true
		l.feed()
		l.current = c
		if c.handler != nil {
			c.handler.OnClose(c, c.err)
		}
	}
	return false
}

// shutdown runs what was posted before, ends all connections and gives back the System.
func (l *Loop) shutdown() {
	for l.runMailbox() {
	}
	l.release()
	l.settle()
	l.stopped = true // from here on Dial and AddListener fail
	for i := range l.slots {
		if s := l.slots[i]; s.listener != nil {
			s.listener.Remove()
		} else if s.conn != nil {
			l.close(s.conn, ErrLoopStopped)
		}
	}
	for !l.dirty.empty() || !l.closing.empty() {
		l.closes = math.MaxInt
		l.settle()
	}
	l.published = 0
	l.unseen = true
	l.publish()
	l.sys.Shutdown()
}
