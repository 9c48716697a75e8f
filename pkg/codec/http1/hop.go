// SPDX-License-Identifier: Apache-2.0

package http1

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// RemoveHopByHop removes the fields that are for one hop (RFC 9110 §7.6.1):
// Connection and what it nominates, Keep-Alive, Proxy-Connection, TE,
// Transfer-Encoding, Upgrade and HTTP2-Settings. It is for lists that no decoder
// of this package made; those hold none of them.
//
// A nomination of a field that codec.MayNominate protects is ignored: the field
// stays. Proxy-Authenticate and Proxy-Authorization stay as well: this proxy
// does not authenticate its clients, so they are for another (RFC 9110 §11.7).
func RemoveHopByHop(h *codec.Header) {
	if h.HasKnown(codec.NameConnection) {
		removeNominated(h)
		h.RemoveKnown(codec.NameConnection)
	}
	for _, id := range [...]codec.Name{
		codec.NameKeepAlive, codec.NameProxyConnection, codec.NameTE, codec.NameTransferEncoding,
		codec.NameUpgrade, codec.NameHTTP2Settings,
	} {
		h.RemoveKnown(id)
	}
}

// removeNominated removes the fields that Connection fields name. Options
// beyond maxNominations are not looked at: decoders refuse so many.
func removeNominated(h *codec.Header) {
	seen := 0
	for i := h.Index("connection", 0); i >= 0; i = h.Index("connection", i+1) {
		_, value, _, _ := h.At(i)
		for option := range options(value) {
			if id := codec.Lookup(option); !codec.MayNominate(option, id) {
				continue
			}
			if seen++; seen > maxNominations {
				return
			}
			removeNamed(h, option)
		}
	}
}

// removeNamed removes every field of a name that is not a known one, whatever
// its case.
func removeNamed(h *codec.Header, name []byte) {
	for i := range h.Slots() {
		n, _, id, ok := h.At(i)
		if ok && id == codec.NameOther && equalFold(n, name) {
			h.RemoveAt(i)
		}
	}
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}
