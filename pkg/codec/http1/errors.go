// SPDX-License-Identifier: Apache-2.0

package http1

// Error is why a message was refused. The values are static and comparable.
type Error struct {
	// Status is what a downstream peer is answered before its connection is
	// closed; 502 for what an upstream peer sent.
	Status int
	// Detail is the response code detail for logs.
	Detail string
}

// Error is the detail.
func (e *Error) Error() string { return e.Detail }

// Errors that callers tell apart.
var (
	// ErrHTTP2Preface: the peer speaks HTTP/2 with prior knowledge.
	ErrHTTP2Preface = &Error{505, "http1.http2_preface"}
	// ErrTruncated: the peer closed within a message.
	ErrTruncated = &Error{502, "http1.truncated"}
	// ErrClosedIdle: the peer closed before the first byte of a response.
	ErrClosedIdle = &Error{502, "http1.closed_idle"}
	// ErrUnexpectedBytes: an upstream peer sent bytes that answer no request.
	ErrUnexpectedBytes = &Error{502, "http1.unexpected_bytes"}
)

// Errors of bytes and lines, in requests and responses alike. A response decoder
// returns them with their upstream twin's status, see upstream.
var (
	errControl        = &Error{400, "http1.control_character"}
	errBareCR         = &Error{400, "http1.bare_cr"}
	errBareLF         = &Error{400, "http1.bare_lf"}
	errHeadBytes      = &Error{431, "http1.headers_too_large"}
	errHeadCount      = &Error{431, "http1.too_many_headers"}
	errFold           = &Error{400, "http1.obs_fold"}
	errNameEmpty      = &Error{400, "http1.empty_header_name"}
	errNameSpace      = &Error{400, "http1.space_before_colon"}
	errName           = &Error{400, "http1.invalid_header_name"}
	errNoColon        = &Error{400, "http1.header_without_colon"}
	errUnderscore     = &Error{400, "http1.unexpected_underscore"}
	errConnection     = &Error{400, "http1.invalid_connection_header"}
	errLengthBoth     = &Error{400, "http1.content_length_and_chunked"}
	errLengthRepeated = &Error{400, "http1.repeated_content_length"}
	errLength         = &Error{400, "http1.invalid_content_length"}
	errCodingRepeated = &Error{400, "http1.repeated_transfer_encoding"}
	errCoding         = &Error{400, "http1.invalid_transfer_encoding"}
	errCodingUnknown  = &Error{501, "http1.unsupported_transfer_encoding"}
	errCodingIn10     = &Error{400, "http1.transfer_encoding_in_http10"}
	errBodyDisallowed = &Error{400, "http1.body_disallowed"}
)

// Errors of request lines and of what only requests have.
var (
	errMethodLong     = &Error{501, "http1.method_too_long"}
	errMethod         = &Error{400, "http1.invalid_method"}
	errRequestLine    = &Error{400, "http1.invalid_request_line"}
	errBlankLines     = &Error{400, "http1.blank_lines_before_request"}
	errTargetBytes    = &Error{414, "http1.target_too_long"}
	errTarget         = &Error{400, "http1.invalid_target"}
	errFragment       = &Error{400, "http1.fragment_in_target"}
	errTargetForm     = &Error{400, "http1.invalid_target_form"}
	errTargetUserinfo = &Error{400, "http1.userinfo_in_target"}
	errTargetScheme   = &Error{400, "http1.unsupported_scheme"}
	errVersion        = &Error{505, "http1.unsupported_version"}
	errHostMissing    = &Error{400, "http1.missing_host"}
	errHostRepeated   = &Error{400, "http1.repeated_host"}
	errHost           = &Error{400, "http1.invalid_host"}
	errHostDiffers    = &Error{400, "http1.host_differs_from_target"}
	errExpect         = &Error{417, "http1.unsupported_expectation"}
	errBodyBytes      = &Error{413, "http1.body_too_large"}
)

// Errors of chunked bodies.
var (
	errChunkSize     = &Error{400, "http1.invalid_chunk_size"}
	errChunkOverflow = &Error{400, "http1.chunk_size_overflow"}
	errChunkExt      = &Error{400, "http1.invalid_chunk_extension"}
	errChunkExtBytes = &Error{400, "http1.chunk_extensions_too_large"}
	errChunkEnd      = &Error{400, "http1.chunk_data_without_crlf"}
	errTrailerBytes  = &Error{431, "http1.trailers_too_large"}
)

// Errors of responses.
var (
	errStatusLine       = &Error{502, "http1.invalid_status_line"}
	errStatus           = &Error{502, "http1.invalid_status"}
	errInformational    = &Error{502, "http1.too_many_informational"}
	errSwitch           = &Error{502, "http1.unexpected_switching_protocols"}
	errInformationalLen = &Error{502, "http1.informational_with_body"}
)

// upstreamErrors are the errors of requests and responses alike as a response
// decoder returns them: no fault of the downstream peer's.
var upstreamErrors = buildUpstreamErrors(
	errControl, errBareCR, errBareLF, errHeadBytes, errHeadCount, errFold, errNameEmpty, errNameSpace, errName,
	errNoColon, errUnderscore, errConnection, errLengthBoth, errLengthRepeated, errLength, errCodingRepeated,
	errCoding, errCodingUnknown, errCodingIn10, errChunkSize, errChunkOverflow, errChunkExt, errChunkExtBytes,
	errChunkEnd, errTrailerBytes, errVersion,
)

func buildUpstreamErrors(list ...*Error) map[*Error]*Error {
	m := make(map[*Error]*Error, len(list))
	for _, e := range list {
		m[e] = &Error{502, e.Detail}
	}
	return m
}

// upstream is the error with the status that an upstream peer's fault has.
func upstream(e *Error) *Error {
	if u, ok := upstreamErrors[e]; ok {
		return u
	}
	return e
}
