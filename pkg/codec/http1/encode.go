// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

const crlf = "\r\n"

// AppendRequest appends the head of a request for an upstream peer: always
// HTTP/1.1, in origin form (asterisk form for OPTIONS *, authority form for
// CONNECT), Host first, the fields in order, then the framing and connection
// fields that h's flags ask for. The body follows, in chunks where h.BodyLength
// is BodyChunked.
func AppendRequest(dst []byte, h *codec.RequestHead) []byte {
	dst = append(dst, h.MethodBytes()...)
	dst = append(dst, ' ')
	switch target := h.Path(); {
	case h.Method == codec.MethodConnect:
		dst = append(dst, h.Authority()...)
	case len(target) == 0 || target[0] != '/' && !(len(target) == 1 && target[0] == '*'):
		dst = append(dst, '/')
		dst = append(dst, target...)
	default:
		dst = append(dst, target...)
	}
	dst = append(dst, " HTTP/1.1\r\nhost: "...)
	dst = append(dst, h.Authority()...)
	dst = append(dst, crlf...)
	dst = h.AppendFields(dst)
	switch {
	case h.BodyLength > 0:
		dst = appendLength(dst, h.BodyLength)
	case h.BodyLength == codec.BodyChunked:
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	case h.Method == codec.MethodPost || h.Method == codec.MethodPut || h.Method == codec.MethodPatch:
		// Content is anticipated with these (RFC 9110 §8.6).
		dst = append(dst, "content-length: 0\r\n"...)
	}
	if h.ExpectContinue {
		dst = append(dst, "expect: 100-continue\r\n"...)
	}
	if h.Upgrade || h.TETrailers || !h.KeepAlive {
		dst = appendRequestConnection(dst, h)
	}
	return append(dst, crlf...)
}

// appendRequestConnection appends Connection and the fields it nominates. A
// connection that is to be upgraded is not told to close.
func appendRequestConnection(dst []byte, h *codec.RequestHead) []byte {
	if h.Upgrade {
		dst = append(dst, "upgrade: "...)
		dst = append(dst, h.UpgradeProtocol()...)
		dst = append(dst, crlf...)
	}
	if h.TETrailers {
		dst = append(dst, "te: trailers\r\n"...)
	}
	dst = append(dst, "connection: "...)
	sep := ""
	if h.Upgrade {
		dst = append(dst, "upgrade"...)
		sep = ", "
	} else if !h.KeepAlive {
		dst = append(dst, "close"...)
		sep = ", "
	}
	if h.TETrailers {
		dst = append(dst, sep...)
		dst = append(dst, "te"...)
	}
	return append(dst, crlf...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "content-length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, crlf...)
}

// Framing is how a body that is being written ends.
type Framing uint8

// The framings.
const (
	FramingNone    Framing = iota // no body: nothing may be written
	FramingLength                 // exactly BodyLength bytes
	FramingChunked                // AppendChunk…, AppendLastChunk
	FramingClose                  // the connection is closed behind it
)

// FramingFor is how the body of a response goes to a downstream peer of the
// protocol to, and whether its connection can be kept behind it: HTTP/1.0 knows
// no chunks. AppendResponse writes the head to match.
func FramingFor(h *codec.ResponseHead, to codec.Protocol, keepAlive bool) (Framing, bool) {
	switch {
	case h.NoBody || h.BodyLength == codec.BodyNone || h.Status == 204 || h.Status == 304 || h.Status < 200:
		return FramingNone, keepAlive
	case h.BodyLength > 0:
		return FramingLength, keepAlive
	case to == codec.HTTP10:
		return FramingClose, false
	}
	return FramingChunked, keepAlive
}

// AppendResponse appends the head of a final response, or of 101, for a
// downstream peer of the protocol to. The version is HTTP/1.1 for all of them,
// the highest that this side speaks (RFC 9112 §2.3). keepAlive is what this
// side wants; FramingFor says what comes of it.
func AppendResponse(dst []byte, h *codec.ResponseHead, to codec.Protocol, keepAlive bool) []byte {
	dst = appendStatusLine(dst, h)
	dst = h.AppendFields(dst)
	if h.Status == 101 {
		dst = appendUpgrade(dst, h)
		return append(dst, "connection: upgrade\r\n\r\n"...)
	}
	framing, keepAlive := FramingFor(h, to, keepAlive)
	switch {
	case framing == FramingChunked:
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	case h.Status == 204 || h.BodyLength < 0:
		// 204 must not have a length (RFC 9110 §8.6), the others have none.
	default:
		dst = appendLength(dst, h.BodyLength)
	}
	return appendResponseConnection(dst, h, to, keepAlive)
}

func appendResponseConnection(dst []byte, h *codec.ResponseHead, to codec.Protocol, keepAlive bool) []byte {
	option := ""
	switch {
	case !keepAlive:
		option = "close"
	case to == codec.HTTP10:
		option = "keep-alive"
	}
	if h.Status == 426 && len(h.UpgradeProtocol()) > 0 {
		dst = appendUpgrade(dst, h)
		dst = append(dst, "connection: upgrade"...)
		if option != "" {
			dst = append(dst, ", "...)
			dst = append(dst, option...)
		}
		return append(dst, "\r\n\r\n"...)
	}
	if option != "" {
		dst = append(dst, "connection: "...)
		dst = append(dst, option...)
		dst = append(dst, crlf...)
	}
	return append(dst, crlf...)
}

func appendUpgrade(dst []byte, h *codec.ResponseHead) []byte {
	dst = append(dst, "upgrade: "...)
	dst = append(dst, h.UpgradeProtocol()...)
	return append(dst, crlf...)
}

// AppendInformational appends a 1xx response other than 101. It must not go to
// an HTTP/1.0 peer (RFC 9110 §15.2).
func AppendInformational(dst []byte, h *codec.ResponseHead) []byte {
	dst = appendStatusLine(dst, h)
	dst = h.AppendFields(dst)
	return append(dst, crlf...)
}

func appendStatusLine(dst []byte, h *codec.ResponseHead) []byte {
	s := h.Status
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+s/100%10), byte('0'+s/10%10), byte('0'+s%10), ' ')
	if reason := h.Reason(); len(reason) > 0 {
		dst = append(dst, reason...)
	} else {
		dst = append(dst, Reason(s)...)
	}
	return append(dst, crlf...)
}

// AppendChunk appends data as one chunk. Empty data appends nothing: an empty
// chunk would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkHeader(dst, len(data))
	dst = append(dst, data...)
	return append(dst, crlf...)
}

// AppendChunkHeader appends what goes before n bytes of data, n > 0, for callers
// that write the data themselves; AppendChunkEnd goes behind them.
func AppendChunkHeader(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, crlf...)
}

// AppendChunkEnd appends what goes behind the data of a chunk.
func AppendChunkEnd(dst []byte) []byte { return append(dst, crlf...) }

// AppendLastChunk appends the end of a chunked body, with the fields of trailer
// that may stand there (codec.MayTrail). A nil trailer has none.
func AppendLastChunk(dst []byte, trailer *codec.Header) []byte {
	if trailer == nil || trailer.Len() == 0 {
		return append(dst, "0\r\n\r\n"...)
	}
	dst = append(dst, "0\r\n"...)
	for i := range trailer.Slots() {
		name, value, id, ok := trailer.At(i)
		if !ok || !codec.MayTrail(name, id) {
			continue
		}
		dst = append(dst, name...)
		dst = append(dst, ": "...)
		dst = append(dst, value...)
		dst = append(dst, crlf...)
	}
	return append(dst, crlf...)
}
