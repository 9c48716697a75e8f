// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// attempt is one try of an exchange at one endpoint. The main attempt's response
// goes downstream; a shadow is a mirrored copy whose response goes nowhere.
type attempt struct {
	x      *exchange // nil once the exchange no longer hears of it
	on     *clusterOn
	limits *breaker.Limits
	token  breaker.Token
	host   *lb.Host
	up     upstream  // nil before there is one, and after
	pool   *hostPool // while waiting in its queue
	failed *failure  // why it did not work out; set by events, read by phases

	startedAt int64 // admitted
	sentAt    int64 // head queued; 0: not yet
	headAt    int64 // when the final response began; 0: not yet
	retryAt   int64 // before then the endpoint does not want to be asked; 0: it did not say
	leaves    int64 // when it is to end, its connection being outdated; 0: not
	status    int
	verdict   int // status that stands for the call's, if it is gRPC and has one; else 0

	shadow    bool
	keepHost  bool // of a shadow: its authority is not marked
	unsampled bool // of a shadow: its trace context says that it is not sampled
	streaming bool // the head is sent: body may follow
	gotHead   bool // a final response has begun
	complete  bool // the response has ended
	over      bool // the request was sent to its end
	counted   bool // its outcome was, with the opening of its tunnel
	done      bool
	late      bool // its per-try timeout has passed, and it goes on
	hedged    bool // another one was made beside it

	dialling *tunnelConn // where the tunnel is to end: until it is connected
}

func (w *worker) newAttempt(x *exchange, on *clusterOn, l *breaker.Limits) *attempt {
	a := w.attempts.take()
	if a == nil {
		a = new(attempt)
	}
	*a = attempt{x: x, on: on, limits: l, startedAt: w.loop.Now()}
	x.living++
	return a
}

// admit asks breaker and limits, and makes the next main attempt.
func (x *exchange) admit() filter.Verdict {
	x.chooseMember()
	if x.on.lost { // since the last attempt
		if on := x.w.clusterOn(x.on.c); on != nil { // and it has come back
			x.on = on
		}
	}
	on := x.on
	spec := on.spec
	now := x.w.loop.Now()
	if drop := spec.assigned.DropPerMillion; drop > 0 && uint32(x.w.random.Uint64()%1_000_000) < drop {
		on.stats.dropOverload++
		return x.giveUp(&failureDropped)
	}
	var token breaker.Token
	if spec.circuit != nil {
		ok := false
		if token, ok = spec.circuit.Allow(now); !ok {
			on.counts.ShortCircuited++
			on.stats.shortCircuited++
			on.changed()
			x.retryIn = spec.circuit.RetryIn(now)
			return x.giveUp(&failureOpen)
		}
	}
	l := x.limits()
	if !l.TryRequest() {
		on.stats.rqOverflow++
		on.report(token, breaker.Rejected, now)
		return x.giveUp(&failureOverflow)
	}
	a := x.w.newAttempt(x, on, l)
	a.token = token
	x.main = a
	x.Record.Attempts++
	x.setAttemptCount(int(x.Record.Attempts))
	return filter.Next
}

// send queues the request's head, and of its body what is here.
func (a *attempt) send() {
	x := a.x
	h := &x.Request
	a.sentAt = x.w.loop.Now()
	a.streaming = true
	a.on.stats.rqTotal++
	a.on.stats.rqActive++
	a.host.Active.Add(1)
	a.host.Stats.RqTotal.Add(1)
	if !a.shadow {
		a.up.note(&x.Record)
	}
	if !a.shadow && x.route.action.res.AutoHostRewrite {
		if name := a.host.Hostname(); name != "" {
			h.SetAuthority(append(x.w.value[:0], name...))
		}
	}
	if x.call.deadline != 0 {
		x.tellDeadline()
	}
	// A request for a tunnel has no end but the tunnel's.
	bare := x.requestDone && !x.hasTrailer && len(x.body) == 0 && x.tunnel != noTunnel
	a.up.sendHead(h, x.requestDone && len(x.body) == 0 && !x.hasTrailer && !bare)
	switch {
	case len(x.body) > 0:
		a.sendData(x.body, x.requestDone && !x.hasTrailer)
	case x.requestDone && !x.hasTrailer && !bare:
		a.sendData(nil, true)
	}
	if x.hasTrailer {
		a.sendTrailer(&x.trailer)
	}
}

// sendData sends a piece of the request's body.
func (a *attempt) sendData(chunk []byte, last bool) {
	a.up.sendData(chunk, last)
	a.over = a.over || last
}

// sendTrailer ends the request's body with trailers.
func (a *attempt) sendTrailer(h *codec.Header) {
	a.up.sendTrailer(h)
	a.over = true
}

// requestOver is told to a shadow whose exchange has ended: if the request did
// not get to its end, it is no use to anybody.
func (a *attempt) requestOver() {
	switch {
	case a.done, a.over:
	case a.pool != nil && a.x.requestDone && a.whole():
		// It waits for a connection, and all of the request is here.
	default:
		a.on.stats.mirrorDropped++
		a.finish(&failureDownstreamGone)
	}
}

// finish ends the attempt: its outcome is counted, its connection given up where
// the exchange of messages on it is not complete, and what it holds released. f
// is nil where a response came.
func (a *attempt) finish(f *failure) {
	if a.done {
		return
	}
	a.done = true
	x, on, now := a.x, a.on, a.x.w.loop.Now()
	a.limits.ReleaseRequest()
	if a.pool != nil {
		a.pool.cancel(a)
	}
	if a.streaming {
		a.host.Active.Add(-1)
		on.stats.rqActive--
	}
	if a.dialling != nil {
		a.dialling.finish(false)
	}
	a.count(f, now)
	if !a.shadow {
		x.addWire(a)
		x.reached = x.reached || a.streaming && !f.unprocessed()
	}
	if u := a.up; u != nil {
		a.up = nil
		u.finish(a.complete)
	}
	if !a.shadow && !a.hedged && a.host != nil {
		x.tried = append(x.tried, a.host)
	}
	w := x.w
	if a.shadow {
		x.dropShadow(a)
	}
	x.attemptGone()
	*a = attempt{done: true} // whoever still has it sees that it is over
	w.freeAttempt(a)
}

// count reports the outcome to breaker, outlier detection and statistics.
func (a *attempt) count(f *failure, now int64) {
	on, s := a.on, &a.on.stats
	if a.counted {
		return
	}
	if f == nil && a.gotHead {
		s.response(a.status, now-a.sentAt)
		if a.judged() >= 500 {
			a.host.Stats.RqError.Add(1)
		} else {
			a.host.Stats.RqSuccess.Add(1)
		}
		on.outcome(a, breaker.Response, now)
		return
	}
	if f == nil {
		on.cancelled(a, now)
		return
	}
	switch f.Class {
	case classConnect:
		s.rqPendingFailure++
		on.outcome(a, breaker.NotConnect, now)
	case classOverloaded: // it did answer
		s.response(a.status, now-a.sentAt)
		a.host.Stats.RqError.Add(1)
		on.outcome(a, breaker.Response, now)
	case classShort:
		s.rqPendingFailure++
		on.cancelled(a, now)
	case classTimeout, classPerTry:
		if a.host != nil {
			a.host.Stats.RqTimeout.Add(1)
		}
		on.outcome(a, breaker.TimedOut, now)
	case classUnsent, classRefused, classReset, classStarted, classProtocol:
		s.rqRxReset++
		if a.host != nil {
			a.host.Stats.RqError.Add(1)
		}
		on.outcome(a, breaker.Reset, now)
	default:
		if a.streaming {
			s.rqCancelled++
			s.rqTxReset++
		}
		on.cancelled(a, now)
	}
}

// head takes the head of the final response.
func (a *attempt) head(h *codec.ResponseHead, last bool) {
	x := a.x
	a.gotHead, a.status, a.headAt = true, h.Status, x.w.loop.Now()
	a.judge(&h.Header)
	a.on.learn(a, &h.Header)
	a.hearHealth(&h.Header)
	if a.shadow || x.main != a && !x.takesOver(a, h, last) {
		return
	}
	x.lastActivity = x.w.loop.Now()
	x.Record.UpstreamResponse = x.since()
	x.Record.UpstreamStatus = uint16(h.Status)
	x.Response.CopyFrom(h)
	x.hasResponse, x.responseLast = true, last
	if last {
		a.complete = true
	}
	x.advance()
}

// informational passes a 1xx on.
func (a *attempt) informational(h *codec.ResponseHead) {
	if x := a.x; x.main == a && !x.responseStarted {
		x.lastActivity = x.w.loop.Now()
		x.down.sendInformational(x, h)
	}
}

// responseHead takes the head of the final response; that of a shadow ends where
// nothing follows.
func (a *attempt) responseHead(h *codec.ResponseHead, last bool) {
	if a.shadow && last {
		a.complete = true
		a.gotHead, a.status, a.headAt = true, h.Status, a.x.w.loop.Now()
		a.judge(&h.Header)
		a.on.learn(a, &h.Header)
		a.finish(nil)
		return
	}
	a.head(h, last)
}

// responseData takes a piece of the response's body.
func (a *attempt) responseData(chunk []byte, last bool) {
	a.complete = a.complete || last
	if !a.shadow {
		a.x.responseData(chunk, last)
	} else if last {
		a.finish(nil)
	}
}

// responseTrailer takes the trailers that end the response.
func (a *attempt) responseTrailer(h *codec.Header) {
	a.complete = true
	a.judge(h)
	a.on.learnLoad(a, h)
	if a.shadow {
		a.finish(nil)
		return
	}
	a.x.responseTrailer(h)
}

// overflow drops a shadow whose endpoint is slower than downstream. It may be
// inside of its writing, so that it goes at the end of the tick.
func (a *attempt) overflow() {
	a.on.stats.mirrorDropped++
	a.failed = &failureOverflow
	a.x.w.dropLater(a)
}

// abandon ends an attempt whose response was under way when a callback panicked.
func (a *attempt) abandon() {
	if a.shadow {
		a.finish(&failurePanic)
	} else {
		a.x.abandon()
	}
}

// fails is called by events when the attempt cannot go on.
func (a *attempt) fails(f *failure) {
	x := a.x
	switch {
	case a.shadow:
		a.finish(f)
	case x.main != a && a.hedged:
		x.dropHedge(a)
		a.finish(f)
	case x.tunnel == tunnelOpen:
		x.tunnelBroken()
	case x.responseStarted:
		x.main = nil
		if f.Class != classStarted {
			f = &failureResetStarted
		}
		a.finish(f)
		x.fail(f)
	default:
		a.failed = f
		x.w.wake(x)
	}
}
