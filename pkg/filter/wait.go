// SPDX-License-Identifier: Apache-2.0

package filter

// A filter that cannot answer at once takes a Continuation, keeps it where its
// answer will come from (a timer, a connection of the loop), and answers Wait:
//
//	func (f *f) OnRequest(x *filter.Exchange) filter.Verdict {
//		q := f.ask(x)                  // its state of this exchange
//		q.goOn = x.Continuation()
//		x.Slots[f.slot] = q
//		return filter.Wait
//	}
//
// While it waits, nothing of the message goes further and no other filter is
// asked: of a request's body as much is kept as for a retry, then its sender is
// paused; of a response's body nothing is read. The route's timeout does not run
// during a request's wait. The stream's idle time, the request's and the whole
// exchange's limits, and the peer's going end the exchange in a wait, too; a
// filter that wants less limits its wait itself. OnDone tells it of the end, as
// of every other, and the Continuation is void from then on.

// ResumeFilter is asked what comes of its wait: OnResume is called once for each
// Wait, at the end of the tick in which the Continuation was resumed, and its
// verdict takes the place of the one that the hook owed. It may be Wait again,
// with a new Continuation. A filter without this hook goes on: Next.
type ResumeFilter interface{ OnResume(x *Exchange) Verdict }

// Waiter is the side of an exchange that its Continuations go to; the data path
// implements it.
type Waiter interface {
	// Turn voids the Continuations made so far and numbers a new one.
	Turn() uint64
	// Resume wakes the exchange if the turn still holds.
	Resume(turn uint64) bool
}

// Continuation lets an exchange go on whose filter answered Wait. It is a value
// that may be kept for longer than the exchange lives: only the last one made of
// a running exchange does anything, and that once. It belongs to the loop; what
// comes from elsewhere goes through Worker.Loop.PostOffLoop first.
type Continuation struct {
	w    Waiter
	turn uint64
}

// Continuation makes the handle by which a filter about to answer Wait goes on.
func (x *Exchange) Continuation() Continuation {
	if x.Waiter == nil {
		return Continuation{}
	}
	return Continuation{x.Waiter, x.Waiter.Turn()}
}

// Resume lets the exchange go on at the end of this tick, never from inside of
// this call, which may be made in the hook itself. It reports false, having done
// nothing, where the exchange has ended or another Continuation took the place of
// this one.
func (c Continuation) Resume() bool { return c.w != nil && c.w.Resume(c.turn) }
