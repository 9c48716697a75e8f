// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/hpack"
)

// treatment is how an encoder handles a known name.
type treatment struct {
	static uint8 // index in the static table, 0 if it is not there
	policy hpack.Policy
	drop   bool // of one hop, or written from elsewhere
}

var treatments = buildTreatments()

func buildTreatments() (t [256]treatment) {
	for id := range 256 {
		if name := codec.Name(id).String(); name != "" {
			t[id].static = uint8(hpack.StaticIndex([]byte(name)))
		}
	}
	for _, id := range []codec.Name{
		codec.NameConnection, codec.NameContentLength, codec.NameExpect, codec.NameHost, codec.NameHTTP2Settings,
		codec.NameKeepAlive, codec.NameProxyConnection, codec.NameTE, codec.NameTransferEncoding, codec.NameUpgrade,
	} {
		t[id].drop = true
	}
	for _, id := range []codec.Name{
		codec.NameB3, codec.NameTraceparent, codec.NameTracestate, codec.NameXB3ParentSpanID, codec.NameXB3SpanID,
		codec.NameXB3TraceID, codec.NameXEnvoyUpstreamServiceTime, codec.NameXRequestID,
	} {
		t[id].policy = hpack.Once
	}
	for _, id := range []codec.Name{codec.NameAuthorization, codec.NameProxyAuthorization, codec.NameSetCookie} {
		t[id].policy = hpack.Sensitive
	}
	return t
}

// shortCookie: a cookie of fewer bytes could be guessed by trying (RFC 7541 §7.1).
const shortCookie = 20

// begin starts a HEADERS frame.
func (c *Conn) begin(dst []byte) []byte {
	return c.encoder.Begin(append(dst, make([]byte, frameHeaderSize)...))
}

// finish completes the HEADERS frame that begins at start, and cuts it into
// CONTINUATION frames if the peer takes no frame so large.
func (c *Conn) finish(dst []byte, start int, s *stream, last bool) []byte {
	flags := uint8(0)
	if last {
		flags = flagEndStream
	}
	most := int(c.peer.frameSize)
	n := len(dst) - start - frameHeaderSize
	if n <= most {
		putFrame(dst[start:], n, frameHeaders, flags|flagEndHeaders, s.id)
	} else {
		dst = c.cut(dst, start, n, most, flags, s.id)
	}
	if last {
		c.endLocal(s)
	}
	return dst
}

func (c *Conn) cut(dst []byte, start, n, most int, flags uint8, id uint32) []byte {
	more := (n - 1) / most // CONTINUATION frames
	for range more {
		dst = append(dst, make([]byte, frameHeaderSize)...)
	}
	for i := more; i > 0; i-- {
		from := start + frameHeaderSize + i*most
		size := min(most, n-i*most)
		to := from + i*frameHeaderSize
		copy(dst[to:], dst[from:from+size])
		end := uint8(0)
		if i == more {
			end = flagEndHeaders
		}
		putFrame(dst[to-frameHeaderSize:], size, frameContinuation, end, id)
	}
	putFrame(dst[start:], most, frameHeaders, flags, id)
	return dst
}

// list appends the fields that are end-to-end.
func (c *Conn) appendList(dst []byte, h *codec.Header) []byte {
	for i := range h.Slots() {
		name, value, id, ok := h.At(i)
		if !ok {
			continue
		}
		t := &treatments[id]
		if t.drop {
			continue
		}
		dst = c.appendField(dst, name, value, id, t)
	}
	return dst
}

func (c *Conn) appendField(dst, name, value []byte, id codec.Name, t *treatment) []byte {
	policy := t.policy
	if id == codec.NameCookie && len(value) < shortCookie {
		policy = hpack.Sensitive
	}
	if t.static != 0 {
		return c.encoder.AppendNamed(dst, int(t.static), value, policy)
	}
	return c.encoder.AppendField(dst, c.lowered(name), value, policy)
}

// lowered is the name in lower case, in scratch if it is not so already.
func (c *Conn) lowered(name []byte) []byte {
	for i, b := range name {
		if b >= 'A' && b <= 'Z' {
			c.scratch = append(c.scratch[:0], name...)
			for ; i < len(name); i++ {
				c.scratch[i] = lower(name[i])
			}
			return c.scratch
		}
	}
	return name
}

const staticContentLength = 28

func (c *Conn) appendLength(dst []byte, n int64) []byte {
	c.scratch = strconv.AppendInt(c.scratch[:0], n, 10)
	return c.encoder.AppendNamed(dst, staticContentLength, c.scratch, hpack.Once)
}

var (
	methodConnect = []byte("CONNECT")
	nameProtocol  = []byte(":protocol")
	nameTE        = []byte("te")
	nameExpect    = []byte("expect")
	valueTrailers = []byte("trailers")
	valueContinue = []byte("100-continue")
	valueHTTP     = []byte("http")
	valueSlash    = []byte("/")
	valueAsterisk = []byte("*")
)

// AppendRequest appends the head of a request: the fields in order, names in
// lower case, those of one hop left out. CONNECT has Authority only. With
// h.Upgrade it is extended CONNECT to h.UpgradeProtocol, whatever the method (RFC
// 8441 §4), for which ExtendedConnect is to be asked before. last: no body
// follows. With a stream that is gone nothing is appended; the same holds for the
// others.
func (c *Conn) AppendRequest(dst []byte, stream uint32, h *codec.RequestHead, last bool) []byte {
	dst = c.appendControl(dst)
	s := c.live(stream)
	if s == nil || c.role != Client || s.is(headSent) {
		return dst
	}
	s.flags |= headSent
	if h.Method == codec.MethodHead && !h.Upgrade {
		s.flags |= isHead
	}
	connect, method := h.Method == codec.MethodConnect || h.Upgrade, h.MethodBytes()
	if connect {
		s.flags |= isConnect
		method = methodConnect
	}
	start := len(dst)
	dst = c.begin(dst)
	e := &c.encoder
	dst = e.AppendNamed(dst, hpack.StaticMethod, method, hpack.Auto)
	if !connect || h.Upgrade {
		dst = e.AppendNamed(dst, hpack.StaticScheme, orBytes(h.Scheme(), valueHTTP), hpack.Auto)
		dst = e.AppendNamed(dst, hpack.StaticPath, pathOf(h), hpack.Auto)
	}
	if a := h.Authority(); len(a) > 0 {
		dst = e.AppendNamed(dst, hpack.StaticAuthority, a, hpack.Auto)
	}
	if h.Upgrade {
		dst = e.AppendField(dst, nameProtocol, h.UpgradeProtocol(), hpack.Auto)
	}
	dst = c.appendList(dst, &h.Header)
	switch {
	case connect:
	case h.BodyLength > 0:
		dst = c.appendLength(dst, h.BodyLength)
	case h.BodyLength == 0 && (h.Method == codec.MethodPost || h.Method == codec.MethodPut || h.Method == codec.MethodPatch):
		dst = c.appendLength(dst, 0)
	}
	if h.TETrailers {
		dst = e.AppendField(dst, nameTE, valueTrailers, hpack.Auto)
	}
	if h.ExpectContinue && !last {
		dst = e.AppendField(dst, nameExpect, valueContinue, hpack.Auto)
	}
	return c.finish(dst, start, s, last)
}

// pathOf is the target, which is never empty (RFC 9113 §8.3.1).
func pathOf(h *codec.RequestHead) []byte {
	if p := h.Path(); len(p) > 0 {
		return p
	}
	if h.Method == codec.MethodOptions {
		return valueAsterisk
	}
	return valueSlash
}

func orBytes(b, def []byte) []byte {
	if len(b) == 0 {
		return def
	}
	return b
}

// AppendResponse appends the head of a final response. Nothing is appended for a
// second one.
func (c *Conn) AppendResponse(dst []byte, stream uint32, h *codec.ResponseHead, last bool) []byte {
	dst = c.appendControl(dst)
	s := c.live(stream)
	if s == nil || c.role != Server || s.is(headSent) || h.Status < 200 {
		return dst
	}
	s.flags |= headSent
	start := len(dst)
	dst = c.begin(dst)
	dst = c.appendStatus(dst, h.Status)
	dst = c.appendList(dst, &h.Header)
	if h.BodyLength >= 0 && h.Status != 204 && !(h.Status == 304 && h.BodyLength == 0) && !(s.is(isConnect) && h.Status < 300) {
		dst = c.appendLength(dst, h.BodyLength)
	}
	return c.finish(dst, start, s, last)
}

// AppendInformational appends a 1xx response other than 101.
func (c *Conn) AppendInformational(dst []byte, stream uint32, h *codec.ResponseHead) []byte {
	dst = c.appendControl(dst)
	s := c.live(stream)
	if s == nil || c.role != Server || s.is(headSent) || h.Status < 100 || h.Status > 199 || h.Status == 101 {
		return dst
	}
	start := len(dst)
	dst = c.begin(dst)
	dst = c.appendStatus(dst, h.Status)
	dst = c.appendList(dst, &h.Header)
	return c.finish(dst, start, s, false)
}

func (c *Conn) appendStatus(dst []byte, status int) []byte {
	c.scratch = append(c.scratch[:0], byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
	return c.encoder.AppendNamed(dst, hpack.StaticStatus, c.scratch, hpack.Auto)
}

// AppendTrailer ends a body with a trailer section, behind what is queued. Fields
// that may not stand there are left out (codec.MayTrail).
func (c *Conn) AppendTrailer(dst []byte, stream uint32, h *codec.Header) []byte {
	dst = c.appendControl(dst)
	s := c.writable(stream)
	if s == nil {
		return dst
	}
	if s.granted > 0 && s.ungranted() == 0 {
		dst = c.appendGranted(dst, s, s.granted, false)
	}
	if len(s.queue) == 0 {
		return c.appendTrailer(dst, s, h)
	}
	if s.trailer == nil {
		s.trailer = &codec.Header{}
	}
	s.trailer.CopyFrom(h)
	s.flags |= endQueued | hasTrailer
	return dst
}

// appendTrailer appends the trailer section now.
func (c *Conn) appendTrailer(dst []byte, s *stream, h *codec.Header) []byte {
	start, any := len(dst), false
	for i := range h.Slots() {
		name, value, id, ok := h.At(i)
		if !ok || !codec.MayTrail(name, id) {
			continue
		}
		if !any {
			any = true
			dst = c.begin(dst)
		}
		dst = c.appendField(dst, name, value, id, &treatments[id])
	}
	if any {
		return c.finish(dst, start, s, true)
	}
	dst = c.appendDataFrame(dst, s, nil, true)
	c.endLocal(s)
	return dst
}
