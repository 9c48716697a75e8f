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
	encoded = regexp.MustCompile(`(?i)(?:^|\n)(?:(?:content-encoding|transfer-encoding|upgrade)[ \t]*:` +
		`|content-type[ \t]*:(?:[^\r\n]|\r?\n[ \t])*(?:multipart/|xml))`)
	headEnds  = regexp.MustCompile(`\n\r?\n`)
	gzipMagic = []byte{0x1f, 0x8b, 8}          // RFC 1952 §2.3.1
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd} // RFC 8878 §3.1.1
)

// opaque is where what cannot be searched begins: compressed data, or the body behind a
// head of HTTP/1 that says it is encoded, or XML, or has several parts, or is another
// protocol's.
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

// findNamed finds what follows a secret name and a separator, up to the end of the line
// and of those that continue it: fields of heads, parameters, members, elements. The
// places are in order and do not overlap.
func findNamed(b []byte) (found [][2]int) {
	at := 0 // the end of the last place
	for i := 0; i < len(b); i++ {
		k := bytes.IndexAny(b[i:], ":=>%")
		if k < 0 {
			break
		}
		i += k
		n := separator(b[i:])
		if n == 0 {
			continue
		}
		from := i + n
		tag := lastTag(b[at:i])
		inSecret := tag != nil && isSecretName(tagName(tag))
		switch {
		case b[i] == '>' && tag != nil && tag[0] == '/': // an element's end
			continue
		case !endsInSecretName(b[at:i]) && (b[i] != '>' || !inSecret):
			continue
		case b[i] != '>' && inSecret: // an attribute, and the element's value behind it
			from += bytes.IndexByte(b[from:min(len(b), from+maxTag)], '>') + 1
		}
		if end := lineEnd(b, from); end > i+n {
			found = append(found, [2]int{i + n, end})
			at, i = end, end-1
		}
	}
	return found
}

// separator is the length of what may stand between a name and its value at the front, 0
// if nothing does. A colon or an equals sign may be percent-encoded, a few times over.
func separator(b []byte) int {
	if b[0] != '%' {
		return 1
	}
	n := 1
	for range 3 {
		if bytes.HasPrefix(b[n:], []byte("25")) {
			n += 2
		}
	}
	if len(b) >= n+2 && b[n] == '3' && (b[n+1]|0x20 == 'a' || b[n+1]|0x20 == 'd') {
		return n + 2
	}
	return 0
}

// maxTag is how far behind the beginning of a tag its end is looked for.
const maxTag = 256

// lastTag is the tag of XML, without its brackets, that is still open at the end of b; nil
// if none is.
func lastTag(b []byte) []byte {
	b = b[max(0, len(b)-maxTag):]
	tag := b[bytes.LastIndexByte(b, '<')+1:]
	if len(tag) == 0 || len(tag) == len(b) || bytes.IndexByte(tag, '>') >= 0 {
		return nil
	}
	return tag
}

// tagName is the local name of a tag that begins an element.
func tagName(tag []byte) string {
	if end := bytes.IndexAny(tag, " \t\r\n"); end >= 0 {
		tag = tag[:end]
	}
	return string(tag[bytes.IndexByte(tag, ':')+1:])
}

// maxSecretName is the longest name that is looked at; longer ones are taken for secret.
const maxSecretName = 64

func endsInSecretName(b []byte) bool {
	b = bytes.TrimRight(b, " \t\r\n\"'`\\")
	start := len(b)
	for start > 0 && inSecretName(b[start-1]) {
		if start--; len(b)-start > maxSecretName {
			return true
		}
	}
	if start == len(b) {
		return false
	}
	name := string(b[start:])
	// An escape may be any letter: its rules are those of a language that is not known.
	if strings.Contains(name, `\`) || secretHeaders[strings.ToLower(name)] {
		return true
	}
	plain := unescape(b[start:])
	if isSecretName(plain) {
		return true
	}
	// What is encoded as a whole may have more before the name.
	plain = strings.TrimRight(plain, " \"'")
	if isSecretName(plain[strings.LastIndexAny(plain, "&;?:=,{\"' ")+1:]) {
		return true
	}
	// A name of two words.
	word := bytes.TrimRight(b[:start], " \t")
	if len(word) == start {
		return false
	}
	from := len(word)
	for from > 0 && inSecretName(word[from-1]) && len(word)-from < maxSecretName {
		from--
	}
	return isSecretName(string(word[from:]) + name)
}

func inSecretName(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte(`_-.%+\[]`, c) >= 0
}

const cdata = "<![CDATA[" // begins the text of an element

// lineEnd is the end of the line that goes on at i, with the lines that continue it by
// beginning with a space (RFC 9112 §5.2), or of the text (NUL). A line that has no more
// than the beginning of a value is continued by the next one that has any.
func lineEnd(b []byte, i int) int {
	blank, first := true, len(b) // nothing of a value was seen, and where its line ends
	for ; i < len(b); i++ {
		switch b[i] {
		case 0:
			if blank {
				return min(first, i)
			}
			return i
		case '\r', '\n':
			next := i + 1
			if b[i] == '\r' && next < len(b) && b[next] == '\n' {
				next++
			}
			if !blank && (next >= len(b) || b[next] != ' ' && b[next] != '\t') {
				return i
			}
			first = min(first, i)
			i = next - 1
		case '<':
			if bytes.HasPrefix(b[i:], []byte(cdata)) {
				i += len(cdata) - 1
			}
		case ' ', '\t', '"', '\'', '`', '\\', '[', '{', '(', ':', '=', '>':
		default:
			blank = false
		}
	}
	if blank {
		return first
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
