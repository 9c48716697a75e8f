// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// exchange is one request and its response: a downstream side, the attempts at
// an upstream, and the decisions between them. Filters see the embedded part.
// It is owned by one worker and comes from its free list.
type exchange struct {
	filter.Exchange
	w       *worker
	manager *manager
	down    downstream
	phase   int
	wait    waiting
	replier filter.ReplyFilter // the filter that replied; nil: none, or it does not care
	timer   reactor.Timer
	due     int64 // when the timer fires

	// Routing.
	route    *route
	weighted *weighted
	cluster  *cluster
	on       *clusterOn
	mirrors  []mirrorTarget // those that this request is copied to
	retry    retryState
	call     grpcCall
	fallen   fallenState
	kept     keptState

	// Attempts. main is the one whose response counts; hedges go on beside it, and may
	// take its place; shadows are mirrors.
	main    *attempt
	hedges  []*attempt
	shadows []*attempt
	tried   []*lb.Host
	// retryNames are those of x-envoy-retriable-header-names; empty: none.
	retryNames []byte
	living     int // attempts that hold on to this exchange

	// The request's body as far as it may be needed again: all of it from the
	// first byte while keepBody, else nothing.
	body       []byte
	trailer    codec.Header // of the request
	hasTrailer bool
	keepBody   bool

	// Times, monotonic nanoseconds; 0: not yet.
	began        int64
	logged       int64 // last periodic record
	requestAt    int64 // request complete
	lastActivity int64

	// What has happened.
	requestDone     bool // the whole request was received
	hasResponse     bool // Response is a response, of an upstream or our own
	responseLast    bool // it has no body
	responseStarted bool // its head was sent
	responseDone    bool // its last byte was sent
	local           bool // it is our own
	badRequest      bool // there is no decoded request
	ended           bool // recorded; only attempts may still hold on
	woken           bool
	holding         bool // the request's body is paused
	internal        bool // x-envoy-internal
	edited          bool // request headers were made ready for upstream
	filtered        bool // request filters have seen the head, and get the body
	admitted        bool
	reached         bool // an endpoint may have processed it
	tunnel          tunnelState
	upgrade         *resource.Upgrade // what allowed the tunnel
	extended        bool              // downstream asked for it by extended CONNECT
	keyed           bool              // the Sec-WebSocket-Key is ours
	broken          bool              // the upstream's end of an open tunnel was reset
	clientEnded     bool              // the client's direction of an open tunnel has ended
	upstreamEnded   bool              // the upstream's
	hasHash         bool
	sound           bool // see worker.member
	hash            uint64
	answered        bool // matchRoute has a reply
	routeReply      filter.LocalReply
	localBody       []byte
	location        []byte        // of a redirect
	retryIn         time.Duration // until a refused request may come again; 0: nobody knows
	setCookie       []byte        // made by a hash policy
	respTrailer     *codec.Header
	paced           *pacer // nil: the response is as fast as it can be
	web             webTunnel
}

// newExchange takes an exchange from the free list.
func (w *worker) newExchange(m *manager, down downstream) *exchange {
	x := w.exchanges.take()
	if x == nil {
		x = &exchange{w: w, wait: waiting{turn: 1}}
		x.timer.Target = x
	}
	x.manager, x.down = m, down
	x.Waiter, x.Editor = x, x
	x.began = w.loop.Now()
	x.Now, x.lastActivity = x.began, x.began
	x.Random = w.random.Uint64()
	binary.BigEndian.PutUint64(x.Record.StreamID[:8], x.Random)
	binary.BigEndian.PutUint64(x.Record.StreamID[8:], uint64(w.loop.Wall()))
	x.keepBody = true
	x.Record.Start = w.loop.Wall()
	x.Record.RequestEnd, x.Record.UpstreamRequest, x.Record.UpstreamResponse = record.Never, record.Never, record.Never
	x.Record.ResponseStart = record.Never
	if cap(x.Slots) < m.slots {
		x.Slots = make([]any, m.slots)
	}
	x.Slots = x.Slots[:m.slots]
	s := &m.stats.on[w.index]
	s.rqTotal++
	s.rqActive++
	return x
}

// free gives an ended exchange back once nobody holds on to it. Memory of heads
// is kept, up to a bound; everything else is forgotten, so that nothing of one
// request can be seen by the next.
func (x *exchange) free() {
	w := x.w
	w.freeBody(x.body)
	req, resp, trailer := x.Request, x.Response, x.trailer
	req.Reset()
	resp.Reset()
	trailer.Reset()
	req.Shrink(maxHeadKept)
	resp.Shrink(maxHeadKept)
	trailer.Shrink(maxHeadKept)
	slots, tried, shadows, mirrors := x.Slots, x.tried, x.shadows, x.mirrors
	clear(slots)
	clear(tried)
	clear(shadows)
	x.reset()
	x.Request, x.Response, x.trailer = req, resp, trailer
	x.Slots, x.tried, x.shadows, x.mirrors = slots[:0], tried[:0], shadows[:0], mirrors[:0]
	w.freeExchange(x)
}

// maxHeadKept is how much memory of a head a free exchange may keep.
const maxHeadKept = 8 << 10

// reset zeroes everything but the worker, the turns of waits and the timer, which
// may be armed: it finds nothing due and stops.
func (x *exchange) reset() {
	x.Exchange = filter.Exchange{}
	x.manager, x.down, x.phase, x.replier = nil, nil, 0, nil
	x.route, x.weighted, x.cluster, x.on = nil, nil, nil, nil
	x.retry, x.call, x.fallen = retryState{}, grpcCall{}, fallenState{}
	x.kept.reset()
	x.main, x.living, x.retryNames, x.paced = nil, 0, x.retryNames[:0], nil
	x.body, x.hasTrailer, x.keepBody = nil, false, false
	x.began, x.logged, x.requestAt, x.lastActivity = 0, 0, 0, 0
	x.requestDone, x.hasResponse, x.responseLast, x.responseStarted, x.responseDone = false, false, false, false, false
	x.local, x.badRequest, x.ended, x.woken, x.holding, x.internal, x.edited, x.admitted, x.filtered = false, false, false, false, false, false, false, false, false
	x.answered, x.reached, x.routeReply = false, false, filter.LocalReply{}
	x.tunnel, x.upgrade, x.broken, x.clientEnded, x.upstreamEnded = noTunnel, nil, false, false, false
	x.extended, x.keyed, x.web = false, false, webTunnel{}
	x.retryIn = 0
	x.hasHash, x.hash, x.localBody, x.location, x.setCookie, x.respTrailer = false, 0, nil, nil, nil, nil
}

// since is a time of the record: nanoseconds since the start.
func (x *exchange) since() int64 { return x.w.loop.Now() - x.began }

// start begins a request whose head was decoded.
func (x *exchange) start() {
	x.armFirst()
	x.advance()
}

// armFirst sees to what is due before the request is routed.
func (x *exchange) armFirst() {
	if m := x.manager.res; m.RequestTimeout > 0 && !x.requestDone {
		x.ensure(x.began + int64(m.RequestTimeout))
	}
	if t := x.idleTimeout(); t > 0 {
		x.ensure(x.began + int64(t))
	}
	if p := x.manager.res.AccessLogInterval; p > 0 {
		x.ensure(x.began + int64(p))
	}
}

// advance walks the phases until one waits or replies. It is called by events,
// never by a phase.
func (x *exchange) advance() {
	x.Now = x.w.loop.Now()
	for x.phase < len(phases) {
		switch phases[x.phase](x) {
		case filter.Wait:
			return
		case filter.Reply:
			if x.fallsBack() {
				x.phase = admitPhase
				continue
			}
			x.sendLocal()
			return
		}
		x.phase++
	}
}

// end finishes the exchange: attempts are released, the record is pushed, the
// downstream side let go. f says why where it is not the regular end of a
// response; nil is that.
func (x *exchange) end(f *failure) {
	if x.ended {
		return
	}
	x.ended = true
	x.woken = false
	x.voidWait()
	x.endPace()
	x.living++ // until the end of this function
	r := &x.Record
	if f != nil {
		r.Flags |= f.Flag
		if !x.local {
			r.Details = f.Details
		}
	}
	r.End = x.since()
	if a := x.main; a != nil {
		x.main = nil
		a.finish(f)
	}
	x.endHedges()
	x.dropKept()
	for i := len(x.shadows) - 1; i >= 0; i-- {
		x.shadows[i].requestOver()
	}
	x.finishRecord()
	x.releaseAdmission()
	s := &x.manager.stats.on[x.w.index]
	s.rqActive--
	if x.tunnel == tunnelOpen {
		s.upgradesActive--
	}
	s.complete(int(r.Status), r.End)
	x.down.done(x)
	if len(x.shadows) > 0 {
		x.endMirrors(x.w.loop.Now())
	}
	x.attemptGone()
}

// attemptGone is called by each attempt when it no longer needs the exchange; the
// last one to let go gives it back.
func (x *exchange) attemptGone() {
	x.living--
	if x.living == 0 && x.ended {
		x.free()
	}
}

// periodicRecord logs an exchange that still runs.
func (x *exchange) periodicRecord() {
	r := &x.Record
	kind, end, received, sent := r.Kind, r.End, r.UpstreamWireReceived, r.UpstreamWireSent
	r.Kind, r.End = record.Periodic, x.since()
	r.WireReceived, r.WireSent = x.down.wire()
	if x.main != nil {
		x.addWire(x.main)
	}
	x.pushRecord()
	r.Kind, r.End, r.UpstreamWireReceived, r.UpstreamWireSent = kind, end, received, sent
}

// finishRecord tells the filters and hands the record on.
func (x *exchange) finishRecord() {
	if !x.hasResponse {
		x.Record.Status = 0
	}
	x.Record.WireReceived, x.Record.WireSent = x.down.wire()
	for i := range x.manager.filters[x.w.index] {
		if h := x.manager.filters[x.w.index][i].done; h != nil {
			x.tellDone(h)
		}
	}
	x.pushRecord()
}

// tellDone keeps a filter that fails at the end from keeping what is given back
// behind it.
func (x *exchange) tellDone(h filter.DoneFilter) {
	defer x.w.forgive()
	h.OnDone(&x.Exchange)
}

// pushRecord completes the record with names and captures and puts it into the
// ring.
func (x *exchange) pushRecord() {
	r := &x.Record
	r.Consumer = x.manager.consumer
	if r.Consumer == nil {
		return
	}
	b := x.w.capture[:0]
	b = record.AppendCapture(b, present(x.Request.MethodBytes()))
	if p := x.Request.Known(codec.NameXEnvoyOriginalPath); p != nil {
		b = record.AppendCapture(b, p)
	} else {
		b = record.AppendCapture(b, present(x.Request.Path()))
	}
	b = record.AppendCapture(b, present(x.Request.Authority()))
	b = record.AppendCapture(b, x.Request.Known(codec.NameXRequestID))
	b = record.AppendCapture(b, x.Request.Known(codec.NameUserAgent))
	var resp *codec.ResponseHead
	if x.hasResponse {
		resp = &x.Response
	}
	b = accesslog.AppendCaptures(b, x.manager.captures, &x.Request, resp, x.respTrailer)
	x.w.capture = b
	r.Captures = b
	x.w.ring.Push(r)
	r.Captures = nil
}

func present(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// idleTimeout is the time without any activity that ends the exchange.
func (x *exchange) idleTimeout() time.Duration {
	if x.route != nil && x.route.action != nil && x.route.action.res.HasIdleTimeout {
		return x.w.streamIdle(x.route.action.res.IdleTimeout)
	}
	return x.w.streamIdle(x.manager.res.StreamIdleTimeout)
}

// ensure makes the timer fire at t at the latest; see downstreamConn.ensure.
func (x *exchange) ensure(t int64) {
	if x.timer.Armed() && x.due <= t {
		return
	}
	x.due = t
	x.w.loop.Schedule(&x.timer, time.Duration(t-x.w.loop.Now()))
}

// directResponse makes x.Local of a configured response.
func (x *exchange) directResponse(d *resource.DirectResponse, details string) filter.Verdict {
	x.Local = filter.LocalReply{Status: d.Status, Body: d.Body, ContentType: d.ContentType, Details: details}
	return filter.Reply
}
