// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strings"
)

// applyStreams hides what must be hidden of a connection. Nothing says what its bytes
// are, so that they are searched as text, and too much is hidden rather than too little.
func (r *Redactor) applyStreams(rec *Record) {
	if isHTTP2(rec.RequestBody, rec.ResponseBody) {
		// Header fields are compressed (RFC 7541): secret ones cannot be found.
		rec.RequestBody, rec.ResponseBody = nil, nil
		rec.RequestTruncated, rec.ResponseTruncated = true, true
		rec.Redacted++
		return
	}
	rec.RequestBody, rec.RequestTruncated = r.stream(rec.RequestBody, rec.RequestTruncated, &rec.Redacted)
	rec.ResponseBody, rec.ResponseTruncated = r.stream(rec.ResponseBody, rec.ResponseTruncated, &rec.Redacted)
}

// stream hides secrets in the first bytes of one direction. Cut says that they are not
// the whole of it, before and after.
func (r *Redactor) stream(b []byte, cut bool, count *uint32) ([]byte, bool) {
	if at := opaque(b); at < len(b) {
		b, cut = b[:at], true
		*count++
	}
	b = r.hide(b, cut, findNamed(b), count)
	if len(b) > MaxBodyBytes { // what stands for short values is longer
		b, cut = b[:MaxBodyBytes], true
	}
	return b, cut
}

// isHTTP2 reports whether one of the directions is HTTP/2 (RFC 9113 §3.4): the other may
// not have been copied. The preface is looked for everywhere, since a tunnel may have
// been asked for first; frames only where a connection or its tunnel begins.
func isHTTP2(client, server []byte) bool {
	return beginsHTTP2(client) || beginsHTTP2(server)
}

func beginsHTTP2(b []byte) bool {
	const preface = "PRI * HTTP/2.0"
	if bytes.Contains(b, []byte(preface)) {
		return true
	}
	b = behindProxyHeaders(b)
	if n := min(len(b), len(preface)); n > 3 && string(b[:n]) == preface[:n] || isSettings(b) {
		return true
	}
	if h := headEnds.FindIndex(b); h != nil && bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return isSettings(b[h[1]:])
	}
	return false
}

// isSettings reports whether SETTINGS of stream 0, no acknowledgement, is at the front.
func isSettings(b []byte) bool {
	return len(b) >= 9 && b[0] == 0 && binary.BigEndian.Uint16(b[1:])%6 == 0 &&
		b[3] == 4 && b[4] == 0 && binary.BigEndian.Uint32(b[5:]) == 0
}

const (
	proxyV1       = "PROXY "
	proxyV2       = "\r\n\r\n\x00\r\nQUIT\n"
	maxProxyV1    = 107 // bytes of a line
	maxProxyHeads = 4   // one behind another: each proxy on the way may add its own
)

// behindProxyHeaders is what follows the headers of the PROXY protocol at the front, if
// there are any.
func behindProxyHeaders(b []byte) []byte {
	for range maxProxyHeads {
		switch {
		case bytes.HasPrefix(b, []byte(proxyV1)):
			end := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n')
			if end < 0 {
				return b
			}
			b = b[end+1:]
		case bytes.HasPrefix(b, []byte(proxyV2)) && len(b) >= 16:
			b = b[min(len(b), 16+int(binary.BigEndian.Uint16(b[14:]))):]
		default:
			return b
		}
	}
	return b
}

var (
	encoded   = regexp.MustCompile(`(?i)(?:^|\n)(?:content-encoding|transfer-encoding|upgrade)[ \t]*:`)
	headEnds  = regexp.MustCompile(`\n\r?\n`)
	gzipMagic = []byte{0x1f, 0x8b, 8}          // RFC 1952 §2.3.1
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd} // RFC 8878 §3.1.1
)

// opaque is where what cannot be searched begins: compressed data, or the body behind a
// head of HTTP/1 that says it is encoded, or what another protocol's bytes are.
func opaque(b []byte) int {
	end := len(b)
	for _, magic := range [...][]byte{gzipMagic, zstdMagic} {
		if i := bytes.Index(b[:end], magic); i >= 0 {
			end = i
		}
	}
	if m := encoded.FindIndex(b[:end]); m != nil {
		if h := headEnds.FindIndex(b[m[1]:end]); h != nil {
			end = m[1] + h[1]
		}
	}
	return end
}

// findNamed finds what follows a secret name with a colon or an equals sign, up to the
// end of the line and of those that continue it: fields of heads, parameters, members.
// The places are in order and do not overlap.
func findNamed(b []byte) (found [][2]int) {
	at := 0 // the end of the last place
	for i := 0; i < len(b); i++ {
		k := bytes.IndexAny(b[i:], ":=")
		if k < 0 {
			break
		}
		i += k
		end := i + 1
		if endsInSecretName(b[at:i]) {
			end = lineEnd(b, i+1)
		}
		if end > i+1 {
			found = append(found, [2]int{i + 1, end})
			at, i = end, end-1
		}
	}
	return found
}

// maxSecretName is the longest name that is looked at; longer ones are taken for secret.
const maxSecretName = 64

func endsInSecretName(b []byte) bool {
	b = bytes.TrimRight(b, " \t\"'`\\")
	start := len(b)
	for start > 0 && inSecretName(b[start-1]) {
		if start--; len(b)-start > maxSecretName {
			return true
		}
	}
	name := string(b[start:])
	// An escape may be any letter: its rules are those of a language that is not known.
	return strings.Contains(name, `\`) || secretHeaders[strings.ToLower(name)] || isSecretName(unescape(b[start:]))
}

func inSecretName(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte(`_-.%+\[]`, c) >= 0
}

// lineEnd is the end of the line that goes on at i, with the lines that continue it by
// beginning with a space (RFC 9112 §5.2), or of the text (NUL).
func lineEnd(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case 0:
			return i
		case '\r', '\n':
			next := i + 1
			if b[i] == '\r' && next < len(b) && b[next] == '\n' {
				next++
			}
			if next >= len(b) || b[next] != ' ' && b[next] != '\t' {
				return i
			}
			i = next
		}
	}
	return len(b)
}

const (
	// longestSpaced is the longest match of a detector with spaces in it: an account
	// number of 34 characters, each with a space behind it.
	longestSpaced = 34 + 33
	// longestExpression is the longest match of a rule's expression that is held back;
	// longer ones leave their front where a body is cut.
	longestExpression = 1 << 10
)

// holdBack is where the end of bytes that were cut begins that is left out: what a
// pattern of the rule would have found there, had it been whole.
func (r *Redactor) holdBack(b []byte) int {
	if len(r.patterns) == len(alwaysPatterns) {
		return len(b)
	}
	end := max(len(b)-longestSpaced, 0)
	for end > 0 && (inSecretName(b[end-1]) || b[end-1] == '@') {
		end--
	}
	if r.expr {
		from := max(len(b)-longestExpression, 0)
		if !r.lines { // then a match is in one line
			from = max(from, bytes.LastIndexByte(b, '\n')+1)
		}
		end = min(end, from)
	}
	return end
}
