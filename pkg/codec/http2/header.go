// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/hpack"
)

// block is a header block that goes on in CONTINUATION frames.
type block struct {
	stream uint32 // 0: none
	end    bool   // END_STREAM
	cause  *Error // what was wrong with HEADERS
	bytes  []byte
	began  int64
	frames int // CONTINUATION frames so far
	empty  int // of which without content
}

// headers handles HEADERS.
func (c *Conn) headers(f frame, payload []byte, sink Sink) error {
	fragment, dependsOn, e := unpad(f, payload)
	if e != nil {
		return c.fail(e)
	}
	if f.stream&1 == 0 || c.role == Client && c.idle(f.stream) {
		return c.fail(errStreamID)
	}
	var cause *Error
	if f.has(flagPriority) && dependsOn == f.stream {
		cause = errSelfDependency
	}
	if f.has(flagEndHeaders) {
		return c.fields(f.stream, fragment, f.has(flagEndStream), cause, sink)
	}
	c.block.stream, c.block.end, c.block.cause = f.stream, f.has(flagEndStream), cause
	c.block.began, c.block.frames, c.block.empty = c.now, 0, 0
	c.block.bytes = append(c.block.bytes[:0], fragment...)
	return nil
}

// continuation handles CONTINUATION. What a block may cost is bounded before it
// is decoded: its frames, those without content, and its bytes.
func (c *Conn) continuation(f frame, fragment []byte, sink Sink) error {
	b := &c.block
	b.frames++
	if len(fragment) == 0 {
		b.empty++
	}
	switch {
	case b.frames > c.lim.Continuations || b.empty > 1:
		return c.fail(errContinuations)
	case len(b.bytes)+len(fragment) > max(c.lim.HeadBytes, int(c.lim.MaxFrameSize))+blockSlack:
		return c.fail(errBlockBytes)
	}
	b.bytes = append(b.bytes, fragment...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	id := b.stream
	b.stream = 0
	return c.fields(id, b.bytes, b.end, b.cause, sink)
}

// blockSlack is what a block may have above the list it becomes.
const blockSlack = 4 << 10

// fields decodes a whole block, which it does whatever becomes of it: the
// table's state hangs on it.
func (c *Conn) fields(id uint32, fragment []byte, end bool, cause *Error, sink Sink) error {
	c.list.Reset()
	if len(fragment) < keepQueue/2 {
		c.shrinkHeads()
	}
	switch c.decoder.Decode(fragment, &c.list) {
	case nil:
	case hpack.ErrTooMuch:
		return c.fail(errBlockWork)
	default:
		return c.fail(errCompression)
	}
	s := c.streams.find(id)
	switch {
	case s != nil && s.is(remoteClosed):
		return c.streamError(id, errClosed, sink)
	case s != nil && c.role == Client && !s.is(headSent):
		return c.fail(errStreamID)
	case s != nil:
	case !c.idle(id):
		return c.lateHeaders(id)
	default:
		c.lastPeer = id
		if c.away.final && id > c.away.last {
			return c.idleFrame()
		}
		if c.streams.count >= int(c.lim.MaxConcurrentStreams) {
			return c.streamError(id, errConcurrency, sink)
		}
		s = c.open(id)
	}
	if cause == nil && c.list.TooLarge {
		cause = errHeadBytes
	}
	if cause != nil {
		return c.streamError(id, cause, sink)
	}
	switch {
	case s.is(headSeen):
		return c.trailers(s, end, sink)
	case c.role == Server:
		return c.request(s, end, sink)
	}
	return c.response(s, end, sink)
}

// shrinkHeads gives back what large header blocks have needed, when one comes that is
// not: a peer that sends them one after the other would else make the collector work.
func (c *Conn) shrinkHeads() {
	if cap(c.list.Buf) > keepQueue {
		c.list.Buf = nil
	}
	if cap(c.block.bytes) > keepQueue {
		c.block.bytes = nil
	}
}

// lateHeaders are for a stream that is gone: on their way when this side reset
// it, or an error (RFC 9113 §5.1, §5.1.1).
func (c *Conn) lateHeaders(id uint32) error {
	switch {
	case contains(c.past.reset[:], id) || id > c.away.last:
		return c.idleFrame()
	case contains(c.past.ended[:], id):
		return c.fail(errClosedHeaders)
	}
	return c.fail(errStreamID)
}

// message is what the fields of a head say that is not in the list.
type message struct {
	length   int64 // lengthUnknown if there is none
	lengths  int
	host     hpack.Field
	hosts    int
	te       bool
	expect   bool
	cookies  int
	lastSeen bool // a field that is no pseudo-header was seen
}

// field judges a field that is no pseudo-header. keep: it goes to the list.
func (c *Conn) field(f *hpack.Field, m *message) (keep bool, e *Error) {
	if f.Flags&(hpack.BadName|hpack.BadValue) != 0 {
		if f.Flags&hpack.BadName != 0 {
			return false, errName
		}
		return false, errValue
	}
	value := c.list.Buf[f.Value:f.ValueEnd]
	switch f.ID {
	case codec.NameOther:
		return c.underscore(c.list.Buf[f.Name:f.NameEnd])
	case codec.NameConnection, codec.NameProxyConnection, codec.NameKeepAlive, codec.NameTransferEncoding, codec.NameUpgrade:
		return false, errConnection
	case codec.NameHTTP2Settings:
		return false, nil
	case codec.NameTE:
		if !codec.EqualFold(value, "trailers") {
			return false, errTE
		}
		m.te = true
		return false, nil
	case codec.NameHost:
		m.host = *f
		m.hosts++
		return c.role == Client, nil
	case codec.NameExpect:
		if c.role == Client {
			return true, nil
		}
		if !codec.EqualFold(value, "100-continue") {
			return false, errExpect
		}
		m.expect = true
		return false, nil
	case codec.NameContentLength:
		if m.lengths++; m.lengths > 1 {
			return false, errLengthRepeated
		}
		if m.length = parseLength(value); m.length < 0 {
			return false, errLength
		}
		return false, nil
	case codec.NameCookie:
		m.cookies++
	}
	return true, nil
}

func (c *Conn) underscore(name []byte) (keep bool, e *Error) {
	if c.lim.Underscores == AllowUnderscores {
		return true, nil
	}
	for _, b := range name {
		if b == '_' {
			if c.lim.Underscores == RejectUnderscores {
				return false, errUnderscore
			}
			return false, nil
		}
	}
	return true, nil
}

// maxLengthDigits keeps a content-length well inside an int64.
const maxLengthDigits = 18

// parseLength reads 1*DIGIT and nothing else; -1 is what is wrong.
func parseLength(v []byte) int64 {
	if len(v) == 0 || len(v) > maxLengthDigits {
		return -1
	}
	n := int64(0)
	for _, b := range v {
		if b < '0' || b > '9' {
			return -1
		}
		n = n*10 + int64(b-'0')
	}
	return n
}

// add makes a field of the list one of h. Fields go where the list has them.
func add(h *codec.Header, f *hpack.Field) {
	h.AddSpan(int(f.Name), int(f.NameEnd), int(f.Value), int(f.ValueEnd), f.ID)
}

// joinCookies makes one field of the crumbs of a cookie (RFC 9113 §8.2.3), which
// the limits have counted one by one. It appends to the list's buffer, and so
// goes before spans are made of that.
func (c *Conn) joinCookies() (joined hpack.Field, ok bool) {
	crumbs := 0
	for i := range c.list.Fields {
		if c.list.Fields[i].ID == codec.NameCookie && c.list.Fields[i].Flags&hpack.BadValue == 0 {
			crumbs++
		}
	}
	if crumbs < 2 {
		return joined, false
	}
	b := c.list.Buf
	joined = hpack.Field{Name: uint32(len(b)), ID: codec.NameCookie}
	b = append(b, "cookie: "...)
	joined.NameEnd, joined.Value = uint32(len(b)-2), uint32(len(b))
	sep := ""
	for i := range c.list.Fields {
		f := &c.list.Fields[i]
		if f.ID != codec.NameCookie || f.Flags&hpack.BadValue != 0 {
			continue
		}
		b = append(b, sep...)
		b = append(b, b[f.Value:f.ValueEnd]...)
		sep = "; "
	}
	joined.ValueEnd = uint32(len(b))
	c.list.Buf = append(b, "\r\n"...)
	return joined, true
}

// trailers ends a body with a trailer section. Fields that may not trail are
// left out; where no other is there, the body just ends.
func (c *Conn) trailers(s *stream, end bool, sink Sink) error {
	id := s.id
	if !end {
		return c.streamError(id, errTrailerNotLast, sink)
	}
	if s.bodyLeft > 0 {
		return c.streamError(id, errLengthDiffers, sink)
	}
	h := &c.trailer
	h.Reset()
	h.SetBuffer(c.list.Buf)
	var m message
	for i := range c.list.Fields {
		f := &c.list.Fields[i]
		if f.Flags&hpack.Pseudo != 0 {
			return c.streamError(id, errPseudoTrailer, sink)
		}
		keep, e := c.field(f, &m)
		if e != nil {
			return c.streamError(id, e, sink)
		}
		if keep && codec.MayTrail(c.list.Buf[f.Name:f.NameEnd], f.ID) {
			add(h, f)
		}
	}
	if h.Len() == 0 {
		return c.deliver(s, nil, true, sink)
	}
	s.flags |= remoteClosed
	err := sink.Trailer(id, h)
	c.afterLast(id)
	return err
}

// afterLast closes a stream whose end the sink has been told of.
func (c *Conn) afterLast(id uint32) {
	if s := c.streams.find(id); s != nil && s.is(remoteClosed) && s.is(localClosed) {
		c.complete(s)
	}
}
