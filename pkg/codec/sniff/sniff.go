// SPDX-License-Identifier: Apache-2.0

package sniff

import "bytes"

// Verdict is an answer about the first bytes of a connection.
type Verdict uint8

// The verdicts. All but More are final.
const (
	More   Verdict = iota // may be; needs more bytes
	No                    // is not
	Yes                   // is
	Broken                // begins as a ClientHello, and no TLS server can take it
)

// String is the verdict in lower case.
func (v Verdict) String() string { return [...]string{"more", "no", "yes", "broken"}[v] }

// preface is what a client of HTTP/2 sends first (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// HTTP2 asks whether in begins with HTTP/2's preface.
func HTTP2(in []byte) Verdict {
	n := min(len(in), len(preface))
	switch {
	case string(in[:n]) != preface[:n]:
		return No
	case n < len(preface):
		return More
	}
	return Yes
}

// Bounds of a request line; what is longer is No.
const (
	maxMethod  = 32
	MaxRequest = 16 << 10 // bytes of the line
)

// HTTP1 asks whether in begins with a request line of HTTP/1.x, and which x. Methods
// are upper-case letters, digits and '-', as all registered ones are: other protocols' first
// lines ("220 ready", "EHLO x", "SSH-2.0-…") end otherwise, with what is no version.
func HTTP1(in []byte) (minor int, v Verdict) {
	switch { // one empty line is borne before it: RFC 9112 §2.2
	case len(in) > 0 && in[0] == '\n':
		in = in[1:]
	case len(in) > 1 && in[0] == '\r' && in[1] == '\n':
		in = in[2:]
	case len(in) == 1 && in[0] == '\r':
		return 0, More
	}
	return requestLine(in)
}

func requestLine(in []byte) (minor int, v Verdict) {
	m := 0
	for m < len(in) && m <= maxMethod && method(in[m]) {
		m++
	}
	switch {
	case m > maxMethod:
		return 0, No
	case m == len(in):
		return 0, More
	case m == 0 || in[m] != ' ':
		return 0, No
	}
	rest := in[m+1:]
	end := bytes.IndexByte(rest[:min(len(rest), MaxRequest)], '\n')
	switch {
	case end >= 0:
		return version(rest[:end])
	case len(rest) >= MaxRequest:
		return 0, No
	case !target(rest):
		return 0, No
	}
	return 0, More
}

func method(b byte) bool { return 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' }

// target looks at the first byte of the request target: a path, an asterisk, a
// scheme or an authority begin so.
func target(b []byte) bool {
	return len(b) == 0 || b[0] > ' ' && b[0] < 0x7f
}

// version takes what follows the method in a line that is complete but for its LF.
func version(b []byte) (minor int, v Verdict) {
	b = bytes.TrimSuffix(b, []byte{'\r'})
	const form = " HTTP/1.x"
	n := len(b) - len(form)
	if n < 1 || string(b[n:len(b)-1]) != form[:len(form)-1] || !target(b[:n]) || bytes.IndexByte(b[:n], ' ') >= 0 {
		return 0, No
	}
	switch b[len(b)-1] {
	case '0':
		return 0, Yes
	case '1':
		return 1, Yes
	}
	return 0, No
}
