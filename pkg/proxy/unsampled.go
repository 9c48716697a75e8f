// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// sampling is the bytes of a trace context that say whether it is sampled, and
// what they said; nil where a format is not there.
type sampling [4]struct {
	at  *byte
	was byte
}

// unsample makes the request's trace context say that it is not sampled, for a
// mirror that is not to be traced; restore takes that back.
func (x *exchange) unsample() (s sampling) {
	h := &x.Request
	if v := h.Known(codec.NameTraceparent); len(v) == 55 { // version, two ids, flags: W3C Trace Context §3.2
		s[0].at = &v[54]
	}
	if v := h.Known(codec.NameXB3Sampled); len(v) == 1 {
		s[1].at = &v[0]
	}
	if v := h.Known(codec.NameXB3Flags); len(v) == 1 { // debug implies sampled
		s[2].at = &v[0]
	}
	s[3].at = b3Sampling(h.Known(codec.NameB3))
	for i := range s {
		if b := s[i].at; b != nil {
			s[i].was, *b = *b, '0'
		}
	}
	return s
}

func (s *sampling) restore() {
	for i := range s {
		if b := s[i].at; b != nil {
			*b = s[i].was
		}
	}
}

// b3Sampling finds the sampling state in a b3 header: it alone, or behind two ids.
func b3Sampling(v []byte) *byte {
	if len(v) == 1 {
		return &v[0]
	}
	for range 2 {
		i := bytes.IndexByte(v, '-')
		if i < 0 {
			return nil
		}
		v = v[i+1:]
	}
	if len(v) == 0 || len(v) > 1 && v[1] != '-' {
		return nil
	}
	return &v[0]
}
