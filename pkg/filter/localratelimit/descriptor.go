// SPDX-License-Identifier: Apache-2.0

package localratelimit

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// span is an entry of the descriptor being made: its value is key[from:to].
type span struct {
	key      string
	from, to int
}

// A descriptor's key in the tables is its entries' keys and values, each behind its
// length, so that no value of a client's passes for several.

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// describe makes the descriptors of a request and finds what they are charged to.
func (f *rateFilter) describe(l *limits, b *buckets, x *filter.Exchange) {
	if l.HasRateLimits {
		f.describeBy(l, l.RateLimits, 0, b, x)
		return
	}
	if x.Route == nil {
		return
	}
	own := x.Route.RateLimits
	f.describeBy(l, own, l.Stage, b, x)
	if x.Route.IncludeHostRateLimits || l.VHRateLimits == resource.VHInclude || l.VHRateLimits == resource.VHOverride && len(own) == 0 {
		f.describeBy(l, x.Route.HostRateLimits, l.Stage, b, x)
	}
}

func (f *rateFilter) describeBy(l *limits, list []resource.RateLimit, stage uint32, b *buckets, x *filter.Exchange) {
	for i := range list {
		if r := &list[i]; r.Stage == stage && f.make(r, x) {
			f.find(l, b, r.Hits, x.Now)
		}
	}
}

// find looks up the descriptor that was made.
func (f *rateFilter) find(l *limits, b *buckets, hits uint32, now int64) {
	if r := l.exact[string(f.key)]; r != nil {
		f.charged = append(f.charged, charge{b.bucket(r, f.key, now), hits, r.shadow})
		return
	}
	for _, r := range l.open {
		if f.fits(r.entries) {
			f.charged = append(f.charged, charge{b.bucket(r, f.key, now), hits, r.shadow})
			return
		}
	}
}

func (f *rateFilter) fits(entries []resource.RateEntry) bool {
	if len(entries) != len(f.entries) {
		return false
	}
	for i := range entries {
		e, have := &entries[i], &f.entries[i]
		if e.Key != have.key || e.Value != "" && e.Value != string(f.key[have.from:have.to]) {
			return false
		}
	}
	return true
}

// make makes the descriptor of a rate limit; false: the request has none.
func (f *rateFilter) make(r *resource.RateLimit, x *filter.Exchange) bool {
	f.key, f.entries = f.key[:0], f.entries[:0]
	for i := range r.Actions {
		a := &r.Actions[i]
		v, ok := f.value(a, x)
		if !ok {
			if a.SkipIfAbsent {
				continue
			}
			return false
		}
		f.key = appendText(appendText(f.key, a.Key), v)
		f.entries = append(f.entries, span{a.Key, len(f.key) - len(v), len(f.key)})
	}
	return len(f.entries) > 0
}

// value makes an action's value, which is valid until the next one; false: it has none.
func (f *rateFilter) value(a *resource.RateAction, x *filter.Exchange) ([]byte, bool) {
	switch a.Kind {
	case resource.RateSourceCluster:
		return f.text(f.w.Service), true
	case resource.RateDestinationCluster:
		return f.text(x.Record.Cluster), x.Record.Cluster != ""
	case resource.RateRequestHeader:
		return f.header(&x.Request, a.Name)
	case resource.RateQueryParameter:
		_, query := filter.SplitPath(x.Request.Path())
		return f.parameter(query, a.Name)
	case resource.RateRemoteAddress:
		return f.address(x.Record.Remote, -1, -1)
	case resource.RateMaskedRemoteAddress:
		return f.address(x.Record.Remote, a.V4, a.V6)
	case resource.RateHeaderMatch:
		if f.headersMatch(a.Headers, x) != a.Expect {
			return nil, false
		}
	case resource.RateQueryMatch:
		if queryMatches(a.Query, x) != a.Expect {
			return nil, false
		}
	case resource.RateRemoteAddressMatch:
		if contains(a.Prefixes, x.Record.Remote) == a.Invert {
			return nil, false
		}
	}
	f.scratch = x.Editor.AppendFormat(f.scratch[:0], &a.Value)
	if len(f.scratch) == 0 {
		f.scratch = append(f.scratch, a.Default...)
	}
	return f.scratch, len(f.scratch) > 0
}

func (f *rateFilter) text(s string) []byte {
	f.scratch = append(f.scratch[:0], s...)
	return f.scratch
}

// header returns the first value of a header: that of the first of several, so that
// adding another one makes no other client of the same.
func (f *rateFilter) header(h *codec.RequestHead, name string) ([]byte, bool) {
	if i := h.Index(name, 0); i >= 0 {
		_, v, _, _ := h.At(i)
		return v, true
	}
	return filter.RequestValue(h, name, &f.scratch)
}

// parameter returns a query parameter with its escapes resolved, so that there are
// not several ways to write the same value.
func (f *rateFilter) parameter(query []byte, name string) ([]byte, bool) {
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		k, v, _ := bytes.Cut(pair, []byte{'='})
		f.scratch = appendUnescaped(f.scratch[:0], k)
		if string(f.scratch) == name {
			f.scratch = appendUnescaped(f.scratch[:0], v)
			return f.scratch, true
		}
	}
	return nil, false
}

func appendUnescaped(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			hi, lo := hex(b[i+1]), hex(b[i+2])
			if hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, b[i])
	}
	return dst
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// address writes the client's address, cut to so many bits; negative: the address alone.
func (f *rateFilter) address(at netip.AddrPort, v4, v6 int) ([]byte, bool) {
	ip := at.Addr().Unmap().WithZone("")
	if !ip.IsValid() {
		return nil, false
	}
	bits := v6
	if ip.Is4() {
		bits = v4
	}
	if bits < 0 {
		f.scratch = ip.AppendTo(f.scratch[:0])
		return f.scratch, true
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return nil, false
	}
	f.scratch = p.AppendTo(f.scratch[:0])
	return f.scratch, true
}

func contains(list []netip.Prefix, at netip.AddrPort) bool {
	ip := at.Addr().Unmap()
	for _, p := range list {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func (f *rateFilter) headersMatch(list []resource.HeaderMatch, x *filter.Exchange) bool {
	for i := range list {
		v, ok := filter.RequestValue(&x.Request, list[i].Name, &f.scratch)
		if !filter.MatchHeader(&list[i], v, ok) {
			return false
		}
	}
	return true
}

func queryMatches(list []resource.QueryMatch, x *filter.Exchange) bool {
	_, query := filter.SplitPath(x.Request.Path())
	for i := range list {
		m := &list[i]
		v, ok := filter.QueryValue(query, m.Name)
		if m.String != nil {
			ok = ok && filter.MatchString(m.String, v)
		} else {
			ok = ok == m.Present
		}
		if !ok {
			return false
		}
	}
	return true
}
