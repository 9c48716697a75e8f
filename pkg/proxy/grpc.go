// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// grpcCall is what an exchange knows of the call that it is, if it is one.
type grpcCall struct {
	is       bool
	ownLimit bool  // the deadline takes the place of the maximal duration
	deadline int64 // monotonic nanoseconds; 0: none
}

// grpcText is the content type of our own answers to calls in a format with too
// long a name, maxFormat.
var grpcText = []byte(grpc.ContentType)

const maxFormat = 128 // bytes

// replyGRPC makes x.Local the answer that a caller of gRPC understands: 200 with
// nothing but a head, in which status and message are ("Trailers-Only"). What
// headers were configured for the reply stay, a grpc-status too.
func (x *exchange) replyGRPC() {
	l, h := &x.Local, &x.Response
	status := l.GRPC
	if status == 0 {
		status = grpc.FromHTTP(l.Status)
	}
	h.Status = 200
	ct := x.Request.Known(codec.NameContentType) // some clients insist on their own
	if len(ct) > maxFormat {
		ct = grpcText
	}
	h.SetKnown(codec.NameContentType, ct)
	if h.Get("grpc-status") == nil {
		h.AddValue("grpc-status", status.Append(x.w.value[:0]))
	}
	if len(l.Body) > 0 && h.Get("grpc-message") == nil {
		x.w.value = grpc.AppendMessage(x.w.value[:0], l.Body)
		h.AddValue("grpc-message", x.w.value)
	}
	l.Body, l.ContentType = nil, ""
}

// endGRPC ends a call whose answer is under way with trailers, where a failure has
// a status of gRPC; it reports false where it cannot. The caller learns more than
// from a reset, and no less that the answer is not whole.
func (x *exchange) endGRPC(f *failure) bool {
	if !x.call.is || f.GRPC == grpc.OK || !x.responseStarted || x.local || x.tunnel != noTunnel || !x.hasGRPCTrailer() {
		return false
	}
	x.Record.Flags |= f.Flag
	x.Record.Details = f.Details
	if a := x.main; a != nil {
		x.main = nil
		a.finish(f)
	}
	x.endPace()
	x.ResponseRate = 0
	t := &x.w.ownTrailer
	t.Reset()
	t.AddValue("grpc-status", f.GRPC.Append(x.w.value[:0]))
	t.AddValue("grpc-message", f.Body)
	x.responseTrailer(t)
	return true
}

// hasGRPCTrailer reports whether trailers reach the client of an answer of gRPC: in
// HTTP/1 they may not, but gRPC-Web has them in the body.
func (x *exchange) hasGRPCTrailer() bool {
	ct := x.Response.Known(codec.NameContentType)
	return grpc.ParseWeb(ct).Is || x.Request.Protocol == codec.HTTP2 && grpc.IsContentType(ct)
}

// setDeadline takes a caller's grpc-timeout as the route says. What is left of it
// goes to the endpoint with each attempt.
func (x *exchange) setDeadline() {
	conf := &x.route.action.res.GRPCTimeout
	if conf.Kind == resource.GRPCTimeoutIgnored {
		return
	}
	d, named := grpc.ParseTimeout(x.Request.Get("grpc-timeout"))
	if conf.Kind == resource.GRPCTimeoutRoute {
		x.retry.timeout = 0
		if !named {
			d, named = conf.Max, conf.Max > 0
		}
	}
	if !named {
		return
	}
	if conf.Max > 0 {
		d = min(d, conf.Max)
	}
	if conf.Kind == resource.GRPCTimeoutDuration {
		d, x.call.ownLimit = max(d-conf.Offset, 0), true
	} else if d > conf.Offset {
		d -= conf.Offset
	}
	x.call.deadline = max(x.began+int64(d), 1)
}

// tellDeadline writes what is left to the endpoint into the request.
func (x *exchange) tellDeadline() {
	left := time.Duration(x.call.deadline - x.w.loop.Now())
	if t := x.retry.perTry; t > 0 {
		left = min(left, t)
	}
	x.w.value = grpc.AppendTimeout(x.w.value[:0], left)
	x.Request.Set("grpc-timeout", x.w.value)
}

// judge takes the status of a call from the head or the trailers of its answer.
// Circuits and outlier detection hear of it as the status of HTTP that it stands
// for. Envoy does so for heads only; a service that fails has failed in both.
func (a *attempt) judge(h *codec.Header) {
	if a.x.call.is {
		if s, ok := grpc.ParseStatus(h.Get("grpc-status")); ok {
			a.verdict = s.HTTP()
		}
	}
	a.heed(h)
}

// judged is the status that circuits and outlier detection hear of.
func (a *attempt) judged() int {
	if a.verdict != 0 {
		return a.verdict
	}
	return a.status
}
