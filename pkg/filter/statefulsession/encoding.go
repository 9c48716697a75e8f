// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of Envoy's message envoy.Cookie, which is a cookie's content.
const (
	cookieAddress = 1
	cookieExpires = 2
)

// appendCookie writes the message.
func appendCookie(b []byte, a netip.AddrPort, expires int64) []byte {
	b = append(protowire.AppendTag(b, cookieAddress, protowire.BytesType), 0)
	at := len(b)
	b = a.AppendTo(b) // at most 54 bytes: one byte of length
	b[at-1] = byte(len(b) - at)
	if expires > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, cookieExpires, protowire.VarintType), uint64(expires))
	}
	return b
}

// readCookie reads the message; not ok where it is none, or has no address.
func readCookie(b []byte) (address []byte, expires int64, ok bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, 0, false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil, 0, false
		}
		switch {
		case num == cookieAddress && typ == protowire.BytesType:
			address, _ = protowire.ConsumeBytes(b)
		case num == cookieExpires && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(b)
			expires = int64(min(v, 1<<62))
		}
		b = b[n:]
	}
	return address, expires, len(address) > 0
}
