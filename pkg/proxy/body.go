// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// Bodies flow beside the phases, each direction by itself. What arrives before
// there is an upstream to take it waits in x.body, and the sender is paused once
// that is full; what was sent stays in x.body as long as it fits and a retry may
// want it.

// requestData takes a piece of the request's body from downstream.
func (x *exchange) requestData(chunk []byte, last bool) {
	if x.ended {
		return
	}
	x.lastActivity = x.w.loop.Now()
	x.Record.BytesReceived += uint64(len(chunk))
	if x.filtered {
		var ok bool
		if chunk, ok = x.filterData(chunk, last); !ok {
			x.fail(&failureBadBody)
			return
		}
	}
	if last {
		x.requestEnded()
	}
	x.passOn(chunk, last)
}

// passOn sends a piece to those who are ready for it, and keeps it for the others.
func (x *exchange) passOn(chunk []byte, last bool) {
	if len(chunk) == 0 && !last {
		return
	}
	sent := false
	if a := x.main; a != nil && a.streaming {
		a.sendData(chunk, last)
		sent = true
	}
	for _, a := range x.shadows {
		if a.streaming {
			a.sendData(chunk, last)
		}
	}
	x.keep(chunk, sent)
}

// keep adds a piece to the body buffer. Once the upstream has had it, the buffer
// serves retries only, and is dropped when it would grow beyond its limit.
func (x *exchange) keep(chunk []byte, sent bool) {
	if len(chunk) == 0 {
		return
	}
	limit := x.bodyLimit()
	if sent {
		if !x.keepBody {
			return
		}
		if x.responseStarted || len(x.body)+len(chunk) > limit {
			if !x.responseStarted && (x.retry.on != 0 || len(x.shadows) > 0) {
				x.on.stats.retryAbandoned++
			}
			x.dropBody()
			return
		}
	}
	if x.body == nil {
		x.body = x.w.takeBody()
	}
	x.body = append(x.body, chunk...)
	if !sent && len(x.body) >= limit {
		x.hold(true)
	}
}

func (x *exchange) bodyLimit() int {
	if x.route != nil && x.route.action != nil {
		return x.route.action.buffer
	}
	return defaultReplayBuffer
}

// dropBody gives up the copy of the body: no retry can replay it any more.
func (x *exchange) dropBody() {
	x.keepBody = false
	x.w.freeBody(x.body)
	x.body = nil
}

// replayable reports whether all of the request received so far is still here.
func (x *exchange) replayable() bool { return x.keepBody }

// requestTrailer takes the trailer section, which ends the request.
func (x *exchange) requestTrailer(h *codec.Header) {
	if x.ended {
		return
	}
	var rest []byte
	if x.filtered {
		var ok bool
		if rest, ok = x.filterData(nil, true); !ok {
			x.fail(&failureBadBody)
			return
		}
	}
	x.trailer.CopyFrom(h)
	x.hasTrailer = true
	x.requestEnded()
	if len(rest) > 0 {
		x.passOn(rest, false)
	}
	if a := x.main; a != nil && a.streaming {
		a.sendTrailer(h)
	}
	for _, a := range x.shadows {
		if a.streaming {
			a.sendTrailer(h)
		}
	}
}

func (x *exchange) requestEnded() {
	x.requestDone = true
	x.requestAt = x.w.loop.Now()
	x.Record.RequestEnd = x.since()
	if x.filtered { // routed: before, no timeout is known
		x.armTimeouts()
	}
}

// hold pauses or resumes the request's body at its source.
func (x *exchange) hold(on bool) {
	if x.holding != on {
		x.holding = on
		if on {
			x.manager.stats.on[x.w.index].flowPaused++
		}
		x.down.holdRequest(x, on)
	}
}

// holdResponse pauses or resumes the response's body at its source, which no
// reader of ours starts again while a filter holds the head.
func (x *exchange) holdResponse(on bool) {
	if a := x.main; a != nil && a.up != nil && (on || !x.wait.on && !x.paced.full()) {
		a.up.hold(on)
	}
}

// responseData passes a piece of the response's body from the main attempt.
func (x *exchange) responseData(chunk []byte, last bool) {
	x.lastActivity = x.w.loop.Now()
	if x.kept.draft != nil {
		x.keepPiece(chunk, last)
	}
	chunk = x.filterAnswer(chunk, last)
	if x.ResponseRate > 0 {
		x.pace(chunk, last, nil)
		return
	}
	x.sendPiece(chunk, last)
	if last {
		x.responseEnded()
	}
}

// sendPiece sends a piece of the response's body downstream.
func (x *exchange) sendPiece(chunk []byte, last bool) {
	x.Record.BytesSent += uint64(len(chunk))
	if len(chunk) > 0 || last {
		x.down.sendData(x, chunk, last)
	}
}

// responseTrailer passes the trailer section, which ends the response.
func (x *exchange) responseTrailer(h *codec.Header) {
	x.keepPiece(nil, true)
	end, body := x.filterTrailer(h)
	switch {
	case x.ResponseRate > 0 && body:
		x.pace(end, true, nil)
		return
	case x.ResponseRate > 0:
		x.pace(nil, true, h)
		return
	case body:
		x.Record.BytesSent += uint64(len(end))
		x.down.sendData(x, end, true)
	default:
		x.down.sendTrailer(x, h)
	}
	x.respTrailer = h
	x.responseEnded()
}

// responseEnded is the regular end of an exchange.
func (x *exchange) responseEnded() {
	x.responseDone = true
	x.end(nil)
}

// watermark is where a connection's source is paused: at half of the buffer limit,
// since the read that crosses it may bring as much again.
func watermark(limit int) int { return max(limit/2, 1) }
