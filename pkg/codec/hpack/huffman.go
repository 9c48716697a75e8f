// SPDX-License-Identifier: Apache-2.0

package hpack

import "encoding/binary"

// huffmanLengths are the lengths of the codes of RFC 7541 Appendix B by symbol.
// The code is canonical: symbols of one length have consecutive codes in their
// order, and so the lengths say all.
var huffmanLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	fastBits  = 9 // codes up to this length are found in one look
	maxLength = 30
)

// fastSymbol is what the first fastBits bits say: a symbol and the length of its
// code, 0 where that is longer.
type fastSymbol struct{ symbol, length uint8 }

// canonical finds the longer codes. Codes are aligned to the top of 32 bits.
type canonical struct {
	fast    [1 << fastBits]fastSymbol
	limit   [maxLength + 1]uint32 // above the last code of the length
	first   [maxLength + 1]uint32 // the first code of the length, not aligned
	offset  [maxLength + 1]uint16 // its place in symbols
	symbols [256]uint8            // by code
}

var huffman = buildHuffman()

func buildHuffman() *canonical {
	t := &canonical{}
	code, n := uint32(0), 0
	for length := 1; length <= maxLength; length++ {
		code <<= 1
		t.first[length], t.offset[length] = code, uint16(n)
		for s := range 256 {
			if int(huffmanLengths[s]) != length {
				continue
			}
			t.symbols[n] = uint8(s)
			n++
			for fill := 0; length <= fastBits && fill < 1<<(fastBits-length); fill++ {
				t.fast[int(code)<<(fastBits-length)+fill] = fastSymbol{uint8(s), uint8(length)}
			}
			code++
		}
		t.limit[length] = code << (32 - length)
	}
	return t
}

// appendHuffman appends what src encodes. ok is false where RFC 7541 §5.2 wants
// an error: EOS, padding of eight bits or more, or of other bits than ones.
func appendHuffman(dst, src []byte) (_ []byte, ok bool) {
	t := huffman
	acc, bits := uint64(0), uint(0) // bits not yet read, at the top of acc
	for i := 0; ; {
		if bits < maxLength {
			if i+8 <= len(src) {
				acc |= binary.BigEndian.Uint64(src[i:]) >> bits
				n := (64 - bits) >> 3
				i += int(n)
				bits += n << 3
				acc &^= 1<<(64-bits) - 1
			} else {
				for ; bits <= 56 && i < len(src); i++ {
					acc |= uint64(src[i]) << (56 - bits)
					bits += 8
				}
			}
		}
		f := t.fast[acc>>(64-fastBits)]
		if length := uint(f.length); length != 0 {
			if length > bits {
				break
			}
			dst = append(dst, f.symbol)
			acc <<= length
			bits -= length
			continue
		}
		top, length := uint32(acc>>32), fastBits+1
		for length < maxLength && top >= t.limit[length] {
			length++
		}
		if top >= t.limit[length] || uint(length) > bits {
			break // EOS, or the padding, which begins like it
		}
		dst = append(dst, t.symbols[uint32(t.offset[length])+top>>(32-length)-t.first[length]])
		acc <<= length
		bits -= uint(length)
	}
	return dst, bits < 8 && acc>>1 == (1<<bits-1)<<(63-bits)
}
