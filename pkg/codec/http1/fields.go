// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// span is a piece of a head.
type span struct{ off, end int }

func (s span) of(b []byte) []byte { return b[s.off:s.end] }

// facts are the fields of a head that are not end-to-end: what the parser takes
// from the list, for the framing and connection rules to judge.
type facts struct {
	host, length, coding, upgrade span
	// How often each was there.
	hosts, lengths, codings, upgrades int

	close, keepAlive, upgradeOption bool // options of Connection
	nominations                     int  // other options of Connection
	teTrailers                      bool
	expectContinue, expectOther     bool
	trailerField                    bool
}

// hopByHop are the known names that facts are made of.
var hopByHop = [256]bool{
	codec.NameConnection:       true,
	codec.NameContentLength:    true,
	codec.NameExpect:           true,
	codec.NameHost:             true,
	codec.NameHTTP2Settings:    true,
	codec.NameKeepAlive:        true,
	codec.NameProxyConnection:  true,
	codec.NameTE:               true,
	codec.NameTrailer:          true,
	codec.NameTransferEncoding: true,
	codec.NameUpgrade:          true,
}

// parseFields reads field lines from pos up to the empty line and returns the
// position behind that, or 0 if it has not come in. End-to-end fields go to h,
// the others to f. In a trailer section f is nil, and what must not trail is
// left out.
//
// A wrong line is an error once it is complete, and a control byte as soon as it
// is there: so the error is the same however the bytes are cut.
func parseFields(in []byte, pos int, h *codec.Header, lim *limits, f *facts) (end int, err *Error) {
	count := lim.count
	for {
		line := pos
		if pos+1 >= len(in) {
			return 0, lineError(in, line, nil)
		}
		if in[pos] == '\r' {
			if in[pos+1] != '\n' {
				return 0, errBareCR
			}
			return pos + 2, nil
		}
		for pos < len(in) && codec.IsToken(in[pos]) {
			pos++
		}
		nameEnd := pos
		if pos == len(in) || in[pos] != ':' || pos == line || count == 0 {
			return 0, fieldError(in, line, count)
		}
		count--
		pos++
		for pos < len(in) && (in[pos] == ' ' || in[pos] == '\t') {
			pos++
		}
		value := pos
		pos = codec.IndexControl(in, pos)
		if pos+1 >= len(in) || in[pos] != '\r' || in[pos+1] != '\n' {
			return 0, lineError(in, pos, nil)
		}
		valueEnd := pos
		for valueEnd > value && (in[valueEnd-1] == ' ' || in[valueEnd-1] == '\t') {
			valueEnd--
		}
		pos += 2

		id := codec.LookupToken(in[line:nameEnd])
		if id == codec.NameOther && lim.underscores != AllowUnderscores &&
			bytes.IndexByte(in[line:nameEnd], '_') >= 0 {
			if lim.underscores == RejectUnderscores {
				return 0, errUnderscore
			}
			continue
		}
		if f == nil {
			if codec.MayTrail(in[line:nameEnd], id) {
				h.AddSpan(line, nameEnd, value, valueEnd, id)
			}
			continue
		}
		if hopByHop[id] {
			keep, err := f.take(in, span{value, valueEnd}, id)
			if err != nil {
				return 0, err
			}
			if !keep {
				continue
			}
		}
		h.AddSpan(line, nameEnd, value, valueEnd, id)
	}
}

// take notes a field that is not end-to-end. keep: it stays in the list for
// finish to look at again.
func (f *facts) take(in []byte, v span, id codec.Name) (keep bool, err *Error) {
	switch id {
	case codec.NameHost:
		f.host = v
		f.hosts++
	case codec.NameContentLength:
		if f.lengths > 0 && !bytes.Equal(v.of(in), f.length.of(in)) {
			return false, errLengthRepeated
		}
		f.length = v
		f.lengths++
	case codec.NameTransferEncoding:
		f.coding = v
		f.codings++
	case codec.NameUpgrade:
		f.upgrade = v
		f.upgrades++
	case codec.NameTE:
		f.teTrailers = f.teTrailers || wantsTrailers(v.of(in))
	case codec.NameExpect:
		if codec.EqualFold(v.of(in), "100-continue") {
			f.expectContinue = true
		} else {
			f.expectOther = true
		}
	case codec.NameTrailer:
		f.trailerField = true
		return true, nil
	case codec.NameConnection:
		before := f.nominations
		if err := f.connection(v.of(in)); err != nil {
			return false, err
		}
		return f.nominations > before, nil
	}
	return false, nil
}

// connection reads the options of a Connection field.
func (f *facts) connection(v []byte) *Error {
	for option := range options(v) {
		switch {
		case codec.EqualFold(option, "keep-alive"):
			f.keepAlive = true
		case codec.EqualFold(option, "close"):
			f.close = true
		case codec.EqualFold(option, "upgrade"):
			f.upgradeOption = true
		case codec.EqualFold(option, "te"):
		case !codec.ValidName(option):
			return errConnection
		default:
			if f.nominations++; f.nominations > maxNominations {
				return errConnection
			}
		}
	}
	return nil
}

// finish removes what Connection nominates, Connection itself, and Trailer
// where there can be no trailer section.
func (f *facts) finish(h *codec.Header, chunked bool) {
	if f.nominations > 0 {
		removeNominated(h)
		h.RemoveKnown(codec.NameConnection)
	}
	if f.trailerField && !chunked {
		h.RemoveKnown(codec.NameTrailer)
	}
}

// wantsTrailers reports whether TE lists trailers (RFC 9110 §10.1.4).
func wantsTrailers(v []byte) bool {
	for option := range options(v) {
		if codec.EqualFold(option, "trailers") {
			return true
		}
	}
	return false
}

// options yields the members of a list (RFC 9110 §5.6.1), empty ones left out.
func options(v []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(v) > 0 {
			member := v
			if i := bytes.IndexByte(v, ','); i >= 0 {
				member, v = v[:i], v[i+1:]
			} else {
				v = nil
			}
			if member = trimSpace(member); len(member) > 0 && !yield(member) {
				return
			}
		}
	}
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// lineError is what is wrong with the line that holds from, known to be nothing
// worse than e: a control byte comes first; e counts only when the line is
// complete, and nil says that it may still turn out well.
func lineError(in []byte, from int, e *Error) *Error {
	i := codec.IndexControl(in, from)
	switch {
	case i == len(in):
		return nil
	case in[i] == '\n':
		return errBareLF
	case in[i] != '\r':
		return errControl
	case i+1 == len(in):
		return nil
	case in[i+1] != '\n':
		return errBareCR
	}
	return e
}

// fieldError is what is wrong with a field line whose name is.
func fieldError(in []byte, line int, count uint32) *Error {
	if count == 0 {
		return lineError(in, line, errHeadCount)
	}
	text := in[line:codec.IndexControl(in, line)]
	name, _, hasColon := bytes.Cut(text, []byte{':'})
	switch {
	case len(text) > 0 && (text[0] == ' ' || text[0] == '\t'):
		return lineError(in, line, errFold)
	case !hasColon:
		return lineError(in, line, errNoColon)
	case len(name) == 0:
		return lineError(in, line, errNameEmpty)
	case codec.ValidName(trimSpace(name)):
		return lineError(in, line, errNameSpace)
	}
	return lineError(in, line, errName)
}
