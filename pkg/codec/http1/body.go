// SPDX-License-Identifier: Apache-2.0

package http1

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// content reads the body. h is scratch for a trailer section.
func (d *decoder) content(in []byte, h *codec.Header, sink codec.Sink) (n int, err error) {
	for n < len(in) {
		switch d.state {
		case stateLength:
			m := int(min(d.left, int64(len(in)-n)))
			if d.left -= int64(m); d.left == 0 {
				d.state = stateDone
			}
			n += m
			if err := sink.Data(0, in[n-m:n], d.left == 0); err != nil {
				return n, err
			}
		case stateToClose, stateTunnel:
			return len(in), sink.Data(0, in[n:], false)
		case stateChunkData:
			chunk, size := d.chunk(in[n:])
			n += size
			if err := sink.Data(0, chunk, d.state == stateDone); err != nil {
				return n, err
			}
		case stateTrailer:
			m, err := d.trailer(in[n:], h, sink)
			n += m
			if err != nil || d.state == stateTrailer {
				return n, err
			}
		case stateFailed:
			return n, d.err
		case stateHead, stateIdle, stateDone:
			return n, nil
		default:
			m, e := d.chunkLine(in[n:])
			n += m
			if e != nil {
				return n, d.fail(e)
			}
		}
	}
	return n, nil
}

// chunk takes what there is of the chunk's data. Where the whole rest of the
// message lies behind it, that goes with it, so that the end of the body comes
// with its last bytes.
func (d *decoder) chunk(in []byte) (data []byte, size int) {
	const end = "\r\n0\r\n\r\n"
	if int64(len(in)) < d.left {
		d.left -= int64(len(in))
		return in, len(in)
	}
	size = int(d.left)
	data = in[:size]
	d.left = 0
	d.state = stateChunkDataCR
	if len(in) >= size+len(end) && string(in[size:size+len(end)]) == end {
		d.state = stateDone
		size += len(end)
	}
	return data, size
}

// unhex is the value of a hexadecimal digit, or 255.
var unhex = buildUnhex()

func buildUnhex() (t [256]uint8) {
	for i := range t {
		t[i] = 255
	}
	for i := range 10 {
		t['0'+i] = uint8(i)
	}
	for i := range 6 {
		t['a'+i] = uint8(10 + i)
		t['A'+i] = uint8(10 + i)
	}
	return t
}

const maxChunkDigits = 16

// chunkLine reads on in what surrounds the data of a chunk (RFC 9112 §7.1).
// White space, which the RFC tolerates before an extension, is refused.
func (d *decoder) chunkLine(in []byte) (n int, e *Error) {
	for n < len(in) {
		c := in[n]
		switch d.state {
		case stateChunkSize:
			if e := d.chunkSize(c); e != nil {
				return n, e
			}
			n++
		case stateChunkExt:
			m, e := d.skipExt(in[n:])
			if n += m; e != nil {
				return n, e
			}
		case stateChunkSizeLF:
			if c != '\n' {
				return n, errBareCR
			}
			n++
			d.digits = 0
			if d.left == 0 {
				d.state = stateTrailer
				return n, nil
			}
			if d.body += d.left; d.body < 0 || d.lim.body > 0 && d.body > d.lim.body {
				return n, errBodyBytes
			}
			d.state = stateChunkData
			return n, nil
		case stateChunkDataCR:
			if c != '\r' {
				return n, errChunkEnd
			}
			n++
			d.state = stateChunkDataLF
		default: // stateChunkDataLF
			if c != '\n' {
				return n, errChunkEnd
			}
			n++
			d.state = stateChunkSize
		}
	}
	return n, nil
}

// chunkSize takes one byte of 1*HEXDIG and what ends it.
func (d *decoder) chunkSize(c byte) *Error {
	v := unhex[c]
	switch {
	case v < 16:
		if d.digits == maxChunkDigits || d.left >= 1<<59 {
			return errChunkOverflow
		}
		d.left = d.left<<4 | int64(v)
		d.digits++
	case c == '\n':
		return errBareLF
	case d.digits == 0:
		return errChunkSize
	case c == ';':
		d.chunkExt++
		d.state = stateChunkExt
	case c == '\r':
		d.state = stateChunkSizeLF
	default:
		return errChunkSize
	}
	return nil
}

// skipExt passes over a chunk extension. Its content has no meaning here; its
// length counts over the whole body.
func (d *decoder) skipExt(in []byte) (int, *Error) {
	i := codec.IndexControl(in, 0)
	if d.chunkExt += uint32(min(i, 1<<30)); d.chunkExt > d.lim.chunkExt {
		return 0, errChunkExtBytes
	}
	if i == len(in) {
		return i, nil
	}
	switch in[i] {
	case '\r':
		d.state = stateChunkSizeLF
		return i + 1, nil
	case '\n':
		return i, errBareLF
	}
	return i, errChunkExt
}

// trailer reads the trailer section and ends the message. Fields that may not
// trail are left out; where no other is there, the body just ends.
func (d *decoder) trailer(in []byte, h *codec.Header, sink codec.Sink) (n int, err error) {
	limit := d.trailerLimit()
	section := in[:min(len(in), limit)]
	end := 0
	if !d.waiting(section) {
		var e *Error
		h.Reset()
		h.SetBuffer(section)
		if end, e = parseFields(section, 0, h, &d.lim, nil); e != nil {
			return 0, d.fail(e)
		}
		if end == 0 {
			d.wait(section)
		}
	}
	if end == 0 {
		if len(section) == limit {
			return 0, d.fail(errTrailerBytes)
		}
		return 0, nil
	}
	d.state = stateDone
	if h.Len() == 0 {
		return end, sink.Data(0, nil, true)
	}
	h.TrimBuffer(end)
	return end, sink.Trailer(0, h)
}

func (d *decoder) trailerLimit() int {
	if d.lim.trailer > 0 {
		return int(d.lim.trailer)
	}
	return int(max(d.lim.head-d.headSize, minTrailerBytes))
}
