// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// AppendV1 appends a header of version 1. Where one address is invalid, or they are
// of two families, it says UNKNOWN.
func AppendV1(dst []byte, from, to netip.AddrPort) []byte {
	v6, ok := family(&from, &to)
	switch {
	case !ok:
		return append(dst, "PROXY UNKNOWN\r\n"...)
	case v6:
		dst = append(dst, "PROXY TCP6 "...)
	default:
		dst = append(dst, "PROXY TCP4 "...)
	}
	dst = append(from.Addr().AppendTo(dst), ' ')
	dst = append(to.Addr().AppendTo(dst), ' ')
	dst = append(strconv.AppendUint(dst, uint64(from.Port()), 10), ' ')
	return append(strconv.AppendUint(dst, uint64(to.Port()), 10), '\r', '\n')
}

// AppendV2 appends a header of version 2 for a TCP connection, without TLVs. Where
// one address is invalid, or they are of two families, it says LOCAL.
func AppendV2(dst []byte, from, to netip.AddrPort) []byte {
	v6, ok := family(&from, &to)
	dst = append(dst, signatureV2...)
	switch {
	case !ok:
		return append(dst, 0x20, 0, 0, 0)
	case v6:
		a, b := from.Addr().As16(), to.Addr().As16()
		dst = append(append(append(dst, 0x21, 0x21, 0, 36), a[:]...), b[:]...)
	default:
		a, b := from.Addr().As4(), to.Addr().As4()
		dst = append(append(append(dst, 0x21, 0x11, 0, 12), a[:]...), b[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, from.Port())
	return binary.BigEndian.AppendUint16(dst, to.Port())
}

// family brings both addresses into one form.
func family(from, to *netip.AddrPort) (v6, ok bool) {
	*from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	*to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	return from.Addr().Is6(), from.IsValid() && to.IsValid() && from.Addr().Is6() == to.Addr().Is6()
}
