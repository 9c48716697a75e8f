// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// Hedging: an attempt whose per-try timeout has passed goes on while the next one is
// made, and the first good answer counts (hedge_on_per_try_timeout). The attempt that
// phases deal with is always x.main; those in x.hedges only wait for their answer. There
// are some only while there is a main attempt, or a retry is about to make one, so that
// whoever gives up on the main one goes back to waiting for them (giveUp).

// perTryDue is when the per-try timeout of the main attempt passes; false: not at all,
// or nobody knows yet. Where it hedges, its time begins when the request is whole.
func (x *exchange) perTryDue() (int64, bool) {
	a := x.main
	switch {
	case a == nil || x.retry.perTry <= 0 || a.sentAt == 0 || a.gotHead || a.late || a.failed != nil:
		return 0, false
	case !x.retry.hedge || x.tunnel != noTunnel:
		return a.sentAt + int64(x.retry.perTry), true
	case !x.requestDone:
		return 0, false
	}
	return max(a.sentAt, x.requestAt) + int64(x.retry.perTry), true
}

// perTryTimeout ends the main attempt, or where the policy hedges, lets it go on beside
// another one. It reports whether the attempt has failed.
func (x *exchange) perTryTimeout() bool {
	a := x.main
	x.on.stats.rqPerTryTimeout++
	if !x.retry.hedge || x.tunnel != noTunnel {
		a.failed = &failurePerTry
		return true
	}
	a.late = true
	if !x.mayRetry() || !x.takeRetry() {
		return false // it has all the time that is left of the request's
	}
	x.on.stats.hedges++
	x.main = nil
	a.hedged = true
	a.up.hold(false) // nobody else would
	x.hedges = append(x.hedges, a)
	x.tried = append(x.tried, a.host)
	x.backOff(0)
	return false
}

// takesOver makes an attempt beside the main one, whose head has come, the main one. It
// reports false for an answer that the policy does not want: another is under way.
func (x *exchange) takesOver(a *attempt, h *codec.ResponseHead, last bool) bool {
	x.dropHedge(a)
	if x.wantsRetry(h) || x.peerFailure(h, last) != nil {
		a.complete = a.complete || last
		a.finish(nil)
		return false
	}
	if m := x.main; m != nil {
		f := m.failed
		if f == nil {
			f = &failureOutrun
		}
		x.main = nil
		m.finish(f)
	}
	x.retry.at = 0
	x.woken = false // by the attempt that is no more
	x.goBackTo(a)
	x.holdResponse(x.down.full())
	return true
}

// goBackTo makes an attempt that was hedged the main one again.
func (x *exchange) goBackTo(a *attempt) {
	x.main, x.phase = a, awaitPhase
	x.noteHost(a.host)
	a.up.note(&x.Record)
	x.Record.UpstreamRequest = a.sentAt - x.began
}

// giveUp replies with the failure of the last attempt, unless another one goes on.
func (x *exchange) giveUp(f *failure) filter.Verdict {
	if x.waitForHedge() {
		return filter.Wait
	}
	return x.reply(f)
}

// giveUpResponse ends the main attempt, whose answer nobody wants, if another one goes
// on. It reports whether there is one.
func (x *exchange) giveUpResponse(a *attempt) (v filter.Verdict, waits bool) {
	if len(x.hedges) == 0 {
		return filter.Next, false
	}
	x.main = nil
	x.hasResponse = false
	a.finish(nil)
	x.waitForHedge()
	return filter.Wait, true
}

func (x *exchange) waitForHedge() bool {
	n := len(x.hedges)
	if n == 0 {
		return false
	}
	a := x.hedges[n-1]
	x.dropHedge(a)
	x.goBackTo(a)
	return true
}

// endHedges ends the attempts beside the main one: they have had their time.
func (x *exchange) endHedges() {
	for n := len(x.hedges); n > 0; n = len(x.hedges) {
		a := x.hedges[n-1]
		x.dropHedge(a)
		a.finish(&failurePerTry)
	}
}

func (x *exchange) dropHedge(a *attempt) {
	if i := slices.Index(x.hedges, a); i >= 0 {
		x.hedges = slices.Delete(x.hedges, i, i+1)
	}
}
