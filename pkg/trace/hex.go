// SPDX-License-Identifier: Apache-2.0

package trace

import "encoding/binary"

const hexDigits = "0123456789abcdef"

// hexValue is the value of a hexadecimal digit, 0xff of anything else. Upper
// case has bit 4 set, so that formats that forbid it can tell.
var hexValue = buildHex()

const upperCase = 0x10

func buildHex() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i] = byte(10 + i)
		t['A'+i] = byte(10+i) | upperCase
	}
	return t
}

// decodeLower decodes len(dst) bytes of lower-case hex from src, which is long
// enough, and reports whether all digits were valid and not all zero.
func decodeLower(dst, src []byte) (valid, nonZero bool) {
	var bad, any byte
	for i := range dst {
		hi, lo := hexValue[src[2*i]], hexValue[src[2*i+1]]
		bad |= hi | lo
		dst[i] = hi<<4 | lo
		any |= dst[i]
	}
	return bad < 0x10, any != 0
}

// decodeAny is decodeLower for formats that take both cases.
func decodeAny(dst, src []byte) (valid, nonZero bool) {
	var any byte
	for i := range dst {
		hi, lo := hexValue[src[2*i]], hexValue[src[2*i+1]]
		if hi == 0xff || lo == 0xff {
			return false, false
		}
		dst[i] = hi<<4 | lo&0xf
		any |= dst[i]
	}
	return true, any != 0
}

// hexPairs are the two digits of each byte, as PutUint16 stores them.
var hexPairs = buildPairs()

func buildPairs() (t [256]uint16) {
	for i := range t {
		t[i] = uint16(hexDigits[i>>4]) | uint16(hexDigits[i&15])<<8
	}
	return t
}

// putHex writes src as lower-case hex to the front of dst.
func putHex(dst, src []byte) {
	dst = dst[:2*len(src)]
	for len(src) >= 4 && len(dst) >= 8 {
		// Eight digits at a time: a byte for each nibble, then 39 more for a letter.
		x := uint64(binary.BigEndian.Uint32(src))
		x = (x | x<<16) & 0x0000ffff0000ffff
		x = (x | x<<8) & 0x00ff00ff00ff00ff
		x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
		letters := (x + 0x0606060606060606) >> 4 & 0x0101010101010101
		binary.BigEndian.PutUint64(dst, x+0x3030303030303030+letters*('a'-'0'-10))
		src, dst = src[4:], dst[8:]
	}
	for len(src) > 0 && len(dst) >= 2 {
		binary.LittleEndian.PutUint16(dst, hexPairs[src[0]])
		src, dst = src[1:], dst[2:]
	}
}
