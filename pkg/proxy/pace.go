// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// A response that a filter wants slow (Exchange.ResponseRate) goes downstream a
// sixteenth of a second's bytes at a time, as with Envoy's fault filter: one timer for
// each response, armed only while bytes wait. What waits is bounded by the listener's
// buffer limit, beyond which the upstream is paused.
const paceSlices = 16 // of a second

const paceSlice = int64(time.Second) / paceSlices

// pacer holds what of a response may not go yet. It is made for responses that are slow
// on purpose, and for no others.
type pacer struct {
	x          *exchange
	timer      reactor.Timer
	slice      int   // bytes that each slice of time brings
	credit     int   // bytes that may go now; of a second at the most
	at         int64 // until when slices have been credited
	waits      []byte
	last       bool // waits is the end of the body
	trailer    codec.Header
	hasTrailer bool
	limit      int
}

// full: the upstream is to wait.
func (p *pacer) full() bool { return p != nil && len(p.waits) >= p.limit }

// pace takes a piece of a slow response; last: it is over, with trailers unless h is nil.
func (x *exchange) pace(chunk []byte, last bool, h *codec.Header) {
	p := x.paced
	if p == nil {
		p = &pacer{x: x, at: x.w.loop.Now(), slice: int(max(1, x.ResponseRate/paceSlices)), limit: watermark(x.manager.listener.BufferLimit)}
		p.credit = p.slice
		p.timer.Target = p
		x.paced = p
	}
	p.waits, p.last = append(p.waits, chunk...), last
	if h != nil {
		p.trailer.CopyFrom(h)
		p.hasTrailer = true
	}
	if last { // the upstream has done its part, and its time is over
		x.retry.timeout, x.call.deadline = 0, 0
		if a := x.main; a != nil && a.complete {
			x.main = nil
			a.finish(nil)
		}
	} else if p.full() {
		x.holdResponse(true)
	}
	if !p.timer.Armed() {
		p.pay()
	}
}

// OnTimer implements reactor.TimerTarget.
func (p *pacer) OnTimer(*reactor.Timer) {
	defer p.x.w.contained(p.x)
	p.pay()
}

// pay sends what may go. It may end the exchange.
func (p *pacer) pay() {
	x := p.x
	now := x.w.loop.Now()
	if n := (now - p.at) / paceSlice; n > 0 {
		p.at += n * paceSlice
		p.credit = min(p.credit+int(min(n, paceSlices))*p.slice, paceSlices*p.slice)
	}
	full := x.down.full()
	n := 0
	if !full {
		n = min(p.credit, len(p.waits))
	}
	p.credit -= n
	ends := p.last && n == len(p.waits) && !full
	piece := p.waits[:n]
	if n > 0 || ends && !p.hasTrailer {
		x.lastActivity = now
		x.sendPiece(piece, ends && !p.hasTrailer)
	}
	switch {
	case x.paced != p: // whoever it was for has gone
		return
	case ends:
		if p.hasTrailer {
			x.down.sendTrailer(x, &p.trailer)
			x.respTrailer = &p.trailer
		}
		x.responseEnded()
		return
	}
	p.waits = p.waits[:copy(p.waits, p.waits[n:])]
	if len(p.waits) > 0 || p.last {
		x.w.loop.Schedule(&p.timer, time.Duration(p.at+paceSlice-now))
	}
	if !p.full() && !full {
		x.holdResponse(x.down.full())
	}
}

// endPace drops what waits.
func (x *exchange) endPace() {
	if p := x.paced; p != nil {
		p.timer.Stop()
		x.paced = nil
	}
}
