// SPDX-License-Identifier: Apache-2.0

package accesslog

import "unicode/utf8"

const hexUpper = "0123456789ABCDEF"

// Classes of bytes: what may stand as it is in a JSON string and in text.
const (
	safeJSON = 1 << iota
	safeText
)

var safety = buildSafety()

func buildSafety() (t [256]uint8) {
	for c := 0x20; c < 0x7f; c++ {
		if c != '"' && c != '\\' {
			t[c] = safeJSON | safeText
		}
	}
	return t
}

// appendJSON appends b as the inside of a JSON string. Bytes that are no UTF-8
// become U+FFFD, so that the line is always a JSON text.
func appendJSON[T []byte | string](dst []byte, b T) []byte {
	start := 0
	for i := 0; i < len(b); {
		c := b[i]
		if safety[c]&safeJSON != 0 {
			i++
			continue
		}
		dst = append(dst, b[start:i]...)
		if c < utf8.RuneSelf {
			dst = appendJSONByte(dst, c)
			i++
		} else {
			var n int
			dst, n = appendJSONRune(dst, string(b[i:min(i+utf8.UTFMax, len(b))]))
			i += n
		}
		start = i
	}
	return append(dst, b[start:]...)
}

func appendJSONByte(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexUpper[c>>4], hexUpper[c&15])
}

// appendJSONRune appends the first rune of s. C1 controls and the line
// separators are escaped: a viewer may act on them.
func appendJSONRune(dst []byte, s string) ([]byte, int) {
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && n <= 1:
		return append(dst, `\ufffd`...), 1
	case r < 0xa0 || r == 0x2028 || r == 0x2029:
		return append(dst, '\\', 'u', hexUpper[r>>12&15], hexUpper[r>>8&15], hexUpper[r>>4&15], hexUpper[r&15]), n
	}
	return append(dst, s[:n]...), n
}

// appendText appends b with everything but printable ASCII, and quotes and
// backslashes, as \xNN.
func appendText[T []byte | string](dst []byte, b T) []byte {
	start := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if safety[c]&safeText != 0 {
			continue
		}
		dst = append(dst, b[start:i]...)
		dst = append(dst, '\\', 'x', hexUpper[c>>4], hexUpper[c&15])
		start = i + 1
	}
	return append(dst, b[start:]...)
}
