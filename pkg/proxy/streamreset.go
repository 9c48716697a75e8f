// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// What becomes of an attempt whose stream of HTTP/2 the endpoint resets, in Envoy's words.
// The codec tells of streams above the last one of a GOAWAY as of those that were refused.
var (
	failureRefused           = failure{Flag: record.UR, Status: 503, Details: "upstream_reset_before_response_started{remote_refused_stream_reset}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset"), Class: classRefused}
	failureRemoteReset       = failure{Flag: record.UR, Status: 503, Details: "upstream_reset_before_response_started{remote_reset}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: remote reset"), Class: classReset}
	failureConnectReset      = failure{Flag: record.UR, Status: 503, Details: "upstream_reset_before_response_started{remote_error_with_CONNECT_request}", Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: remote error with CONNECT request"), Class: classReset}
	failureRefusedStarted    = failure{Flag: record.UR, Details: "upstream_reset_after_response_started{remote_refused_stream_reset}", Class: classStarted}
	failureRemoteStarted     = failure{Flag: record.UR, Details: "upstream_reset_after_response_started{remote_reset}", Class: classStarted}
	failureConnectStarted    = failure{Flag: record.UR, Details: "upstream_reset_after_response_started{remote_error_with_CONNECT_request}", Class: classStarted}
	failureTerminatedStarted = failure{Flag: record.UC, Details: "upstream_reset_after_response_started{connection_termination}", Class: classStarted}
)

// streamReset is the failure that a reset by the endpoint is; started: of the response
// the head has come. Only a refusal says that the request was not looked at (RFC 9113
// §8.7), and none does once an answer has begun.
func streamReset(code http2.ErrorCode, started bool) *failure {
	switch code {
	case http2.ProtocolError: // it takes our request for malformed, and so might all others
		if started {
			return &failureResetStarted
		}
		return &failureUpstreamProtocol
	case http2.RefusedStream:
		if started {
			return &failureRefusedStarted
		}
		return &failureRefused
	case http2.ConnectError:
		if started {
			return &failureConnectStarted
		}
		return &failureConnectReset
	}
	if started {
		return &failureRemoteStarted
	}
	return &failureRemoteReset
}

// withinResponse is the failure of an attempt whose response has begun, on a connection
// that ended for f.
func (f *failure) withinResponse() *failure {
	if f.Class == classProtocol {
		return &failureResetStarted
	}
	return &failureTerminatedStarted
}
