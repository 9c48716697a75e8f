// SPDX-License-Identifier: Apache-2.0

package trace

import "encoding/binary"

// Reason is why an exchange is traced, as Envoy keeps it in the version digit
// of the x-request-id, where every proxy on the way finds it.
type Reason uint8

// The reasons.
const (
	NotTraceable  Reason = iota // digit 4: a plain UUIDv4
	Sampled                     // digit 9
	ServiceForced               // digit a: x-envoy-force-trace
	ClientForced                // digit b: x-client-trace-id
)

// RequestIDLen is the length of a request id that AppendRequestID makes.
const RequestIDLen = 36

const reasonDigit = 14

var reasonDigits = [...]byte{NotTraceable: '4', Sampled: '9', ServiceForced: 'a', ClientForced: 'b'}

// AppendRequestID appends a UUIDv4 (RFC 9562 §5.4) made of two random words.
func AppendRequestID(dst []byte, r1, r2 uint64) []byte {
	var u [16]byte
	binary.BigEndian.PutUint64(u[:], r1)
	binary.BigEndian.PutUint64(u[8:], r2)
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var b [RequestIDLen]byte
	putHex(b[:], u[:4])
	putHex(b[9:], u[4:6])
	putHex(b[14:], u[6:8])
	putHex(b[19:], u[8:10])
	putHex(b[24:], u[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return append(dst, b[:]...)
}

// RequestIDReason reads the reason of a request id; what is no UUID has none.
func RequestIDReason(id []byte) Reason {
	if !isUUID(id) {
		return NotTraceable
	}
	switch id[reasonDigit] {
	case '9':
		return Sampled
	case 'a':
		return ServiceForced
	case 'b':
		return ClientForced
	}
	return NotTraceable
}

// requestIDNumber is the number that sampling decides by, so that all proxies
// that see one request id decide alike: its first eight digits.
func requestIDNumber(id []byte) (n uint32, ok bool) {
	if !isUUID(id) {
		return 0, false
	}
	for _, c := range id[:8] {
		v := hexValue[c]
		if v == 0xff {
			return 0, false
		}
		n = n<<4 | uint32(v&0xf)
	}
	return n, true
}

// isUUID checks the form as far as the reason and the number need it.
func isUUID(id []byte) bool {
	return len(id) == RequestIDLen && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-'
}
