// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/hpack"
)

// request makes a request of the list, and hands it on.
func (c *Conn) request(s *stream, end bool, sink Sink) error {
	id := s.id
	h := &c.req
	h.Reset()
	if e := c.parseRequest(h, end); e != nil {
		return c.streamError(id, e, sink)
	}
	s.flags |= headSeen
	if h.Method == codec.MethodHead {
		s.flags |= isHead
	}
	if h.Method == codec.MethodConnect {
		s.flags |= isConnect
	}
	if h.BodyLength >= 0 {
		s.bodyLeft = h.BodyLength
	}
	if end {
		s.flags |= remoteClosed
	}
	err := sink.RequestHead(id, h, end)
	if end {
		c.afterLast(id)
	}
	return err
}

// pseudo are the pseudo-headers of a request: which were there, and where.
type pseudo struct {
	method, scheme, authority, path, protocol hpack.Field
	seen                                      uint8
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
)

func (c *Conn) parseRequest(h *codec.RequestHead, end bool) *Error {
	joined, hasJoined := c.joinCookies()
	buf := c.list.Buf
	h.SetBuffer(buf)
	m := message{length: lengthUnknown}
	var p pseudo
	for i := range c.list.Fields {
		f := &c.list.Fields[i]
		if f.Flags&hpack.Pseudo != 0 {
			if m.lastSeen {
				return errPseudoOrder
			}
			if e := c.pseudoField(&p, f); e != nil {
				return e
			}
			continue
		}
		m.lastSeen = true
		keep, e := c.field(f, &m)
		switch {
		case e != nil:
			return e
		case !keep:
		case f.ID == codec.NameCookie && hasJoined:
			if m.cookies == 1 {
				add(&h.Header, &joined)
			}
		default:
			add(&h.Header, f)
		}
	}
	if e := c.target(h, &p); e != nil {
		return e
	}
	if e := c.authority(h, &p, &m); e != nil {
		return e
	}
	h.Protocol, h.KeepAlive, h.TETrailers = codec.HTTP2, true, m.te
	if e := requestLength(h, &m, end); e != nil {
		return e
	}
	h.ExpectContinue = m.expect && !end
	return nil
}

func (c *Conn) pseudoField(p *pseudo, f *hpack.Field) *Error {
	bit, at := uint8(0), (*hpack.Field)(nil)
	switch string(c.list.Buf[f.Name:f.NameEnd]) {
	case ":method":
		bit, at = seenMethod, &p.method
	case ":scheme":
		bit, at = seenScheme, &p.scheme
	case ":authority":
		bit, at = seenAuthority, &p.authority
	case ":path":
		bit, at = seenPath, &p.path
	case ":protocol":
		if !c.lim.AllowConnect {
			return errPseudoUnknown
		}
		bit, at = seenProtocol, &p.protocol
	default:
		return errPseudoUnknown
	}
	if p.seen&bit != 0 {
		return errPseudoRepeated
	}
	if f.Flags&hpack.BadValue != 0 {
		return errValue
	}
	p.seen |= bit
	*at = *f
	return nil
}

// target applies RFC 9113 §8.3.1 and §8.5 to method, scheme and path.
func (c *Conn) target(h *codec.RequestHead, p *pseudo) *Error {
	buf := c.list.Buf
	if p.seen&seenMethod == 0 {
		return errPseudoMissing
	}
	method := buf[p.method.Value:p.method.ValueEnd]
	if len(method) > maxMethodBytes || !codec.ValidName(method) {
		return errMethod
	}
	h.SetMethodSpan(int(p.method.Value), int(p.method.ValueEnd))
	switch {
	case h.Method == codec.MethodConnect && p.seen&seenProtocol == 0:
		if p.seen&(seenScheme|seenPath) != 0 || p.seen&seenAuthority == 0 {
			return errPseudoConnect
		}
		h.Form = codec.AuthorityForm
		return nil
	case h.Method != codec.MethodConnect && p.seen&seenProtocol != 0:
		return errPseudoConnect
	case p.seen&(seenScheme|seenPath) != seenScheme|seenPath:
		return errPseudoMissing
	}
	if p.seen&seenProtocol != 0 {
		if !codec.ValidName(buf[p.protocol.Value:p.protocol.ValueEnd]) {
			return errPseudoConnect
		}
		h.Upgrade = true
		h.SetUpgradeSpan(int(p.protocol.Value), int(p.protocol.ValueEnd))
	}
	path := buf[p.path.Value:p.path.ValueEnd]
	switch {
	case len(path) > maxTargetBytes:
		return errTargetBytes
	case !codec.ValidTarget(path):
		return errPath
	case len(path) == 1 && path[0] == '*' && h.Method == codec.MethodOptions:
		h.Form = codec.AsteriskForm
	case path[0] != '/':
		return errPath
	}
	h.SetPathSpan(int(p.path.Value), int(p.path.ValueEnd))
	switch scheme := buf[p.scheme.Value:p.scheme.ValueEnd]; {
	case string(scheme) == "http", string(scheme) == "https":
		h.SetSchemeSpan(int(p.scheme.Value), int(p.scheme.ValueEnd))
	default:
		return errScheme // other cases of the letters included: nobody sends them
	}
	return nil
}

// authority demands one authority: of ":authority", of Host, or of both if they
// name the same, because a backend may believe either.
func (c *Conn) authority(h *codec.RequestHead, p *pseudo, m *message) *Error {
	buf := c.list.Buf
	if m.hosts > 1 {
		return errHostRepeated
	}
	f := p.authority
	switch {
	case p.seen&seenAuthority == 0 && m.hosts == 0:
		return errPseudoMissing
	case p.seen&seenAuthority == 0:
		f = m.host
	}
	value := buf[f.Value:f.ValueEnd]
	if !codec.ValidAuthority(value) {
		return errAuthority
	}
	if h.Form == codec.AuthorityForm {
		if _, _, hasPort := codec.SplitPort(value); !hasPort {
			return errAuthority
		}
	}
	if m.hosts == 1 && p.seen&seenAuthority != 0 {
		port := "80"
		if len(h.Scheme()) == len("https") {
			port = "443"
		}
		if !sameAuthority(value, buf[m.host.Value:m.host.ValueEnd], port) {
			return errHostDiffers
		}
	}
	h.SetAuthoritySpan(int(f.Value), int(f.ValueEnd))
	return nil
}

// sameAuthority compares without case, and takes a missing port for defaultPort.
func sameAuthority(a, b []byte, defaultPort string) bool {
	hostA, portA, hasA := codec.SplitPort(a)
	hostB, portB, hasB := codec.SplitPort(b)
	if len(hostA) != len(hostB) {
		return false
	}
	for i := range hostA {
		if lower(hostA[i]) != lower(hostB[i]) {
			return false
		}
	}
	switch {
	case hasA == hasB:
		return bytes.Equal(portA, portB)
	case hasA:
		return string(portA) == defaultPort
	}
	return string(portB) == defaultPort
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// requestLength is the body of a request (RFC 9113 §8.1.1).
func requestLength(h *codec.RequestHead, m *message, end bool) *Error {
	switch {
	case h.Method == codec.MethodConnect && m.lengths > 0:
		return errBodyDisallowed
	case end:
		if m.length > 0 {
			return errLengthDiffers
		}
		h.BodyLength = codec.BodyNone
	case h.Method == codec.MethodTrace:
		return errBodyDisallowed
	case m.lengths > 0:
		h.BodyLength = m.length
	default:
		h.BodyLength = codec.BodyChunked
	}
	return nil
}

// response makes a response of the list, and hands it on.
func (c *Conn) response(s *stream, end bool, sink Sink) error {
	id := s.id
	h := &c.resp
	h.Reset()
	if e := c.parseResponse(h, s, end); e != nil {
		return c.streamError(id, e, sink)
	}
	if h.Status < 200 {
		if s.info++; s.info > maxInformational {
			return c.streamError(id, errInformational, sink)
		}
		return sink.Informational(id, h)
	}
	s.flags |= headSeen
	if h.NoBody || h.Status == 204 {
		s.flags |= noBody
	} else if h.BodyLength >= 0 {
		s.bodyLeft = h.BodyLength
	}
	if end {
		s.flags |= remoteClosed
	}
	err := sink.ResponseHead(id, h, end)
	if end {
		c.afterLast(id)
	}
	return err
}

func (c *Conn) parseResponse(h *codec.ResponseHead, s *stream, end bool) *Error {
	joined, hasJoined := c.joinCookies()
	h.SetBuffer(c.list.Buf)
	m := message{length: lengthUnknown}
	for i := range c.list.Fields {
		f := &c.list.Fields[i]
		if f.Flags&hpack.Pseudo != 0 {
			if e := c.status(h, f, &m); e != nil {
				return e
			}
			continue
		}
		m.lastSeen = true
		keep, e := c.field(f, &m)
		switch {
		case e != nil:
			return e
		case !keep:
		case f.ID == codec.NameCookie && hasJoined:
			if m.cookies == 1 {
				add(&h.Header, &joined)
			}
		default:
			add(&h.Header, f)
		}
	}
	if h.Status == 0 {
		return errPseudoMissing
	}
	h.Protocol, h.KeepAlive = codec.HTTP2, true
	return responseLength(h, s, &m, end)
}

func (c *Conn) status(h *codec.ResponseHead, f *hpack.Field, m *message) *Error {
	v := c.list.Buf[f.Value:f.ValueEnd]
	switch {
	case m.lastSeen:
		return errPseudoOrder
	case string(c.list.Buf[f.Name:f.NameEnd]) != ":status":
		return errPseudoUnknown
	case h.Status != 0:
		return errPseudoRepeated
	case len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9':
		return errStatus
	}
	h.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	return nil
}

// responseLength is the body of a response (RFC 9113 §8.1, RFC 9110 §6.4.1).
func responseLength(h *codec.ResponseHead, s *stream, m *message, end bool) *Error {
	switch {
	case h.Status == 101:
		return errSwitch
	case h.Status < 200:
		h.BodyLength = codec.BodyNone
		if end {
			return errInformationEnds
		}
		if m.length > 0 {
			return errBodyDisallowed
		}
	case s.is(isConnect) && h.Status < 300:
		h.BodyLength = codec.BodyChunked // a tunnel; a length means nothing here
	case h.Status == 204:
		h.BodyLength = codec.BodyNone
	case h.Status == 304 || s.is(isHead):
		h.NoBody = true
		h.BodyLength = codec.BodyChunked
		if m.lengths > 0 {
			h.BodyLength = m.length
		}
	case end:
		if m.length > 0 {
			return errLengthDiffers
		}
		h.BodyLength = codec.BodyNone
	case m.lengths > 0:
		h.BodyLength = m.length
	default:
		h.BodyLength = codec.BodyChunked
	}
	return nil
}
