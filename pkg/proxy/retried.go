// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Retries of proxies in a row multiply: three that try everything four times make 64
// calls of one request. So whoever has retried as far as it goes says so with the
// answer that it gives up with, and no proxy before it does so again by policy.
//
// An application in between does not pass the word on. The sidecar beside it has both
// sides: it remembers the calls of its application that it gave up, by trace and
// request id, and says so with the application's own failed answer to the request of
// that id. See adr/0025.
const retriedHeader = "x-outrigger-retried"

// givenUp remembers which requests were retried in vain, shared by all workers. What
// is older than its number of places is forgotten: then somebody retries once more
// than needed, inside its own budget.
type givenUp struct {
	places [4096]atomic.Uint64 // hashes of ids; 0: none
}

func (g *givenUp) add(hash uint64) { g.places[hash%uint64(len(g.places))].Store(hash) }

func (g *givenUp) has(hash uint64) bool {
	return hash != 0 && g.places[hash%uint64(len(g.places))].Load() == hash
}

// traceHash and requestHash are what the sides of an application know each other's
// requests by; 0: nothing.
func (x *exchange) traceHash() uint64 {
	if id := &x.Record.Trace.TraceID; *id != [16]byte{} {
		return lb.HashBytes(id[:])
	}
	return 0
}

func (x *exchange) requestHash() uint64 {
	if id := x.Request.Known(codec.NameXRequestID); len(id) > 0 {
		return lb.HashBytes(id)
	}
	return 0
}

// failedAnswer reports whether the response is one that somebody might retry.
func (x *exchange) failedAnswer() bool {
	if x.Response.Status >= 400 {
		return true
	}
	if !x.call.is {
		return false
	}
	v := x.Response.Get("grpc-status")
	return v != nil && string(v) != "0"
}

// retriedBehind reports whether the response says that it was retried already.
func (x *exchange) retriedBehind() bool { return x.Response.Get(retriedHeader) != nil }

// tellRetried marks a failed response that was retried as far as it goes, by us or
// behind us, and takes the mark off where nobody is to see it: from answers that
// succeed, and from what goes to those who are surely no proxies of ours.
func (x *exchange) tellRetried() {
	h, behind := &x.Response, x.retriedBehind()
	if behind {
		h.Remove(retriedHeader)
	}
	if !x.failedAnswer() {
		return
	}
	retried := behind || x.retry.over || x.retriesDone() > 0
	switch x.manager.listener.Direction {
	case resource.Outbound: // to the application beside us
		if retried {
			x.rememberGivenUp()
		}
		return
	case resource.Inbound: // only a sidecar may say it, and what it tried here is no matter
		g := &x.w.proxy.givenUp
		retried = g.has(x.traceHash()) || g.has(x.requestHash())
	default:
		if x.manager.res.UseRemoteAddress && !x.internal {
			return // an edge, to somebody from outside
		}
	}
	if s := x.Record.Security; retried && (s == nil || s.PeerFingerprint != "") {
		h.Set(retriedHeader, trueText)
	}
}

func (x *exchange) rememberGivenUp() {
	g := &x.w.proxy.givenUp
	if h := x.traceHash(); h != 0 {
		g.add(h)
	}
	if h := x.requestHash(); h != 0 {
		g.add(h)
	}
}
