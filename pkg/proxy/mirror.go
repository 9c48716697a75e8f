// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
)

// selectMirrors draws which mirrors get a copy of this request.
func (x *exchange) selectMirrors() {
	if x.tunnel != noTunnel {
		return // there would be two who answer what only one hears
	}
	for _, m := range x.route.action.mirrors {
		if x.inFraction(&m.res.Fraction) {
			x.mirrors = append(x.mirrors, m)
		}
	}
}

// startMirrors starts a shadow attempt for each selected mirror, once, when the
// main attempt has been sent. What cannot be mirrored is counted and no matter.
func (x *exchange) startMirrors() {
	for i := range x.mirrors {
		x.startMirror(&x.mirrors[i])
	}
	clear(x.mirrors)
	x.mirrors = x.mirrors[:0]
}

func (x *exchange) startMirror(m *mirrorTarget) {
	c := m.cluster
	if c == nil && m.res.ClusterHeader != "" {
		if v, ok := requestValue(&x.Request, m.res.ClusterHeader, &x.w.joined); ok {
			c = (*x.w.byName.Load())[string(v)]
		}
	}
	if c == nil {
		return
	}
	on := x.w.clusterOn(c)
	if on == nil {
		return
	}
	on, sound := x.w.member(on, x.w.random.Uint64())
	var token breaker.Token
	if on.spec.circuit != nil {
		ok := false
		if token, ok = on.spec.circuit.Allow(x.w.loop.Now()); !ok {
			on.stats.mirrorDropped++
			return
		}
	}
	l := on.spec.limits
	if !l.TryRequest() {
		on.stats.rqOverflow++
		on.stats.mirrorDropped++
		on.report(token, breaker.Rejected, x.w.loop.Now())
		return
	}
	on.req.Sound, on.req.PreviousPriorities = sound, 0
	h := on.pick(x, nil)
	if h == nil {
		l.ReleaseRequest()
		on.stats.mirrorDropped++
		on.report(token, breaker.BadRequest, x.w.loop.Now())
		return
	}
	a := x.w.newAttempt(x, on, l)
	a.shadow, a.token, a.host = true, token, h
	a.keepHost, a.unsampled = m.res.KeepHost, !m.res.TraceSampled
	x.shadows = append(x.shadows, a)
	p := on.pool(h, x)
	if p.give(a) {
		a.sendShadow()
		return
	}
	// A shadow that must wait would need a body that is still there when it is
	// its turn: only short ones are.
	if !a.whole() {
		on.stats.mirrorDropped++
		a.finish(&failureOverflow)
		return
	}
	if f := p.enqueue(a); f != nil {
		on.stats.mirrorDropped++
		a.finish(f)
	}
}

// sendShadow sends the copy: the same head, its authority marked unless the
// configuration says not to.
func (a *attempt) sendShadow() {
	x := a.x
	if !a.whole() {
		a.on.stats.mirrorDropped++
		a.finish(&failureOverflow)
		return
	}
	h := &x.Request
	if a.keepHost {
		a.sendCopy()
		return
	}
	old := append(x.w.lower[:0], h.Authority()...)
	x.w.lower = old
	bare := len(withoutPort(old))
	b := append(x.w.rewrite[:0], old[:bare]...)
	b = append(append(b, "-shadow"...), old[bare:]...)
	x.w.rewrite = b
	h.SetAuthority(b)
	a.sendCopy()
	h.SetAuthority(old)
}

// sendCopy sends the head as it is, but for the sampling. That is changed in place,
// so nothing that may move the head comes between.
func (a *attempt) sendCopy() {
	if a.unsampled {
		was := a.x.unsample()
		defer was.restore()
	}
	a.send()
}

// whole reports whether all of the body that has come is still here.
func (a *attempt) whole() bool { return a.x.Record.BytesReceived == uint64(len(a.x.body)) }

// mirrorLimit is how long a mirror may take where the route has no timeout.
const mirrorLimit = 15 * time.Second

// endMirrors gives up mirrors of an exchange that has ended when they have had the
// time that the exchange itself would have.
func (x *exchange) endMirrors(now int64) {
	limit := int64(x.retry.timeout)
	if limit <= 0 {
		limit = int64(mirrorLimit)
	}
	x.living++ // until the end of this function
	next := int64(1 << 62)
	for i := len(x.shadows) - 1; i >= 0; i-- {
		a := x.shadows[i]
		if due := a.startedAt + limit; now < due {
			next = min(next, due)
			continue
		}
		a.finish(&failureTimeout)
	}
	if next < 1<<62 {
		x.ensure(next)
	}
	x.attemptGone()
}

// dropShadow forgets a shadow that has ended.
func (x *exchange) dropShadow(a *attempt) {
	if i := slices.Index(x.shadows, a); i >= 0 {
		x.shadows = slices.Delete(x.shadows, i, i+1)
	}
}
