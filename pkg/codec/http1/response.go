// SPDX-License-Identifier: Apache-2.0

package http1

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// ResponseDecoder reads the responses of one upstream connection, one for each
// Expect. It trusts the peer no more than a RequestDecoder does.
type ResponseDecoder struct {
	decoder
	method        codec.Method // of the request that is answered
	upgrade       bool         // the request offered an upgrade
	informational uint8
	keepAlive     bool
	excess        bool // bytes came behind the message
}

// NewResponseDecoder returns a decoder that expects no response yet.
func NewResponseDecoder(l Limits) ResponseDecoder {
	l.BodyBytes = 0
	return ResponseDecoder{decoder: decoder{lim: l.compact(), state: stateIdle}}
}

// Expect says that a request with that method was sent, and that its response
// comes next. Whether a body follows depends on the method (RFC 9112 §6.3).
func (d *ResponseDecoder) Expect(m codec.Method) { d.expect(m, false) }

// ExpectUpgrade is Expect for a request that offered an upgrade: only after it
// 101 is taken.
func (d *ResponseDecoder) ExpectUpgrade(m codec.Method) { d.expect(m, true) }

func (d *ResponseDecoder) expect(m codec.Method, upgrade bool) {
	if d.state != stateDone && d.state != stateIdle {
		return
	}
	d.method, d.upgrade = m, upgrade
	d.state = stateHead
	d.seen, d.headSize = 0, 0
	d.informational = 0
}

// Decode is like RequestDecoder.Decode. Bytes that answer no request are
// ErrUnexpectedBytes: on a connection in a pool they would answer the next one.
func (d *ResponseDecoder) Decode(in []byte, h *codec.ResponseHead, sink codec.Sink) (consumed int, err error) {
	if d.state == stateDone || d.state == stateIdle {
		if len(in) > 0 {
			return 0, d.fail(ErrUnexpectedBytes)
		}
		return 0, nil
	}
	n, err := d.decode(in, h, sink)
	d.excess = d.state == stateDone && n < len(in)
	return n, err
}

func (d *ResponseDecoder) decode(in []byte, h *codec.ResponseHead, sink codec.Sink) (n int, err error) {
	for d.state == stateHead {
		m, e := d.head(in[n:], h)
		if e != nil {
			return n, d.fail(upstream(e))
		}
		if m == 0 {
			return n, nil
		}
		n += m
		if err := d.dispatch(h, sink); err != nil {
			return n, err
		}
	}
	if d.state == stateSwitched {
		d.state = stateTunnel
		if err := sink.Tunnel(0); err != nil {
			return n, err
		}
	}
	m, err := d.content(in[n:], &h.Header, sink)
	if d.state == stateFailed {
		d.err = upstream(d.err)
		err = d.err
	}
	return n + m, err
}

// dispatch hands a head on and enters what follows it.
func (d *ResponseDecoder) dispatch(h *codec.ResponseHead, sink codec.Sink) error {
	switch {
	case h.Status == 101 || d.method == codec.MethodConnect && h.Status >= 200 && h.Status < 300:
		d.keepAlive = false
		d.state = stateSwitched
		return sink.ResponseHead(0, h, true)
	case h.Status < 200:
		d.seen, d.headSize = 0, 0
		if d.informational++; d.informational > maxInformational {
			return d.fail(errInformational)
		}
		return sink.Informational(0, h)
	}
	d.keepAlive = h.KeepAlive && h.BodyLength != codec.BodyToClose
	length := h.BodyLength
	if h.NoBody {
		length = codec.BodyNone
	}
	return sink.ResponseHead(0, h, d.begin(length))
}

// EOF says that the peer sends nothing more. It ends a body that ends with its
// connection, and a tunnel. It returns nil where no response was due,
// ErrClosedIdle before the first byte of one, ErrTruncated within one.
func (d *ResponseDecoder) EOF(sink codec.Sink) error {
	switch d.state {
	case stateIdle, stateDone:
		d.keepAlive = false
		return nil
	case stateToClose, stateSwitched, stateTunnel:
		d.state = stateDone
		return sink.Data(0, nil, true)
	case stateFailed:
		return d.err
	case stateHead:
		if d.seen == 0 && d.informational == 0 {
			return d.fail(ErrClosedIdle)
		}
	}
	return d.fail(ErrTruncated)
}

// Reusable reports whether the connection may carry another request: the
// response is complete, its end was framed, the peer keeps the connection, and
// sent nothing behind it.
func (d *ResponseDecoder) Reusable() bool {
	return d.state == stateDone && d.keepAlive && !d.excess
}

// Started reports whether a byte of the response expected has come in.
func (d *ResponseDecoder) Started() bool {
	return d.state != stateIdle && (d.state != stateHead || d.seen > 0 || d.informational > 0)
}

// Done reports whether the response is complete.
func (d *ResponseDecoder) Done() bool { return d.state == stateDone }

// head reads a head and returns its size, 0 if it is incomplete.
func (d *ResponseDecoder) head(in []byte, h *codec.ResponseHead) (int, *Error) {
	section := in[:min(len(in), int(d.lim.head))]
	if len(section) == 0 {
		return 0, nil
	}
	end := 0
	if !d.waiting(section) {
		var e *Error
		if end, e = d.parse(section, h); e != nil {
			return 0, e
		}
		if end == 0 {
			d.wait(section)
		}
	}
	if end == 0 && len(section) == int(d.lim.head) {
		return 0, errHeadBytes
	}
	d.headSize = uint32(end)
	return end, nil
}

func (d *ResponseDecoder) parse(in []byte, h *codec.ResponseHead) (int, *Error) {
	h.Reset()
	h.SetBuffer(in)
	pos, e := statusLine(in, h)
	if e != nil || pos == 0 {
		return 0, e
	}
	var f facts
	end, e := parseFields(in, pos, &h.Header, &d.lim, &f)
	if e != nil || end == 0 {
		return 0, e
	}
	h.TrimBuffer(end)
	if e := d.judge(in, h, &f); e != nil {
		return 0, e
	}
	return end, nil
}

// statusLine reads "version SP 3DIGIT [SP reason] CRLF" (RFC 9112 §4). The
// space before an empty reason is often missing, and is not missed.
func statusLine(in []byte, h *codec.ResponseHead) (int, *Error) {
	const code, reason = 9, 13
	end := codec.IndexControl(in, 0)
	if end+1 >= len(in) || in[end] != '\r' || in[end+1] != '\n' {
		return 0, lineError(in, end, nil)
	}
	if end < reason-1 || in[8] != ' ' {
		return 0, errStatusLine
	}
	switch string(in[:8]) {
	case "HTTP/1.1":
		h.Protocol = codec.HTTP11
	case "HTTP/1.0":
		h.Protocol = codec.HTTP10
	default:
		if isVersion(in[:8]) {
			return 0, errVersion
		}
		return 0, errStatusLine
	}
	a, b, c := in[code]-'0', in[code+1]-'0', in[code+2]-'0'
	if a == 0 || a > 9 || b > 9 || c > 9 {
		return 0, errStatus
	}
	h.Status = int(a)*100 + int(b)*10 + int(c)
	if end >= reason {
		if in[reason-1] != ' ' {
			return 0, errStatusLine
		}
		h.SetReasonSpan(reason, end)
	}
	return end + 2, nil
}

// judge applies the rules of RFC 9112 §6.3 to a head that was read.
func (d *ResponseDecoder) judge(in []byte, h *codec.ResponseHead, f *facts) *Error {
	length, e := f.framed(in, h.Protocol)
	if e != nil {
		return e
	}
	h.KeepAlive = f.keepsAlive(h.Protocol)
	up, upgraded := f.upgradeTo(in, h.Protocol)
	if f.upgrades == 1 {
		h.SetUpgradeSpan(f.upgrade.off, f.upgrade.end)
	}
	h.BodyLength = length
	if length == noFraming {
		h.BodyLength = codec.BodyToClose
	}
	switch {
	case h.Status < 200:
		h.BodyLength = codec.BodyNone
		if length != noFraming && length != 0 {
			return errInformationalLen
		}
		if h.Status == 101 {
			if !d.upgrade || !upgraded {
				return errSwitch
			}
			h.SetUpgradeSpan(up.off, up.end)
		}
	case d.method == codec.MethodConnect && h.Status < 300:
		// Framing fields mean nothing here (RFC 9110 §9.3.6).
		h.NoBody, h.BodyLength = true, codec.BodyChunked
	case h.Status == 204:
		// A body that is announced all the same may follow: not to be taken for
		// the next response.
		h.KeepAlive = h.KeepAlive && (length == noFraming || length == 0)
		h.BodyLength = codec.BodyNone
	case h.Status == 304 || d.method == codec.MethodHead:
		h.NoBody = true
		if length == noFraming {
			h.BodyLength = codec.BodyChunked
		}
	}
	f.finish(&h.Header, length == codec.BodyChunked)
	return nil
}
