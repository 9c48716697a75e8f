// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// hostPool are a worker's connections to one endpoint.
type hostPool struct {
	on         *clusterOn
	host       *lb.Host
	idle       []*upstreamConn // HTTP/1; the last one used is at the end
	shared     []*http2Up      // HTTP/2, those that take streams and those being dialled
	waiting    []*attempt      // oldest first
	connecting int
	total      int
	at         int                   // in clusterOn.all
	http2      bool                  // set once
	secure     *resource.UpstreamTLS // what new connections are made with; nil: plaintext
}

// borrow gives the attempt an idle connection, or a place in the queue.
func (on *clusterOn) borrow(a *attempt) filter.Verdict {
	p := on.pool(a.host, a.x)
	if p.give(a) {
		return filter.Next
	}
	if f := p.enqueue(a); f != nil {
		return a.x.attemptFailed(a, f)
	}
	return filter.Wait
}

// give gives the attempt what it can be sent on at once: a stream of a connection
// that takes one more, or an idle connection.
func (p *hostPool) give(a *attempt) bool {
	if p.http2 {
		for _, u := range p.shared {
			if u.usable() {
				u.bindShared(a)
				return true
			}
		}
		return false
	}
	u := p.take()
	if u != nil {
		p.bind(u, a)
	}
	return u != nil
}

// take removes the most recently used idle connection. One that new ones are not
// like any more, and that refresh has not come to yet, is closed.
func (p *hostPool) take() *upstreamConn {
	for n := len(p.idle); n > 0; n = len(p.idle) {
		u := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		u.idle = false
		if u.secure != p.secure {
			u.closing = true
			u.conn.Close(nil)
			continue
		}
		if !u.closing && !u.conn.Closed() && !u.conn.EOF() {
			return u
		}
	}
	return nil
}

func (p *hostPool) bind(u *upstreamConn, a *attempt) {
	u.a, a.up = a, u
	u.requestOver = false
	u.written, u.readFrom = outPlace(u.conn), u.conn.ReadBytes()
}

// enqueue puts the attempt in the queue and sees to it that a connection is on
// its way. It returns the failure where limits forbid that.
func (p *hostPool) enqueue(a *attempt) *failure {
	s := &p.on.stats
	if !a.limits.TryPending() {
		s.rqPendingOverflow++
		return &failureOverflow
	}
	if p.connecting <= len(p.waiting)/p.streams() && !p.takesNone() {
		if p.on.w.sheds(resource.ShedUpstream) {
			a.limits.ReleasePending()
			return &failureNoConnection
		}
		if f := p.dial(a.limits); f != nil && p.total == 0 {
			a.limits.ReleasePending()
			return f
		}
	}
	s.rqPendingTotal++
	a.pool = p
	p.waiting = append(p.waiting, a)
	return nil
}

// dial starts a connection. Each pool may have one, whatever the limit, so that
// a worker is never shut out by the others.
func (p *hostPool) dial(l *breaker.Limits) *failure {
	s, res := &p.on.stats, p.on.spec.res
	if !l.TryConnection() {
		s.cxOverflow++
		if p.total > 0 {
			return &failureOverflow
		}
		l.ForceConnection()
	}
	if most := l.ConnsPerHost(); most > 0 && uint32(max(p.host.Conns.Load(), 0)) >= most {
		l.OverflowPerHost()
		l.ReleaseConnection()
		return &failureOverflow
	}
	p.secure = p.on.transport(p.host).res
	if p.http2 {
		return p.dialShared(l)
	}
	u := &upstreamConn{pool: p, secure: p.secure, dec: http1.NewResponseDecoder(p.on.limits)}
	u.limits = l
	u.timer.Target = u
	c, f := p.connect(u, l)
	if f != nil {
		return f
	}
	u.conn, u.immediate = c, c.Closed()
	p.on.w.loop.Schedule(&u.timer, res.ConnectTimeout)
	return nil
}

// dialShared starts a connection that attempts are to share.
func (p *hostPool) dialShared(l *breaker.Limits) *failure {
	u := p.newHTTP2Up(l)
	c, f := p.connect(u, l)
	if f != nil {
		p.unshare(u)
		return f
	}
	u.conn, u.immediate = c, c.Closed()
	p.on.w.loop.Schedule(&u.timer, p.on.spec.res.ConnectTimeout)
	return nil
}

// connect dials the host for h, and counts the connection.
func (p *hostPool) connect(h secureHandler, l *breaker.Limits) (*reactor.Conn, *failure) {
	s, res := &p.on.stats, p.on.spec.res
	if !p.on.w.loop.MayDial() {
		p.on.w.makePlace()
	}
	p.on.w.dials++
	c, err := p.on.dial(p.host, p.alpn(), h)
	if err != nil {
		l.ReleaseConnection()
		s.cxConnectFail++
		return nil, connectFailure(err, true)
	}
	introduce(c, res, netip.AddrPort{}, netip.AddrPort{})
	c.SetWatermark(watermark(res.BufferLimit))
	p.connecting++
	p.total++
	p.host.Conns.Add(1)
	p.host.Stats.CxTotal.Add(1)
	s.cxTotal++
	s.cxActive++
	return c, nil
}

// connected serves a waiting attempt with a connection that is open now.
func (p *hostPool) connected(u *upstreamConn) {
	p.connecting--
	p.serve(u)
}

// put takes a connection back after a response.
func (p *hostPool) put(u *upstreamConn) {
	res := p.on.spec.res
	now := p.on.w.loop.Now()
	switch {
	case p.host.Gone(), u.conn.Closed(), p.on.c.spec.Load() == nil, u.secure != p.secure,
		res.CloseOnHealthFailure && !p.host.Healthy(),
		res.MaxRequestsPerConn > 0 && int(u.requests) >= res.MaxRequestsPerConn,
		res.MaxConnDuration > 0 && now-u.openedAt >= int64(res.MaxConnDuration):
		u.closing = true
		u.conn.Close(nil)
		return
	}
	p.serve(u)
}

// serve gives the connection to the attempt that waits longest, or keeps it.
func (p *hostPool) serve(u *upstreamConn) {
	if len(p.waiting) > 0 {
		a := p.first()
		p.bind(u, a)
		p.proceed(a)
		return
	}
	u.idle = true
	u.idleAt = p.on.w.loop.Now()
	p.idle = append(p.idle, u)
	if d := p.on.spec.res.IdleTimeout; d > 0 {
		u.ensure(u.idleAt + int64(d))
	}
}

// first removes the attempt that waits longest.
func (p *hostPool) first() *attempt {
	a := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	a.pool = nil
	a.limits.ReleasePending()
	return a
}

// proceed lets an attempt go on that has waited and was given what it waited for.
func (p *hostPool) proceed(a *attempt) {
	if a.shadow {
		a.sendShadow()
	} else {
		p.on.w.wake(a.x)
	}
}

// cancel takes an attempt out of the queue.
func (p *hostPool) cancel(a *attempt) {
	a.pool = nil
	if i := slices.Index(p.waiting, a); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		a.limits.ReleasePending()
	}
}

// drop closes an idle connection.
func (p *hostPool) drop(u *upstreamConn) {
	p.unlist(u)
	u.closing = true
	u.conn.Close(nil)
}

func (p *hostPool) unlist(u *upstreamConn) {
	if !u.idle {
		return
	}
	u.idle = false
	if i := slices.Index(p.idle, u); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
}

// closed forgets a connection.
func (p *hostPool) closed(u *upstreamConn, err error) {
	p.unlist(u)
	p.gone(connectionEnd{open: u.open, timedOut: u.timedOut, immediate: u.immediate, limits: u.limits, secure: u.secure, err: err})
}

// connectionEnd is what is known of a connection that has ended.
type connectionEnd struct {
	open, timedOut, immediate bool
	limits                    *breaker.Limits
	secure                    *resource.UpstreamTLS // what it was made with
	err                       error
}

// gone takes a connection off the books. One that never opened fails the attempts
// that no other connection is on its way for, unless it was made in a way that has
// been given up meanwhile: that says nothing of the endpoint.
func (p *hostPool) gone(e connectionEnd) {
	s := &p.on.stats
	p.total--
	p.host.Conns.Add(-1)
	s.cxActive--
	s.cxDestroy++
	e.limits.ReleaseConnection()
	defer p.forget()
	if !e.open {
		p.connecting--
	}
	if !e.open && e.secure == p.secure {
		p.host.Stats.CxConnectFail.Add(1)
		f := connectFailure(e.err, e.immediate)
		s.cxConnectFail++
		if e.timedOut {
			f = &failureConnectTimeout
			s.cxConnectTimeout++
		}
		for len(p.waiting) > p.connecting*p.streams() {
			p.failFirst(f)
		}
		return
	}
	// Others wait for this one: it was at the limit, or given up before it opened.
	if len(p.waiting) > p.connecting*p.streams() {
		if f := p.dial(p.waiting[0].limits); f != nil && p.total == 0 {
			for len(p.waiting) > 0 {
				p.failFirst(f)
			}
		}
	}
}

// streams is how many attempts a connection that is being dialled will serve.
func (p *hostPool) streams() int {
	if p.http2 {
		return http2.DefaultMaxConcurrentStreams
	}
	return 1
}

// takesNone reports whether the endpoint has said that it takes no stream at all:
// another connection would hear the same.
func (p *hostPool) takesNone() bool {
	for _, u := range p.shared {
		if u.open && !u.closing && u.codec.PeerTakesNone() {
			return true
		}
	}
	return false
}

// serveShared gives streams of u to those that wait. Where u takes fewer than wait,
// another connection is made.
func (p *hostPool) serveShared(u *http2Up) {
	given := false
	defer func() {
		if given && len(p.waiting) > 0 && p.connecting == 0 {
			_ = p.dial(p.waiting[0].limits) // at the limit they wait for those there are
		}
	}()
	for len(p.waiting) > 0 && u.usable() {
		a := p.first()
		u.bindShared(a)
		p.proceed(a)
		given = true
	}
}

// unshare takes a connection out of those that get new streams.
func (p *hostPool) unshare(u *http2Up) {
	if i := slices.Index(p.shared, u); i >= 0 {
		p.shared = slices.Delete(p.shared, i, i+1)
	}
}

// forget drops the pool of a host that has gone, once nothing is left in it, and
// with the last one a cluster that has gone.
func (p *hostPool) forget() {
	on := p.on
	if p.total > 0 || len(p.waiting) > 0 || on.c.spec.Load() != nil && !p.host.Gone() {
		return
	}
	on.removePool(p)
	on.w.lostCluster(on)
}

func (p *hostPool) failFirst(f *failure) {
	p.first().fails(f)
}
