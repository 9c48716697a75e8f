// SPDX-License-Identifier: Apache-2.0

package codec

// Body lengths that are not a number of bytes.
const (
	BodyNone    int64 = 0  // no body
	BodyChunked int64 = -1 // length known only at its end (chunked, HTTP/2)
	BodyToClose int64 = -2 // a response that ends with its connection (RFC 9112 §6.3, rule 8)
)

// Protocol is the version a message was read in.
type Protocol uint8

// The protocols.
const (
	HTTP10 Protocol = iota
	HTTP11
	HTTP2
)

// String is the form access logs use.
func (p Protocol) String() string {
	switch p {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	}
	return "HTTP/2"
}

// Method is a request method that the data path treats specially.
type Method uint8

// The methods; any other token is MethodOther.
const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodConnect
	MethodOptions
	MethodTrace
	MethodPatch
)

// Idempotent reports RFC 9110 §9.2.2 for the known methods.
func (m Method) Idempotent() bool {
	switch m {
	case MethodGet, MethodHead, MethodPut, MethodDelete, MethodOptions, MethodTrace:
		return true
	}
	return false
}

// ParseMethod recognises the (case-sensitive) method token.
func ParseMethod(b []byte) Method {
	switch string(b) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "CONNECT":
		return MethodConnect
	case "OPTIONS":
		return MethodOptions
	case "TRACE":
		return MethodTrace
	case "PATCH":
		return MethodPatch
	}
	return MethodOther
}

// TargetForm is the form of a request target (RFC 9112 §3.2).
type TargetForm uint8

// The forms.
const (
	OriginForm TargetForm = iota
	AbsoluteForm
	AuthorityForm
	AsteriskForm
)

// RequestHead is a request without its body. Method, path, authority and scheme
// lie in the Header's buffer. The header list does not contain Host: the decoder
// checked it against the target and moved it to Authority, and an encoder
// writes it first.
type RequestHead struct {
	Header
	Method   Method
	Protocol Protocol
	Form     TargetForm

	// BodyLength is ≥ 0 or BodyChunked, as the decoder found it. Framing fields
	// (Content-Length, Transfer-Encoding) are not in the list: encoders write
	// framing from here.
	BodyLength int64
	// KeepAlive is what the sender asked of its connection.
	KeepAlive bool
	// ExpectContinue: the sender waits for 100 (RFC 9110 §10.1.1).
	ExpectContinue bool
	// Upgrade: a Connection: upgrade was present; its protocol is in UpgradeProtocol.
	Upgrade bool
	// TETrailers: TE: trailers was present (RFC 9110 §10.1.4).
	TETrailers bool

	method, path, authority, scheme, upgrade span
}

// Reset empties the head and keeps its memory.
func (h *RequestHead) Reset() {
	hd := h.Header
	hd.Reset()
	*h = RequestHead{Header: hd}
}

// CopyFrom makes h an independent copy of src.
func (h *RequestHead) CopyFrom(src *RequestHead) {
	hd := h.Header
	hd.CopyFrom(&src.Header)
	*h = *src
	h.Header = hd
}

func (h *Header) bytes(s span) []byte { return h.buf[s.off:s.end:s.end] }

// MethodBytes is the method token.
func (h *RequestHead) MethodBytes() []byte { return h.bytes(h.method) }

// Path is the path with query of the target, "*" in asterisk form, empty in
// authority form.
func (h *RequestHead) Path() []byte { return h.bytes(h.path) }

// Authority is host[:port] of the target or, in origin form, of the Host field.
func (h *RequestHead) Authority() []byte { return h.bytes(h.authority) }

// Scheme is empty unless the target was absolute or the protocol carries it.
func (h *RequestHead) Scheme() []byte { return h.bytes(h.scheme) }

// UpgradeProtocol is the value of the Upgrade field.
func (h *RequestHead) UpgradeProtocol() []byte { return h.bytes(h.upgrade) }

// SetMethod replaces the method with a copy. What is not a token is ignored.
func (h *RequestHead) SetMethod(b []byte) {
	if ValidName(b) {
		h.Method = ParseMethod(b)
		h.method = h.put(b)
	}
}

// SetPath replaces the path with query by a copy. Bytes that may not stand in a
// request target are percent-encoded.
func (h *RequestHead) SetPath(b []byte) { h.path = h.putTarget(b) }

// SetAuthority replaces the authority by a copy. Control bytes become spaces;
// whether it names a host is for the caller to check with ValidAuthority.
func (h *RequestHead) SetAuthority(b []byte) { h.authority = h.putValue(b) }

// SetScheme replaces the scheme by a copy.
func (h *RequestHead) SetScheme(b []byte) { h.scheme = h.putValue(b) }

// SetUpgrade replaces the upgrade protocol by a copy; empty is no upgrade.
func (h *RequestHead) SetUpgrade(b []byte) {
	h.Upgrade = len(b) > 0
	h.upgrade = h.putValue(b)
}

func (h *Header) putTarget(b []byte) span {
	if IndexNotTarget(b, 0) == len(b) {
		return h.put(b)
	}
	const hex = "0123456789ABCDEF"
	off := uint32(len(h.buf))
	for _, c := range b {
		if classes[c]&classTarget != 0 {
			h.buf = append(h.buf, c)
		} else {
			h.buf = append(h.buf, '%', hex[c>>4], hex[c&15])
		}
	}
	return span{off, uint32(len(h.buf))}
}

// SetMethodSpan and the functions below are for decoders: parts as spans of the
// buffer given to SetBuffer.
func (h *RequestHead) SetMethodSpan(off, end int) {
	h.method = span{uint32(off), uint32(end)}
	h.Method = ParseMethod(h.bytes(h.method))
}

// SetPathSpan sets the path with query.
func (h *RequestHead) SetPathSpan(off, end int) { h.path = span{uint32(off), uint32(end)} }

// SetAuthoritySpan sets the authority.
func (h *RequestHead) SetAuthoritySpan(off, end int) { h.authority = span{uint32(off), uint32(end)} }

// SetSchemeSpan sets the scheme.
func (h *RequestHead) SetSchemeSpan(off, end int) { h.scheme = span{uint32(off), uint32(end)} }

// SetUpgradeSpan sets the upgrade protocol.
func (h *RequestHead) SetUpgradeSpan(off, end int) { h.upgrade = span{uint32(off), uint32(end)} }

// ResponseHead is a response without its body. As with requests, framing fields
// are not in the list.
type ResponseHead struct {
	Header
	Status   int
	Protocol Protocol
	// BodyLength is ≥ 0, BodyChunked or BodyToClose. For a response to HEAD and
	// for 304 no body follows, whatever it says: NoBody is true then, and
	// BodyLength is what the field announced (or BodyChunked if none did).
	BodyLength int64
	NoBody     bool
	KeepAlive  bool

	reason, upgrade span
}

// Reset empties the head and keeps its memory.
func (h *ResponseHead) Reset() {
	hd := h.Header
	hd.Reset()
	*h = ResponseHead{Header: hd}
}

// CopyFrom makes h an independent copy of src.
func (h *ResponseHead) CopyFrom(src *ResponseHead) {
	hd := h.Header
	hd.CopyFrom(&src.Header)
	*h = *src
	h.Header = hd
}

// Reason is the reason phrase, empty where there was none.
func (h *ResponseHead) Reason() []byte { return h.bytes(h.reason) }

// SetReason replaces the reason phrase by a copy.
func (h *ResponseHead) SetReason(b []byte) { h.reason = h.putValue(b) }

// SetReasonSpan is for decoders.
func (h *ResponseHead) SetReasonSpan(off, end int) { h.reason = span{uint32(off), uint32(end)} }

// UpgradeProtocol is the value of the Upgrade field of a 101.
func (h *ResponseHead) UpgradeProtocol() []byte { return h.bytes(h.upgrade) }

// SetUpgrade replaces the upgrade protocol by a copy.
func (h *ResponseHead) SetUpgrade(b []byte) { h.upgrade = h.putValue(b) }

// SetUpgradeSpan is for decoders.
func (h *ResponseHead) SetUpgradeSpan(off, end int) { h.upgrade = span{uint32(off), uint32(end)} }

// Sink receives what a decoder reads, in order. Stream is 0 for HTTP/1. An error
// from a callback stops the decoder and is returned by it unchanged.
type Sink interface {
	// RequestHead is the head of a request; last: no body follows. The head is
	// valid until the callback returns.
	RequestHead(stream uint32, h *RequestHead, last bool) error
	// ResponseHead is the head of a final response.
	ResponseHead(stream uint32, h *ResponseHead, last bool) error
	// Informational is a 1xx other than 101.
	Informational(stream uint32, h *ResponseHead) error
	// Data is a piece of a body, valid until the callback returns. The piece
	// may be empty when last is true.
	Data(stream uint32, chunk []byte, last bool) error
	// Trailer ends a body with a trailer section. Data with last was not called.
	Trailer(stream uint32, h *Header) error
	// Tunnel: all bytes that follow belong to the protocol switched to.
	Tunnel(stream uint32) error
}
