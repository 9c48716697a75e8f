// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// failure is what can go wrong with an exchange or an attempt: a value of a
// static table, with the flag and details that logs carry (Envoy's), the status
// of our reply, and what retrying knows of it.
type failure struct {
	Flag    record.Flags
	Status  int
	Details string
	Body    []byte
	Class   failureClass
	Reason  string // of the transport: why there is no connection
	// GRPC is what a call of gRPC is answered with; 0: what its status stands for.
	GRPC grpc.Status
}

// failureClass is what retrying and breaking make of a failed attempt.
type failureClass uint8

const (
	classNone       failureClass = iota // not an upstream's doing
	classConnect                        // no connection: surely not processed
	classShort                          // we lack what it takes, see short: surely not processed, and not the endpoint's fault
	classOverloaded                     // refused by an endpoint's sidecar, which has no room: surely not processed
	classUnsent                         // a connection that broke before one byte was sent
	classRefused                        // a stream that the endpoint says it did not look at
	classReset                          // reset before the first byte of a response
	classStarted                        // reset within a response
	classTimeout                        // no response in time
	classPerTry                         // no response of this attempt in time
	classOverflow                       // our own limits
	classProtocol                       // the upstream speaks nonsense
)

// unprocessed reports whether an attempt that ends with f was surely not processed,
// even if its head was sent; f may be nil.
func (f *failure) unprocessed() bool {
	if f == nil {
		return false
	}
	switch f.Class {
	case classConnect, classShort, classOverloaded, classUnsent, classRefused:
		return true
	}
	return false
}

// The failures. Status 0 is for those that cannot be answered.
var (
	failureNoRouteTable       = failure{Flag: record.NR, Status: 404, Details: "route_not_found"}
	failureNoRoute            = failure{Flag: record.NR, Status: 404, Details: "route_not_found"}
	failureNoCluster          = failure{Flag: record.NC, Status: 503, Details: "cluster_not_found"}
	failureNoHealthy          = failure{Flag: record.UH, Status: 503, Details: "no_healthy_upstream", Body: []byte("no healthy upstream")}
	failureOverflow           = failure{Flag: record.UO, Status: 503, Details: "upstream_reset_before_response_started{overflow}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: overflow"), Class: classOverflow}
	failureOpen               = failure{Flag: record.UO, Status: 503, Details: "circuit_breaker_open", Body: []byte("circuit breaker open"), Class: classOverflow}
	failureDropped            = failure{Flag: record.DO, Status: 503, Details: "drop_overload", Body: []byte("drop overload")}
	failurePeerConnect        = failure{Flag: record.UF, Status: 503, Details: "upstream_reset_before_response_started{remote_connection_failure}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"), Class: classConnect}
	failureConnectTimeout     = failure{Flag: record.UF, Status: 503, Details: "upstream_reset_before_response_started{connection_timeout}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: connection timeout"), Class: classConnect}
	failureUnsent             = failure{Flag: record.UC, Status: 503, Details: "upstream_reset_before_response_started{connection_termination}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: connection termination"), Class: classUnsent}
	failureReset              = failure{Flag: record.UC, Status: 503, Details: "upstream_reset_before_response_started{connection_termination}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: connection termination"), Class: classReset}
	failureResetStarted       = failure{Flag: record.UPE, Details: "upstream_reset_after_response_started{protocol_error}", Class: classStarted}
	failureUpstreamProtocol   = failure{Flag: record.UPE, Status: 502, Details: "upstream_reset_before_response_started{protocol_error}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: protocol error"), Class: classProtocol}
	failureTimeout            = failure{Flag: record.UT, Status: 504, Details: "response_timeout", Body: []byte("upstream request timeout"), Class: classTimeout}
	failurePerTry             = failure{Flag: record.UT, Status: 504, Details: "upstream_per_try_timeout", Body: []byte("upstream request timeout"), Class: classPerTry}
	failureOutrun             = failure{Details: "hedged"}
	failurePerTryIdle         = failure{Flag: record.UT, Status: 504, Details: "upstream_per_try_idle_timeout", Body: []byte("upstream request timeout"), Class: classPerTry}
	failureIdle               = failure{Flag: record.SI, Status: 408, Details: "stream_idle_timeout", Body: []byte("stream timeout")}
	failureIdleUpstream       = failure{Flag: record.SI, Status: 504, Details: "stream_idle_timeout", Body: []byte("stream timeout")}
	failureRequestTimeout     = failure{Status: 408, Details: "request_overall_timeout", Body: []byte("request timeout")}
	failureMaxDuration        = failure{Status: 504, Details: "max_duration_timeout", Body: []byte("downstream duration timeout"), GRPC: grpc.DeadlineExceeded}
	failureDeadline           = failure{Flag: record.UT, Status: 504, Details: "response_timeout", Body: []byte("upstream request timeout"), Class: classTimeout, GRPC: grpc.DeadlineExceeded}
	failureHeadTimeout        = failure{Status: 408, Details: "request_header_timeout", Body: []byte("request header timeout")}
	failureDownstreamProtocol = failure{Flag: record.DPE, Status: 400, Details: "http1.codec_error"}
	failureDownstreamGone     = failure{Flag: record.DC, Details: "downstream_remote_disconnect"}
	failureHTTP10             = failure{Flag: record.DPE, Status: 426, Details: "low_version"}
	failureNoHost             = failure{Status: 400, Details: "missing_host_header"}
	failureUpgrade            = failure{Status: 403, Details: "upgrade_failed"}
	failureBadPath            = failure{Status: 400, Details: "path_normalization_failed"}
	failureEscapedSlash       = failure{Status: 400, Details: "path_normalization_failed"}
	failureStrictHeader       = failure{Flag: record.IH, Status: 400, Details: "request_headers_failed_strict_check"}
	failureBadBody            = failure{Status: 400, Details: "request_body_invalid"}
	failureBadRewrite         = failure{Status: 400, Details: "path_rewrite_invalid"}
	failureMaxForwards        = failure{Status: 400, Details: "invalid_max_forwards"}
	failureTrace              = failure{Status: 405, Details: "trace_not_supported"}
	failureDrained            = failure{Details: "drain_time_over"}
	failurePanic              = failure{Flag: record.LR, Details: "internal_error"}
)

// fail answers an exchange with a failure, or aborts it where its response has
// begun.
func (x *exchange) fail(f *failure) {
	if x.ended {
		return
	}
	if x.endGRPC(f) {
		return
	}
	if x.responseStarted || f.Status == 0 {
		x.Record.Flags |= f.Flag
		x.down.abort(x)
		x.end(f)
		return
	}
	if a := x.main; a != nil {
		x.main = nil
		if x.wait.on && a.gotHead {
			a.finish(nil) // a filter holds what the upstream did answer
		} else {
			a.finish(f)
		}
	}
	details := x.Record.Details
	x.reply(f)
	if x.fallsBack() {
		x.phase = admitPhase
		x.w.wake(x)
		return
	}
	if x.badRequest || f.Flag == record.DPE {
		x.Local.Details = details
	}
	x.sendLocal()
}

// abandon ends an exchange after a panic: nobody knows how far it came, so nothing
// more is said, and the connections of both sides close.
func (x *exchange) abandon() {
	if x.ended || x.manager == nil {
		return
	}
	x.Record.Flags |= failurePanic.Flag
	x.down.abort(x)
	x.end(&failurePanic)
}

// sendLocal sends the reply that the proxy itself makes, and ends the exchange.
// Phases that reply end here, through advance.
func (x *exchange) sendLocal() {
	l := &x.Local
	r := &x.Record
	if l.Flags != 0 {
		r.Flags |= l.Flags
	}
	if l.Details != "" {
		r.Details = l.Details
	}
	x.local, x.hasResponse = true, true
	h := &x.Response
	h.Reset()
	h.Status, h.Protocol, h.KeepAlive = l.Status, codec.HTTP11, true
	if x.retry.altTimeout && l.Flags&record.UT != 0 && !x.asksConnect() {
		l.Status, l.Body, h.Status = 204, nil, 204
	}
	x.replaceReply()
	if !x.fallen.kept { // that is the upstream's
		x.mapLocalReply()
	}
	x.neverAgree()
	x.tellRetryAfter()
	if x.on != nil && r.Flags&upstreamFlags != 0 {
		x.on.stats.local(h.Status)
	}
	if grpc.Is(&x.Request.Header) && !x.asksConnect() { // it answers with 200
		x.replyGRPC()
	}
	r.Status = uint16(h.Status)
	body := l.Body
	h.BodyLength = int64(len(body))
	h.NoBody = x.Request.Method == codec.MethodHead || h.Status == 304
	if len(body) > 0 && !x.fallen.kept {
		ct := l.ContentType
		if ct == "" {
			ct = "text/plain"
		}
		h.Set("content-type", []byte(ct))
	}
	if len(x.location) > 0 {
		h.SetKnown(codec.NameLocation, x.location)
	}
	if r.Flags&record.UO != 0 && !x.manager.router.SuppressEnvoyHeaders {
		h.SetKnown(codec.NameXEnvoyOverloaded, trueText)
	}
	if x.replier != nil {
		x.replier.OnReply(&x.Exchange)
	}
	x.tellPeer()
	x.tellRetried()
	x.responseEdits()
	x.commonResponse()
	x.filterLocal(body)
	last := len(body) == 0 || h.NoBody || h.Status == 204 || h.Status < 200
	x.sendHead(last)
	if !last {
		r.BytesSent += uint64(len(body))
		x.down.sendData(x, body, true)
	}
	x.responseEnded()
}

// filterLocal shows a reply of our own to the response filters. It is the last
// word: their verdicts do not count.
func (x *exchange) filterLocal(body []byte) {
	if !x.filtered {
		return
	}
	hooks := x.manager.filters[x.w.index]
	for i := len(hooks) - 1; i >= 0; i-- {
		if h := hooks[i].response; h != nil {
			h.OnResponse(&x.Exchange)
		}
	}
	if len(body) == 0 || x.Response.NoBody {
		return
	}
	for i := len(hooks) - 1; i >= 0; i-- {
		if h := hooks[i].responseData; h != nil {
			h.OnResponseData(&x.Exchange, body, true)
		}
	}
}
