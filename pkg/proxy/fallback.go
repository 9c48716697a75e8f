// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A request that its upstream owes an answer gets one of the cluster's fallback, or of
// the route's: from another cluster, then the last good one that is kept, then one of
// our own. Hystrix's circuit hears of it once, whichever it was.

// upstreamFlags are those of replies that stand for a response of the cluster.
const upstreamFlags = record.UO | record.UF | record.UH | record.UT | record.UC | record.UR | record.UPE | record.DO

// fallenState is how far an exchange has come with its fallback.
type fallenState struct {
	from     *clusterOn // the cluster that failed, once another one is asked; nil: none is
	fallback *resource.Fallback
	attempts int  // at that cluster
	told     bool // its circuit knows what came of it
	kept     bool // the reply is an answer that was kept
}

// fallback is what is configured for a failed upstream; nil: nothing, or the reply does
// not stand for an upstream's.
func (x *exchange) fallback() *resource.Fallback {
	if x.fallen.from != nil {
		return x.fallen.fallback
	}
	if x.Local.Flags&upstreamFlags == 0 || x.on == nil || x.asksConnect() {
		return nil // to CONNECT, success would mean that there is a tunnel
	}
	return x.configuredFallback()
}

func (x *exchange) configuredFallback() *resource.Fallback {
	if x.route != nil && x.route.action != nil && x.route.action.res.Fallback != nil {
		return x.route.action.res.Fallback
	}
	return x.on.spec.res.Fallback
}

// fallsBack sends the request to the fallback's cluster in place of the reply in Local,
// and reports whether it can: the caller then sees to it that admit is next. It can once
// for an exchange, with all of the body that has come so far, and if the request may run
// twice or surely has not run yet.
func (x *exchange) fallsBack() bool {
	f := x.fallback()
	if f == nil || f.Cluster == "" || x.fallen.from != nil || x.phase < admitPhase || x.tunnel != noTunnel || !x.replayable() {
		return false
	}
	if x.mayHaveRun() && !x.Request.Method.Idempotent() {
		return false
	}
	now := x.w.loop.Now()
	if d := x.call.deadline; d != 0 && now >= d {
		return false // the caller has given up
	}
	c := (*x.w.byName.Load())[f.Cluster]
	if c == nil {
		return false
	}
	to := x.w.clusterOn(c)
	if to == nil || to == x.on {
		return false
	}
	x.endHedges()
	x.fallen = fallenState{from: x.on, fallback: f, attempts: int(x.Record.Attempts)}
	x.retry.startAgain()
	x.cluster, x.on = c, to
	x.Record.Cluster = c.name
	x.Record.Flags |= x.Local.Flags
	x.Local, x.hasResponse = filter.LocalReply{}, false
	x.Override, x.FellBack = filter.Override{}, true
	clear(x.tried)
	x.tried = x.tried[:0]
	if x.requestDone {
		x.requestAt = now // the route's timeout is also the fallback's
	}
	x.armTimeouts()
	return true
}

// mayHaveRun reports whether an endpoint may have processed the request, or may yet.
func (x *exchange) mayHaveRun() bool { return x.reached || len(x.hedges) > 0 }

// startAgain lets the policy's retries begin anew, with the budget of another cluster.
func (r *retryState) startAgain() {
	if r.budget != nil {
		r.budget.ReleaseRetry()
		r.budget = nil
	}
	r.over = r.over || r.used > 0
	r.used, r.safeUsed, r.at = 0, false, 0
}

// fellBack tells the circuit what the answer of the fallback's cluster is worth, once
// its head has come.
func (x *exchange) fellBack(a *attempt) {
	if x.fallen.from == nil {
		return
	}
	o := breaker.FallbackSuccess
	if a.judged() >= 500 {
		o = breaker.FallbackFailure
	}
	x.tellFallback(o)
}

func (x *exchange) tellFallback(o breaker.Outcome) {
	on := x.fallen.from
	if on == nil {
		on = x.on
	}
	if !x.fallen.told {
		x.fallen.told = true
		on.counts.Add(o)
		on.changed()
	}
}

// replaceReply replaces the reply to a failed upstream by what the fallback has for
// want of another cluster's answer.
func (x *exchange) replaceReply() {
	f := x.fallback()
	if f == nil {
		return
	}
	if f.Cached != nil && x.replyKept(f.Cached) {
		return
	}
	if s := f.Static; s != nil && !grpc.Is(&x.Request.Header) { // a text is no message of the method
		x.tellFallback(breaker.FallbackSuccess)
		x.Response.Status = s.Status
		x.Local.Status, x.Local.Body, x.Local.ContentType = s.Status, s.Body, s.ContentType
		x.Record.Details = "fallback"
		return
	}
	switch {
	case x.fallen.from == nil:
		x.tellFallback(breaker.FallbackMissing)
	case x.Local.Flags&(record.UO|record.DO) != 0:
		x.tellFallback(breaker.FallbackRejection)
	default:
		x.tellFallback(breaker.FallbackFailure)
	}
}
