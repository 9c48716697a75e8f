// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// B3 propagation, https://github.com/openzipkin/b3-propagation.

// extractB3 reads the single header, and the separate ones where it is absent
// or malformed: a caller may speak either.
func extractB3(h *codec.RequestHead) parent {
	if p := parseB3(h.Known(codec.NameB3)); p.found() {
		return p
	}
	return extractB3Multi(h)
}

// parseB3 reads {trace}-{span}[-{sampled}[-{parent}]] or {sampled} alone.
func parseB3(v []byte) (p parent) {
	if len(v) == 1 {
		p.decision, _ = b3Decision(v[0])
		return p
	}
	n := 16
	if len(v) > 32 && v[32] == '-' {
		n = 32
	}
	if len(v) < n+17 || v[n] != '-' || !p.setTraceID(v[:n]) {
		return parent{}
	}
	if ok, some := decodeAny(p.spanID[:], v[n+1:]); !ok || !some {
		return parent{}
	}
	rest := v[n+17:]
	if len(rest) > 0 {
		if len(rest) < 2 || rest[0] != '-' {
			return parent{}
		}
		var ok bool
		if p.decision, ok = b3Decision(rest[1]); !ok {
			return parent{}
		}
		rest = rest[2:]
	}
	if len(rest) > 0 {
		if len(rest) != 17 || rest[0] != '-' {
			return parent{}
		}
		if ok, _ := decodeAny(p.parentID[:], rest[1:]); !ok {
			return parent{}
		}
	}
	p.ids, p.join = true, true
	return p
}

func b3Decision(c byte) (d decision, ok bool) {
	switch c {
	case '0':
		return drop, true
	case '1':
		return sample, true
	case 'd':
		return debug, true
	}
	return deferred, false
}

// setTraceID takes 16 or 32 digits.
func (p *parent) setTraceID(v []byte) bool {
	switch len(v) {
	case 16:
		ok, some := decodeAny(p.traceID[8:], v)
		return ok && some
	case 32:
		ok, some := decodeAny(p.traceID[:], v)
		p.id128 = [8]byte(p.traceID[:8]) != [8]byte{}
		return ok && some
	}
	return false
}

// extractB3Multi reads the X-B3-… headers. Ids that are malformed or not
// complete leave the decision, which stands alone legally.
func extractB3Multi(h *codec.RequestHead) (p parent) {
	trace, span := h.Known(codec.NameXB3TraceID), h.Known(codec.NameXB3SpanID)
	if len(span) == 16 && p.setTraceID(trace) {
		ok, some := decodeAny(p.spanID[:], span)
		p.ids = ok && some
	}
	if v := h.Known(codec.NameXB3ParentSpanID); p.ids && v != nil {
		if len(v) != 16 {
			p.ids = false
		} else if ok, _ := decodeAny(p.parentID[:], v); !ok {
			p.ids = false
		}
	}
	if !p.ids {
		p = parent{}
	}
	p.join = p.ids
	switch string(h.Known(codec.NameXB3Sampled)) {
	case "1", "true":
		p.decision = sample
	case "0", "false":
		p.decision = drop
	}
	if string(h.Known(codec.NameXB3Flags)) == "1" {
		p.decision = debug
	}
	return p
}

func injectB3(h *codec.RequestHead, t *record.Trace, _ byte) {
	var b [32 + 1 + 16 + 2 + 17]byte
	id := b3TraceID(t)
	putHex(b[:], id)
	n := 2 * len(id)
	b[n] = '-'
	putHex(b[n+1:], t.SpanID[:])
	n += 17
	b[n], b[n+1] = '-', '0'
	switch {
	case t.Debug:
		b[n+1] = 'd'
	case t.Sampled:
		b[n+1] = '1'
	}
	n += 2
	if t.ParentID != [8]byte{} {
		b[n] = '-'
		putHex(b[n+1:], t.ParentID[:])
		n += 17
	}
	h.SetKnown(codec.NameB3, b[:n])
}

func injectB3Multi(h *codec.RequestHead, t *record.Trace, _ byte) {
	var b [32]byte
	id := b3TraceID(t)
	putHex(b[:], id)
	h.SetKnown(codec.NameXB3TraceID, b[:2*len(id)])
	putHex(b[:], t.SpanID[:])
	h.SetKnown(codec.NameXB3SpanID, b[:16])
	if t.ParentID != [8]byte{} {
		putHex(b[:], t.ParentID[:])
		h.SetKnown(codec.NameXB3ParentSpanID, b[:16])
	} else {
		h.RemoveKnown(codec.NameXB3ParentSpanID)
	}
	if t.Debug {
		b[0] = '1'
		h.SetKnown(codec.NameXB3Flags, b[:1])
		h.RemoveKnown(codec.NameXB3Sampled)
		return
	}
	b[0] = '0'
	if t.Sampled {
		b[0] = '1'
	}
	h.SetKnown(codec.NameXB3Sampled, b[:1])
	h.RemoveKnown(codec.NameXB3Flags)
}

// b3TraceID is the id in the width it is spoken of.
func b3TraceID(t *record.Trace) []byte {
	if t.ID128 {
		return t.TraceID[:]
	}
	return t.TraceID[8:]
}
