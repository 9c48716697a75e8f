// SPDX-License-Identifier: Apache-2.0

package proxyproto

import "net/netip"

// netip.ParseAddr would copy what it is given: these read bytes as they are.

// port reads a decimal port without leading zeros.
func port(b []byte) (uint16, bool) {
	n, ok := decimal(b, 65535)
	return uint16(n), ok
}

func decimal(b []byte, most int) (n int, ok bool) {
	if len(b) == 0 || len(b) > 5 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n <= most
}

func address(b []byte, v6 bool) (netip.Addr, bool) {
	if v6 {
		a, ok := address6(b)
		return netip.AddrFrom16(a).Unmap(), ok
	}
	a, ok := address4(b)
	return netip.AddrFrom4(a), ok
}

func address4(b []byte) (a [4]byte, ok bool) {
	for i := range a {
		end := 0
		for end < len(b) && b[end] != '.' {
			end++
		}
		n, ok := decimal(b[:end], 255)
		if !ok || (end == len(b)) != (i == 3) {
			return a, false
		}
		a[i] = byte(n)
		if i < 3 {
			b = b[end+1:]
		}
	}
	return a, true
}

// address6 reads groups of hexadecimal digits, of which one run of zeros may be left
// out and the last two may be an IPv4 address (RFC 4291 §2.2).
func address6(b []byte) (a [16]byte, ok bool) {
	at, gap := 0, -1
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		b, gap = b[2:], 0
	}
	for len(b) > 0 {
		end, n := 0, 0
		for end < len(b) && end < 5 && hex(b[end]) >= 0 {
			n = n<<4 | hex(b[end])
			end++
		}
		if end < len(b) && b[end] == '.' {
			v4, ok := address4(b)
			if !ok || at > 12 {
				return a, false
			}
			at += copy(a[at:], v4[:])
			break
		}
		if end == 0 || end > 4 || at == 16 {
			return a, false
		}
		a[at], a[at+1] = byte(n>>8), byte(n)
		at += 2
		if b = b[end:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return a, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return a, false
			}
			b, gap = b[1:], at
		}
	}
	if gap < 0 {
		return a, at == 16
	}
	if at == 16 {
		return a, false
	}
	copy(a[16-(at-gap):], a[gap:at])
	clear(a[gap : 16-(at-gap)])
	return a, true
}

func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
