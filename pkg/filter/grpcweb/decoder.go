// SPDX-License-Identifier: Apache-2.0

package grpcweb

// decoder decodes base64 (RFC 4648 §4) that comes in pieces. Padding may stand
// behind any group of four, as senders encode what they have piece by piece.
type decoder struct {
	bits  uint32 // of the group that has begun
	count uint8  // its characters
	pads  uint8  // those that are padding
}

// append appends the bytes of the groups that chunk completes; false: it is no
// base64.
func (d *decoder) append(dst, chunk []byte) ([]byte, bool) {
	for _, c := range chunk {
		v := values[c]
		switch {
		case v == invalid, c == '=' && d.count < 2, c != '=' && d.pads > 0:
			return dst, false
		case c == '=':
			d.pads++
		}
		d.bits = d.bits<<6 | uint32(v&63)
		if d.count++; d.count < 4 {
			continue
		}
		if d.pads == 1 && d.bits>>6&3 != 0 || d.pads == 2 && d.bits>>12&15 != 0 {
			return dst, false // bits that nobody would see
		}
		group := [3]byte{byte(d.bits >> 16), byte(d.bits >> 8), byte(d.bits)}
		dst = append(dst, group[:3-d.pads]...)
		*d = decoder{}
	}
	return dst, true
}

// whole reports whether no group is begun.
func (d *decoder) whole() bool { return d.count == 0 }

const invalid = 255

var values = buildValues()

func buildValues() (t [256]byte) {
	for i := range t {
		t[i] = invalid
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	t['='] = 64 // six bits of zero
	return t
}
