// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Error is why a header was refused. The values are static and comparable.
type Error string

// Error is the detail for logs.
func (e Error) Error() string { return string(e) }

// Errors of Parse.
const (
	// ErrNone: the first bytes begin no PROXY header of either version.
	ErrNone Error = "proxy_protocol.no_header"

	ErrLine        Error = "proxy_protocol.invalid_line"
	ErrAddress     Error = "proxy_protocol.invalid_address"
	ErrPort        Error = "proxy_protocol.invalid_port"
	ErrVersion     Error = "proxy_protocol.invalid_version"
	ErrCommand     Error = "proxy_protocol.invalid_command"
	ErrFamily      Error = "proxy_protocol.invalid_family"
	ErrLength      Error = "proxy_protocol.invalid_length"
	ErrTLV         Error = "proxy_protocol.invalid_tlv"
	ErrChecksum    Error = "proxy_protocol.invalid_checksum"
	ErrTooManyTLVs Error = "proxy_protocol.too_many_tlvs"
)

// Bounds.
const (
	// MaxLine is the longest header of version 1, with CRLF.
	MaxLine = 107
	// MaxPayload is how many bytes a header of version 2 may say that it has behind
	// its first 16: addresses and TLVs.
	MaxPayload = 16 << 10
	// MaxHeader is how many bytes Parse may need.
	MaxHeader = headV2 + MaxPayload

	maxTLVs = 128
	headV2  = 16
)

const (
	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Transport is what the connection that is told of goes over.
type Transport uint8

// The transports.
const (
	Unspecified Transport = iota
	TCP
	UDP
	Unix
)

// Header is what a header says.
type Header struct {
	Version   int
	Local     bool // made by the proxy itself, to check us: nobody is told of
	Transport Transport
	// Source and Destination are invalid but for TCP and UDP.
	Source, Destination netip.AddrPort
	// TLVs of version 2, checked, for NextTLV. They are part of Parse's input.
	TLVs []byte
}

// Parse reads the header that in begins with. It returns how many bytes it has, or 0
// and no error if more are needed.
func Parse(in []byte, h *Header) (n int, err error) {
	*h = Header{}
	switch {
	case begins(in, signatureV2):
		return h.parse2(in)
	case begins(in, signatureV1):
		return h.parse1(in)
	}
	return 0, ErrNone
}

// begins reports whether one of in and sig begins with the other.
func begins(in []byte, sig string) bool {
	n := min(len(in), len(sig))
	return string(in[:n]) == sig[:n]
}

func (h *Header) parse1(in []byte) (int, error) {
	if len(in) == 0 {
		return 0, nil
	}
	line := in[:min(len(in), MaxLine)]
	cr := bytes.IndexByte(line, '\r')
	switch {
	case cr < 0 && len(line) >= MaxLine-1:
		return 0, ErrLine // no room for CRLF
	case bytes.IndexByte(line[:max(cr, 0)], '\n') >= 0 || cr < 0 && bytes.IndexByte(line, '\n') >= 0:
		return 0, ErrLine
	case cr < 0 || cr+1 == len(line) && cr+1 < MaxLine:
		return 0, nil
	case cr+1 == MaxLine || line[cr+1] != '\n':
		return 0, ErrLine
	}
	if cr < len(signatureV1) {
		return 0, ErrLine
	}
	h.Version = 1
	if err := h.line(line[len(signatureV1):cr]); err != nil {
		*h = Header{}
		return 0, err
	}
	return cr + 2, nil
}

// line reads what is behind "PROXY ".
func (h *Header) line(b []byte) error {
	family, rest, more := bytes.Cut(b, []byte{' '})
	if string(family) == "UNKNOWN" {
		return nil // whatever follows is to be ignored
	}
	v6 := string(family) == "TCP6"
	if !more || !v6 && string(family) != "TCP4" {
		return ErrLine
	}
	src, rest, ok1 := bytes.Cut(rest, []byte{' '})
	dst, rest, ok2 := bytes.Cut(rest, []byte{' '})
	sport, dport, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		return ErrLine
	}
	from, ok1 := address(src, v6)
	to, ok2 := address(dst, v6)
	if !ok1 || !ok2 {
		return ErrAddress
	}
	fromPort, ok1 := port(sport)
	toPort, ok2 := port(dport)
	if !ok1 || !ok2 {
		return ErrPort
	}
	h.Transport = TCP
	h.Source, h.Destination = netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort)
	return nil
}

// addressLengths are the bytes of two addresses and ports, by family.
var addressLengths = [...]int{0, 12, 36, 216}

func (h *Header) parse2(in []byte) (int, error) {
	if len(in) > 12 {
		switch {
		case in[12]>>4 != 2:
			return 0, ErrVersion
		case in[12]&15 > 1:
			return 0, ErrCommand
		}
	}
	if len(in) > 13 && (in[13]>>4 > 3 || in[13]&15 > 2) {
		return 0, ErrFamily
	}
	if len(in) < headV2 {
		return 0, nil
	}
	n := int(binary.BigEndian.Uint16(in[14:]))
	family, local := in[13]>>4, in[12]&15 == 0
	if n > MaxPayload || !local && n < addressLengths[family] {
		return 0, ErrLength
	}
	if len(in) < headV2+n {
		return 0, nil
	}
	in = in[:headV2+n]
	if local { // addresses and what is said about them are to be discarded
		h.Version, h.Local = 2, true
		return len(in), nil
	}
	if err := checkTLVs(in, headV2+addressLengths[family]); err != nil {
		return 0, err
	}
	h.Version, h.TLVs = 2, in[headV2+addressLengths[family]:]
	h.addresses(in[headV2:], family, Transport(in[13]&15))
	return len(in), nil
}

func (h *Header) addresses(b []byte, family byte, t Transport) {
	switch {
	case t == Unspecified || family == 0:
	case family == 1:
		h.Transport = t
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
	case family == 2:
		h.Transport = t
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
	default:
		h.Transport = Unix
	}
}

// Types of TLV.
const (
	TypeALPN      = 0x01
	TypeAuthority = 0x02
	TypeCRC32C    = 0x03
	TypeNoop      = 0x04
	TypeUniqueID  = 0x05
	TypeSSL       = 0x20
	TypeNetNS     = 0x30
)

// NextTLV takes the first TLV off a list that is not empty. The list must be one that
// Parse has checked.
func NextTLV(list []byte) (kind byte, value, rest []byte) {
	n := 3 + int(binary.BigEndian.Uint16(list[1:]))
	return list[0], list[3:n], list[n:]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkTLVs checks the TLVs of a whole header, which begin at from: each ends
// within it, and a checksum is right.
func checkTLVs(header []byte, from int) error {
	summed := -1 // where the checksum is
	for count, at := 0, from; at < len(header); count++ {
		rest := header[at:]
		if count == maxTLVs {
			return ErrTooManyTLVs
		}
		if len(rest) < 3 {
			return ErrTLV
		}
		n := int(binary.BigEndian.Uint16(rest[1:]))
		if n > len(rest)-3 {
			return ErrTLV
		}
		if rest[0] == TypeCRC32C {
			if n != 4 || summed >= 0 {
				return ErrTLV
			}
			summed = at + 3
		}
		at += 3 + n
	}
	if summed < 0 {
		return nil
	}
	sum := crc32.Update(0, castagnoli, header[:summed])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	sum = crc32.Update(sum, castagnoli, header[summed+4:])
	if sum != binary.BigEndian.Uint32(header[summed:]) {
		return ErrChecksum
	}
	return nil
}
