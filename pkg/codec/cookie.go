// SPDX-License-Identifier: Apache-2.0

package codec

import "bytes"

// Cookie finds the first cookie of a name in all Cookie fields. Its value, without
// quotation marks around it, lies in the header.
func (h *Header) Cookie(name string) (value []byte, ok bool) {
	for i := h.Index("cookie", 0); i >= 0; i = h.Index("cookie", i+1) {
		_, v, _, _ := h.At(i)
		for len(v) > 0 {
			part := v
			if j := bytes.IndexByte(v, ';'); j >= 0 {
				part, v = v[:j], v[j+1:]
			} else {
				v = nil
			}
			part = bytes.TrimLeft(part, " \t")
			if len(part) > len(name) && part[len(name)] == '=' && string(part[:len(name)]) == name {
				return bytes.Trim(part[len(name)+1:], `"`), true
			}
		}
	}
	return nil, false
}
