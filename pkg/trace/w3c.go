// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// W3C Trace Context, https://www.w3.org/TR/trace-context/.

const (
	w3cLen     = 55 // 00-<32>-<16>-<2>
	w3cSampled = 0x01
	w3cRandom  = 0x02 // level 2: kept of a trace that goes on
)

// extractW3C reads traceparent. A version above 00 is read by its first four
// fields (§3.2.4); two traceparent fields are none (§3.2.1: one is allowed).
func extractW3C(h *codec.RequestHead) (p parent) {
	i := h.Index("traceparent", 0)
	if i < 0 || h.Index("traceparent", i+1) >= 0 {
		return p
	}
	_, v, _, _ := h.At(i)
	if len(v) < w3cLen || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return p
	}
	version, flags := [1]byte{}, [1]byte{}
	okVersion, _ := decodeLower(version[:], v)
	okFlags, _ := decodeLower(flags[:], v[53:])
	if !okVersion || !okFlags || version[0] == 0xff {
		return p
	}
	if len(v) > w3cLen && (version[0] == 0 || v[w3cLen] != '-') {
		return p
	}
	okTrace, someTrace := decodeLower(p.traceID[:], v[3:])
	okSpan, someSpan := decodeLower(p.spanID[:], v[36:])
	if !okTrace || !okSpan || !someTrace || !someSpan {
		return parent{}
	}
	p.ids, p.w3c = true, true
	p.id128 = [8]byte(p.traceID[:8]) != [8]byte{}
	p.flags = flags[0]
	p.decision = drop
	if flags[0]&w3cSampled != 0 {
		p.decision = sample
	}
	return p
}

func injectW3C(h *codec.RequestHead, t *record.Trace, flags byte) {
	var b [w3cLen]byte
	b[0], b[1], b[2], b[35], b[52] = '0', '0', '-', '-', '-'
	putHex(b[3:], t.TraceID[:])
	putHex(b[36:], t.SpanID[:])
	flags &= w3cRandom
	if t.Sampled {
		flags |= w3cSampled
	}
	b[53], b[54] = '0', hexDigits[flags]
	h.SetKnown(codec.NameTraceparent, b[:])
}
