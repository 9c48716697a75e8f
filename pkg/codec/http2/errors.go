// SPDX-License-Identifier: Apache-2.0

package http2

import "strings"

// ErrorCode is the code of RST_STREAM and GOAWAY (RFC 9113 §7).
type ErrorCode uint32

// The codes.
const (
	NoError ErrorCode = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String is the code's name in the RFC.
func (c ErrorCode) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "UNKNOWN_ERROR"
}

// Error is why a connection or a stream was ended. The values are static and
// comparable.
type Error struct {
	Code ErrorCode
	// Detail is the response code detail for logs.
	Detail string
}

// Error is the detail.
func (e *Error) Error() string { return e.Detail }

// Errors of frames, settings and streams, which end the connection.
var (
	errPreface          = &Error{ProtocolError, "http2.invalid_preface"}
	errFirstFrame       = &Error{ProtocolError, "http2.no_settings_first"}
	errFrameSize        = &Error{FrameSizeError, "http2.frame_too_large"}
	errFrameLength      = &Error{FrameSizeError, "http2.invalid_frame_length"}
	errFrameStream      = &Error{ProtocolError, "http2.invalid_stream_for_frame"}
	errPadding          = &Error{ProtocolError, "http2.invalid_padding"}
	errIdle             = &Error{ProtocolError, "http2.frame_on_idle_stream"}
	errStreamID         = &Error{ProtocolError, "http2.invalid_stream_id"}
	errClosedHeaders    = &Error{StreamClosed, "http2.headers_on_closed_stream"}
	errPush             = &Error{ProtocolError, "http2.unexpected_push"}
	errContinuation     = &Error{ProtocolError, "http2.unexpected_continuation"}
	errNoContinuation   = &Error{ProtocolError, "http2.missing_continuation"}
	errCompression      = &Error{CompressionError, "http2.invalid_header_compression"}
	errSettingPush      = &Error{ProtocolError, "http2.invalid_enable_push"}
	errSettingWindow    = &Error{FlowControlError, "http2.invalid_initial_window"}
	errSettingFrameSize = &Error{ProtocolError, "http2.invalid_max_frame_size"}
	errSettingConnect   = &Error{ProtocolError, "http2.invalid_enable_connect_protocol"}
	errSettingPriority  = &Error{ProtocolError, "http2.invalid_no_rfc7540_priorities"}
	errWindowZero       = &Error{ProtocolError, "http2.zero_window_update"}
	errWindowOverflow   = &Error{FlowControlError, "http2.window_overflow"}
	errWindowExceeded   = &Error{FlowControlError, "http2.window_exceeded"}
	errGoAwayRaised     = &Error{ProtocolError, "http2.goaway_last_stream_raised"}
)

// Errors of budgets, which end the connection.
var (
	errResets        = &Error{EnhanceYourCalm, "http2.too_many_resets"}
	errForcedResets  = &Error{EnhanceYourCalm, "http2.too_many_stream_errors"}
	errContinuations = &Error{EnhanceYourCalm, "http2.continuation_flood"}
	errBlockBytes    = &Error{EnhanceYourCalm, "http2.header_block_too_large"}
	errBlockWork     = &Error{EnhanceYourCalm, "http2.header_block_amplifies"}
	errSettings      = &Error{EnhanceYourCalm, "http2.settings_flood"}
	errPings         = &Error{EnhanceYourCalm, "http2.ping_flood"}
	errPriorities    = &Error{EnhanceYourCalm, "http2.priority_flood"}
	errEmptyData     = &Error{EnhanceYourCalm, "http2.empty_data_flood"}
	errWindowUpdates = &Error{EnhanceYourCalm, "http2.window_update_flood"}
	errUnknownFrames = &Error{EnhanceYourCalm, "http2.unknown_frame_flood"}
	errControlQueue  = &Error{EnhanceYourCalm, "http2.outbound_control_flood"}
	errQueue         = &Error{EnhanceYourCalm, "http2.outbound_flood"}
)

// floods are the errors of budgets, by which connections that end so are counted.
var floods = [...]*Error{
	errResets, errForcedResets, errContinuations, errBlockBytes, errBlockWork,
	errSettings, errPings, errPriorities, errEmptyData, errWindowUpdates,
	errUnknownFrames, errControlQueue, errQueue,
}

// Floods is how many kinds of flood there are.
const Floods = len(floods)

// Flood is the kind of flood that ended a connection; ok is false where it was
// something else.
func Flood(err error) (kind int, ok bool) {
	for i, e := range floods {
		if err == error(e) {
			return i, true
		}
	}
	return 0, false
}

// FloodName is what a kind of flood is called in statistics.
func FloodName(kind int) string { return strings.TrimPrefix(floods[kind].Detail, "http2.") }

// Errors of one stream.
var (
	errClosed          = &Error{StreamClosed, "http2.frame_on_closed_stream"}
	errConcurrency     = &Error{RefusedStream, "http2.too_many_streams"}
	errSelfDependency  = &Error{ProtocolError, "http2.stream_depends_on_itself"}
	errPriorityLength  = &Error{FrameSizeError, "http2.invalid_priority_length"}
	errHeadBytes       = &Error{EnhanceYourCalm, "http2.headers_too_large"}
	errName            = &Error{ProtocolError, "http2.invalid_header_name"}
	errValue           = &Error{ProtocolError, "http2.invalid_header_value"}
	errUnderscore      = &Error{ProtocolError, "http2.unexpected_underscore"}
	errConnection      = &Error{ProtocolError, "http2.connection_specific_header"}
	errTE              = &Error{ProtocolError, "http2.invalid_te"}
	errExpect          = &Error{ProtocolError, "http2.unsupported_expectation"}
	errPseudoOrder     = &Error{ProtocolError, "http2.pseudo_header_after_header"}
	errPseudoRepeated  = &Error{ProtocolError, "http2.repeated_pseudo_header"}
	errPseudoUnknown   = &Error{ProtocolError, "http2.unknown_pseudo_header"}
	errPseudoMissing   = &Error{ProtocolError, "http2.missing_pseudo_header"}
	errPseudoConnect   = &Error{ProtocolError, "http2.invalid_connect"}
	errPseudoTrailer   = &Error{ProtocolError, "http2.pseudo_header_in_trailer"}
	errMethod          = &Error{ProtocolError, "http2.invalid_method"}
	errScheme          = &Error{ProtocolError, "http2.unsupported_scheme"}
	errPath            = &Error{ProtocolError, "http2.invalid_path"}
	errTargetBytes     = &Error{EnhanceYourCalm, "http2.target_too_long"}
	errAuthority       = &Error{ProtocolError, "http2.invalid_authority"}
	errHostRepeated    = &Error{ProtocolError, "http2.repeated_host"}
	errHostDiffers     = &Error{ProtocolError, "http2.host_differs_from_authority"}
	errLength          = &Error{ProtocolError, "http2.invalid_content_length"}
	errLengthRepeated  = &Error{ProtocolError, "http2.repeated_content_length"}
	errLengthDiffers   = &Error{ProtocolError, "http2.content_length_mismatch"}
	errBodyDisallowed  = &Error{ProtocolError, "http2.body_disallowed"}
	errTrailerNotLast  = &Error{ProtocolError, "http2.headers_within_body"}
	errBeforeHead      = &Error{ProtocolError, "http2.data_before_headers"}
	errStatus          = &Error{ProtocolError, "http2.invalid_status"}
	errSwitch          = &Error{ProtocolError, "http2.unexpected_switching_protocols"}
	errInformational   = &Error{EnhanceYourCalm, "http2.too_many_informational"}
	errInformationEnds = &Error{ProtocolError, "http2.informational_ends_stream"}
	errStreamZero      = &Error{ProtocolError, "http2.zero_stream_window_update"}
	errStreamOverflow  = &Error{FlowControlError, "http2.stream_window_overflow"}
	errStreamExceeded  = &Error{FlowControlError, "http2.stream_window_exceeded"}
)
