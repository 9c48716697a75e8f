// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"math/bits"
)

// The classes of a byte in a message, as RFC 9110 and RFC 3986 define them. One
// table serves every decoder and encoder, so that no two of them disagree.
const (
	classToken  uint8 = 1 << iota // tchar, RFC 9110 §5.6.2
	classValue                    // field-vchar, SP and HTAB, RFC 9110 §5.5
	classTarget                   // VCHAR without "#": what a request target may hold
	classHost                     // reg-name without "%" and ",", RFC 3986 §3.2.2
	classHex                      // HEXDIG
)

var classes = buildClasses()

func buildClasses() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		alnum := b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z'
		if alnum || in("!#$%&'*+-.^_`|~", b) {
			t[c] |= classToken
		}
		if b >= 0x20 && b != 0x7f || b == '\t' {
			t[c] |= classValue
		}
		if b > 0x20 && b < 0x7f && b != '#' {
			t[c] |= classTarget
		}
		if alnum || in("-._~!$&'()*+;=", b) {
			t[c] |= classHost
		}
		if b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f' {
			t[c] |= classHex
		}
	}
	return t
}

func in(set string, b byte) bool {
	for i := range len(set) {
		if set[i] == b {
			return true
		}
	}
	return false
}

func all(b []byte, class uint8) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}

// IsToken reports whether c may stand in a field name or method.
func IsToken(c byte) bool { return classes[c]&classToken != 0 }

// ValidName reports whether b is a field name or any other token (RFC 9110
// §5.6.2): not empty, tchar only.
func ValidName(b []byte) bool { return len(b) > 0 && all(b, classToken) }

// ValidValue reports whether b may be sent as a field value (RFC 9110 §5.5): no
// control byte but HTAB, no DEL. Bytes of 0x80 and above are opaque and allowed.
func ValidValue(b []byte) bool { return IndexControl(b, 0) == len(b) }

// ValidTarget reports whether b may stand as a request target in a request
// line: not empty, visible ASCII without "#".
func ValidTarget(b []byte) bool { return len(b) > 0 && all(b, classTarget) }

// ValidAuthority reports whether b is host or host ":" port (RFC 3986 §3.2
// without userinfo): a registered name, an IPv4 address, or an IPv6 address in
// brackets; a port of 0 to 65535. A "," is refused although the grammar has it:
// it is how two Host fields look when something merged them.
func ValidAuthority(b []byte) bool {
	host, port, hasPort := SplitPort(b)
	if hasPort && !validPort(port) {
		return false
	}
	if len(host) > 0 && host[0] == '[' {
		return validBracketed(host)
	}
	for i := 0; i < len(host); i++ {
		if classes[host[i]]&classHost != 0 {
			continue
		}
		if host[i] != '%' || i+2 >= len(host) || !all(host[i+1:i+3], classHex) {
			return false
		}
		i += 2
	}
	return len(host) > 0
}

// SplitPort splits an authority at the colon before its port. The host keeps
// the brackets of an IPv6 address.
func SplitPort(b []byte) (host, port []byte, hasPort bool) {
	for i := len(b) - 1; i >= 0; i-- {
		switch b[i] {
		case ':':
			return b[:i], b[i+1:], true
		case ']':
			return b, nil, false
		}
	}
	return b, nil, false
}

func validPort(b []byte) bool {
	if len(b) == 0 || len(b) > 5 {
		return false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func validBracketed(b []byte) bool {
	if len(b) < 4 || b[len(b)-1] != ']' {
		return false
	}
	colons := 0
	for _, c := range b[1 : len(b)-1] {
		switch {
		case c == ':':
			colons++
		case c != '.' && classes[c]&classHex == 0:
			return false
		}
	}
	return colons >= 2 && colons <= 8
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// IndexControl is the position of the first byte at or after from that may not
// stand in a field value, and len(b) if there is none. It looks at eight bytes
// at a time: decoders find the end of each line with it.
func IndexControl(b []byte, from int) int {
	i := from
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		// A byte below 0x20 borrows into its top bit; a byte of 0x7f is the
		// zero byte of del. Above the first hit there may be false ones.
		del := w ^ 0x7f*ones
		m := ((w-0x20*ones)&^w | (del-ones)&^del) & highs
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if b[i] != '\t' {
			return i
		}
		i++
	}
	if i == len(b) {
		return i
	}
	if len(b) >= 8 { // the last eight, of which the first were looked at
		w := binary.LittleEndian.Uint64(b[len(b)-8:])
		del := w ^ 0x7f*ones
		m := ((w-0x20*ones)&^w | (del-ones)&^del) & highs
		if m>>(8*(8-len(b)+i)) == 0 {
			return len(b)
		}
	}
	for i < len(b) && classes[b[i]]&classValue != 0 {
		i++
	}
	return i
}

// IndexNotTarget is the position of the first byte at or after from that may
// not stand in a request target, and len(b) if there is none.
func IndexNotTarget(b []byte, from int) int {
	i := from
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		hash := w ^ '#'*ones
		m := ((w-0x21*ones)&^w | w | (del-ones)&^del | (hash-ones)&^hash) & highs
		if m != 0 {
			break
		}
		i += 8
	}
	for i < len(b) && classes[b[i]]&classTarget != 0 {
		i++
	}
	return i
}

// securityPrefixes are families of names that carry identity, routing, framing
// or trace context.
var securityPrefixes = [...]string{"content-", "proxy-", "sec-", "x-b3-", "x-envoy-", "x-forwarded-", "x-outrigger-"}

// securityNames are single names of the same kind that are not known names.
var securityNames = [...]string{
	"cache-control", "forwarded", "range", "true-client-ip", "via", "www-authenticate",
	"x-auth-request-user", "x-real-ip",
}

func isSecurityName(name []byte, id Name) bool {
	if id != NameOther {
		return true
	}
	for _, p := range securityPrefixes {
		if len(name) > len(p) && EqualVariable(name[:len(p)], p) {
			return true
		}
	}
	for _, s := range securityNames {
		if EqualVariable(name, s) {
			return true
		}
	}
	return knownVariable(name)
}

// EqualVariable is EqualFold with every byte that is no letter or digit read as "-".
// Applications behind CGI, WSGI, Rack and the like read fields as variables
// (HTTP_X_REAL_IP, RFC 3875 §4.1.18), for which they all are "_": what they cannot
// tell apart is one name where trust is concerned.
func EqualVariable(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if variable(c) != lower[i] {
			return false
		}
	}
	return true
}

func variable(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c | 0x20
	case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		return c
	}
	return '-'
}

// IsVariant reports whether a name has a byte that stands for "-" where names are
// variables.
func IsVariant(name []byte) bool {
	for _, c := range name {
		if c != '-' && variable(c) == '-' {
			return true
		}
	}
	return false
}

// knownVariable reports whether the name is a variant of a known one.
func knownVariable(name []byte) bool {
	var buf [64]byte // no known name is longer
	if len(name) > len(buf) || !IsVariant(name) {
		return false
	}
	for i, c := range name {
		buf[i] = variable(c)
	}
	return Lookup(buf[:len(name)]) != NameOther
}

// MayNominate reports whether a Connection field may name this field for
// removal. The option is meant for fields of one hop; a sender must not use it
// to make a field vanish that a later hop trusts (X-Forwarded-For, Cookie, …).
// All known names and the families above are thus end-to-end whatever
// Connection says; those of one hop are removed in any case.
func MayNominate(name []byte, id Name) bool { return !isSecurityName(name, id) }

// trailerNames are further fields that steer a message and mean nothing, or
// something dangerous, after it (RFC 9110 §6.5.1).
var trailerNames = [...]string{
	"age", "expires", "if-match", "if-modified-since", "if-none-match", "if-range",
	"if-unmodified-since", "pragma", "vary", "warning",
}

// MayTrail reports whether a field may stand in a trailer section: not framing,
// routing, authentication, request modifiers, response control or content
// metadata (RFC 9110 §6.5.1). What a service invents for itself may.
func MayTrail(name []byte, id Name) bool {
	if isSecurityName(name, id) {
		return false
	}
	for _, s := range trailerNames {
		if EqualFold(name, s) {
			return false
		}
	}
	return true
}
