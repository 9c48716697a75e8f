// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// RequestDecoder reads the requests of one downstream connection. It stops at
// the end of each message: what is pipelined behind it stays with the caller
// until NextMessage.
type RequestDecoder struct {
	decoder
	blank uint8 // empty lines before this request line
}

// NewRequestDecoder returns a decoder that waits for a request.
func NewRequestDecoder(l Limits) RequestDecoder {
	return RequestDecoder{decoder: decoder{lim: l.compact()}}
}

// Decode reads what it can of in, calls sink for each event, and returns how
// many bytes it is done with. The caller keeps the others and presents them
// again, with more behind them. h is scratch: Decode fills it with spans of in
// and passes it to sink, where it is valid until the callback returns.
//
// The error is an *Error, after which no event comes any more and the
// connection must be closed, or what sink returned. In the latter case consumed
// includes the event, and Decode may be called again.
func (d *RequestDecoder) Decode(in []byte, h *codec.RequestHead, sink codec.Sink) (consumed int, err error) {
	n := 0
	switch d.state {
	case stateFailed:
		return 0, d.err
	case stateHead:
		var e *Error
		n, e = d.head(in, h)
		if e != nil {
			return n, d.fail(e)
		}
		if d.headSize == 0 {
			return n, nil
		}
		if err := sink.RequestHead(0, h, d.begin(h.BodyLength)); err != nil {
			return n, err
		}
	}
	m, err := d.content(in[n:], &h.Header, sink)
	return n + m, err
}

// NextMessage makes the decoder ready for the next request. It has an effect
// only at the end of a message.
func (d *RequestDecoder) NextMessage() {
	if d.state == stateDone {
		d.state = stateHead
		d.seen, d.headSize, d.blank = 0, 0, 0
	}
}

// Idle reports whether the decoder is between messages and has seen nothing of
// the next one but empty lines.
func (d *RequestDecoder) Idle() bool { return d.state == stateHead && d.seen == 0 }

// Head reports whether a part of a head has come in, and the rest is awaited.
func (d *RequestDecoder) Head() bool { return d.state == stateHead && d.seen > 0 }

// Done reports whether the message is complete: NextMessage comes next.
func (d *RequestDecoder) Done() bool { return d.state == stateDone }

// StartTunnel makes all bytes from here on Data that never ends: after the
// message that asked for a tunnel is complete, and the tunnel was granted.
func (d *RequestDecoder) StartTunnel() {
	if d.state == stateDone {
		d.state = stateTunnel
	}
}

// EOF says that the peer sends nothing more. It returns nil where that is in
// order, ErrTruncated within a message, and the error of a message refused.
func (d *RequestDecoder) EOF(sink codec.Sink) error {
	switch d.state {
	case stateDone:
		return nil
	case stateTunnel:
		d.state = stateDone
		return sink.Data(0, nil, true)
	case stateFailed:
		return d.err
	case stateHead:
		if d.seen == 0 {
			return nil
		}
	}
	return d.fail(ErrTruncated)
}

// head reads blank lines and a head. headSize stays 0 while it is incomplete.
func (d *RequestDecoder) head(in []byte, h *codec.RequestHead) (n int, e *Error) {
	for len(in)-n >= 2 && in[n] == '\r' && in[n+1] == '\n' {
		if d.blank++; d.blank > maxBlankLines {
			return n, errBlankLines
		}
		n += 2
	}
	section := in[n:]
	if len(section) > int(d.lim.head) {
		section = section[:d.lim.head]
	}
	if len(section) == 0 {
		return n, nil
	}
	if d.waiting(section) {
		return n, d.tooLong(section)
	}
	end, e := d.parse(section, h)
	if e != nil {
		return n, e
	}
	if end == 0 {
		d.wait(section)
		return n, d.tooLong(section)
	}
	d.headSize = uint32(end)
	return n + end, nil
}

// tooLong is why an incomplete head can not become a good one.
func (d *RequestDecoder) tooLong(section []byte) *Error {
	if e := lineTooLong(section, int(d.lim.target)); e != nil {
		return e
	}
	if len(section) == int(d.lim.head) {
		return errHeadBytes
	}
	return nil
}

// lineTooLong judges the length of method and target in what there is of a
// request line. It is cheap until the target can be too long at all, because it
// runs for each piece of a head that comes in slowly.
func lineTooLong(section []byte, maxTarget int) *Error {
	start := section[:min(len(section), maxMethodBytes+1)]
	start = start[:codec.IndexControl(start, 0)]
	space := bytes.IndexByte(start, ' ')
	switch {
	case space < 0 && len(start) <= maxMethodBytes:
		return nil
	case space < 0 && codec.ValidName(start):
		return errMethodLong
	case space < 0:
		return errMethod
	case len(section) <= maxTarget:
		return nil
	}
	target := section[space+1 : min(len(section), space+1+maxTarget+1)]
	target = target[:codec.IndexControl(target, 0)]
	if len(target) <= maxTarget || bytes.IndexByte(target, ' ') >= 0 {
		return nil
	}
	return errTargetBytes
}

// parse reads a whole head. It returns its size, or 0 if it is incomplete.
func (d *RequestDecoder) parse(in []byte, h *codec.RequestHead) (int, *Error) {
	h.Reset()
	h.SetBuffer(in)
	pos, e := d.requestLine(in, h)
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

var (
	version10 = []byte("HTTP/1.0\r\n")
	version11 = []byte("HTTP/1.1\r\n")
)

// requestLine reads "method SP target SP version CRLF" (RFC 9112 §3). What does
// not go straight through is looked at again for the proper error.
func (d *RequestDecoder) requestLine(in []byte, h *codec.RequestHead) (int, *Error) {
	i := 0
	for i < len(in) && codec.IsToken(in[i]) {
		i++
	}
	target := i + 1
	if i == 0 || i > maxMethodBytes || target >= len(in) || in[i] != ' ' {
		return 0, d.requestLineError(in)
	}
	end := codec.IndexNotTarget(in, target)
	pos := end + 1 + len(version11)
	if end == target || end-target > int(d.lim.target) || pos > len(in) || in[end] != ' ' {
		return 0, d.requestLineError(in)
	}
	switch string(in[end+1 : pos]) {
	case string(version11):
		h.Protocol = codec.HTTP11
	case string(version10):
		h.Protocol = codec.HTTP10
	default:
		return 0, d.requestLineError(in)
	}
	h.SetMethodSpan(0, i)
	if in[target] == '/' && h.Method != codec.MethodConnect {
		h.SetPathSpan(target, end)
		return pos, nil
	}
	return pos, otherForm(in, target, end, h)
}

// requestLineError is what is wrong with a request line, nil if it is only
// incomplete. What can be told first by position counts.
func (d *RequestDecoder) requestLineError(in []byte) *Error {
	if e := lineTooLong(in, int(d.lim.target)); e != nil {
		return e
	}
	return lineError(in, 0, classifyRequestLine(in[:codec.IndexControl(in, 0)]))
}

func classifyRequestLine(line []byte) *Error {
	method, rest, ok := bytes.Cut(line, []byte{' '})
	switch {
	case len(method) == 0 || !ok && codec.ValidName(method):
		return errRequestLine
	case !codec.ValidName(method):
		return errMethod
	}
	target, version, ok := bytes.Cut(rest, []byte{' '})
	switch {
	case !ok || len(target) == 0:
		return errRequestLine
	case bytes.IndexByte(target, '#') >= 0:
		return errFragment
	case !codec.ValidTarget(target):
		return errTarget
	case !isVersion(version):
		return errRequestLine
	case string(method) == "PRI" && string(target) == "*" && string(version) == "HTTP/2.0":
		return ErrHTTP2Preface
	}
	return errVersion
}

// isVersion reports whether v has the form of an HTTP version (RFC 9112 §2.3).
func isVersion(v []byte) bool {
	return len(v) == 8 && string(v[:5]) == "HTTP/" && isDigit(v[5]) && v[6] == '.' && isDigit(v[7])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// judge applies the rules of RFC 9112 §3.2 and §6 to a head that was read.
func (d *RequestDecoder) judge(in []byte, h *codec.RequestHead, f *facts) *Error {
	if e := judgeHost(in, h, f); e != nil {
		return e
	}
	if f.lengths > 1 {
		return errLengthRepeated
	}
	length, e := f.framed(in, h.Protocol)
	if e != nil {
		return e
	}
	if length == noFraming {
		length = codec.BodyNone
	}
	if length != codec.BodyNone && (h.Method == codec.MethodConnect || h.Method == codec.MethodTrace) {
		return errBodyDisallowed
	}
	if d.lim.body > 0 && length > d.lim.body {
		return errBodyBytes
	}
	h.BodyLength = length
	h.KeepAlive = f.keepsAlive(h.Protocol)
	h.TETrailers = f.teTrailers
	if h.Protocol == codec.HTTP11 {
		if f.expectOther {
			return errExpect
		}
		// Without a body there is nothing to continue (RFC 9110 §10.1.1).
		h.ExpectContinue = f.expectContinue && length != codec.BodyNone
	}
	if up, ok := f.upgradeTo(in, h.Protocol); ok && h.Method != codec.MethodConnect {
		h.Upgrade = true
		h.SetUpgradeSpan(up.off, up.end)
	}
	f.finish(&h.Header, length == codec.BodyChunked)
	if h.Form == codec.AbsoluteForm {
		normaliseAbsolute(h)
	}
	return nil
}
