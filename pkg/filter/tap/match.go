// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

func newRuleState(r *tap.Rule) ruleState {
	return ruleState{Rule: r, tokens: float64(r.Match.MaxPerSecond)}
}

// mayMatch decides what the request alone decides. Sampling belongs here: what
// is not sampled must cost nothing more. Each rule rolls its own dice.
func (r *ruleState) mayMatch(x *filter.Exchange, index uint64) bool {
	m := &r.Match
	if !r.begins(x.Record.Start, x.Random, index) || !m.HoldsPeer(x.Record.Security) {
		return false
	}
	if len(m.ServerNames) > 0 {
		var b [256]byte
		if s := x.Record.Security; s == nil || !m.HoldsServerName(appendLower(b[:0], s.ServerName)) {
			return false
		}
	}
	h := &x.Request
	if m.Method != "" && string(h.MethodBytes()) != m.Method {
		return false
	}
	if len(h.Path()) < len(m.PathPrefix) || string(h.Path()[:len(m.PathPrefix)]) != m.PathPrefix {
		return false
	}
	for i := range m.Headers {
		if !headerHolds(h, &m.Headers[i]) {
			return false
		}
	}
	return true
}

// begins decides what nothing but the beginning decides: life and sampling. Start is
// unix nanoseconds.
func (r *ruleState) begins(start int64, random, index uint64) bool {
	if r.Expires != 0 && start >= r.Expires {
		return false
	}
	s := r.Match.Sample
	return s >= 1_000_000 || mix(random+index*0x9e3779b97f4a7c15)%1_000_000 < uint64(s)
}

// mix is a finalizer of 64 bits (SplitMix64).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// headerHolds compares any of the values: a copy too many is harmless, one that
// a second field prevents is not wanted.
func headerHolds(h *codec.RequestHead, m *tap.HeaderMatch) bool {
	for i := h.Index(m.Name, 0); i >= 0; i = h.Index(m.Name, i+1) {
		_, v, _, _ := h.At(i)
		if m.Value == "" || bytes.Equal(v, []byte(m.Value)) {
			return true
		}
	}
	return false
}

// appendLower appends a server name in lower case.
func appendLower[T []byte | string](dst []byte, name T) []byte {
	at := len(dst)
	dst = append(dst, name...)
	for i, c := range dst[at:] {
		if c >= 'A' && c <= 'Z' {
			dst[at+i] = c | 0x20
		}
	}
	return dst
}

// allow takes a token. The bucket holds one second's worth, so that copies are
// spread over time rather than bunched at its start.
func (r *ruleState) allow(now int64) bool {
	rate := float64(r.Match.MaxPerSecond)
	if rate == 0 {
		return true
	}
	if r.last != 0 {
		r.tokens = min(rate, r.tokens+float64(now-r.last)*rate/1e9)
	}
	r.last = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}
