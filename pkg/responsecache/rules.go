// SPDX-License-Identifier: Apache-2.0

package responsecache

import (
	"bytes"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Usable reports whether the answer to a request may be kept and used again at all. What
// says who is asking never is: such answers would be for one caller only. Who takes
// fields away from requests has to ask before, too.
func Usable(h *codec.RequestHead) bool {
	return h.Method == codec.MethodGet && h.BodyLength == codec.BodyNone && !h.Upgrade &&
		Anonymous(&h.Header) && h.Get("range") == nil
}

// callers are the names of what says who is asking.
var callers = codec.NewNameSet(codec.NameAuthorization, codec.NameProxyAuthorization, codec.NameCookie, codec.NameXForwardedClientCert)

// Anonymous reports whether nothing in a request says who is asking. It costs a test of
// bits where there is nothing.
func Anonymous(h *codec.Header) bool {
	return !h.MayHaveAny(&callers) ||
		!h.HasKnown(codec.NameAuthorization) && !h.HasKnown(codec.NameProxyAuthorization) &&
			!h.HasKnown(codec.NameCookie) && !h.HasKnown(codec.NameXForwardedClientCert)
}

// Safe reports whether a method leaves what is kept as it is (RFC 9110 §9.2.1).
func Safe(m codec.Method) bool {
	switch m {
	case codec.MethodGet, codec.MethodHead, codec.MethodOptions, codec.MethodTrace:
		return true
	}
	return false
}

// directives are what Cache-Control says, of a request or a response. Numbers are
// seconds, -1 where there is none; one that is no number is 0, as if it had passed. What
// is no list of directives (RFC 9111 §5.2) is no-store: nobody knows what it was to forbid.
type directives struct {
	any                                bool
	noStore, noCache, private, noStale bool
	maxAge, sMaxAge, staleIfError      int64
	minFresh, maxStale                 int64
}

// maxSeconds is what a number of seconds is cut to (RFC 9111 §1.2.2).
const maxSeconds = 1 << 31

// anyStale is max-stale without a number.
const anyStale = maxSeconds

func read(h *codec.Header) directives {
	d := directives{maxAge: -1, sMaxAge: -1, staleIfError: -1, minFresh: -1, maxStale: -1}
	for i := h.Index("cache-control", 0); i >= 0; i = h.Index("cache-control", i+1) {
		_, v, _, _ := h.At(i)
		for len(v) > 0 {
			var one []byte
			one, v = cut(v)
			if one = bytes.Trim(one, " \t"); len(one) == 0 {
				continue
			}
			d.any = true
			name, arg, given := bytes.Cut(one, []byte("="))
			name, arg = bytes.TrimRight(name, " \t"), bytes.TrimLeft(arg, " \t")
			if !codec.ValidName(name) || given && !codec.ValidName(arg) && !quoted(arg) {
				d.noStore = true
				continue
			}
			d.take(name, bytes.Trim(arg, "\""), given)
		}
	}
	return d
}

// take notes one directive. Those with a list of fields (private="a") count as without.
func (d *directives) take(name, arg []byte, given bool) {
	for _, known := range [...]struct {
		name string
		flag *bool
	}{
		{"no-store", &d.noStore}, {"no-cache", &d.noCache}, {"private", &d.private},
		{"must-revalidate", &d.noStale}, {"proxy-revalidate", &d.noStale},
	} {
		if codec.EqualFold(name, known.name) {
			*known.flag = true
			return
		}
	}
	for _, known := range [...]struct {
		name    string
		seconds *int64
	}{
		{"max-age", &d.maxAge}, {"s-maxage", &d.sMaxAge}, {"stale-if-error", &d.staleIfError},
		{"min-fresh", &d.minFresh}, {"max-stale", &d.maxStale},
	} {
		if !codec.EqualFold(name, known.name) {
			continue
		}
		n := seconds(arg)
		if known.seconds == &d.maxStale && !given {
			n = anyStale
		}
		if *known.seconds < 0 || n < *known.seconds {
			*known.seconds = n // of two the stricter one
		}
	}
	if codec.EqualFold(name, "s-maxage") {
		d.noStale = true // RFC 9111 §4.2.4
	}
}

// cut splits a list at its first comma outside of quotes.
func cut(v []byte) (first, rest []byte) {
	open := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && open:
			i++
		case c == '"':
			open = !open
		case c == ',' && !open:
			return v[:i], v[i+1:]
		}
	}
	return v, nil
}

// quoted reports whether b is one string in quotes, which are closed by its last byte.
func quoted(b []byte) bool {
	if len(b) < 2 || b[0] != '"' {
		return false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i == len(b)-1
		}
	}
	return false
}

func seconds(b []byte) int64 {
	if len(b) == 0 {
		return 0
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n > maxSeconds {
		return maxSeconds
	}
	return n
}

// lifetime is how long a response is fresh, in seconds (RFC 9111 §4.2.1). What says
// nothing is never fresh: nobody is to guess.
func lifetime(d *directives, h *codec.ResponseHead, date, wall int64) int64 {
	switch {
	case d.sMaxAge >= 0:
		return d.sMaxAge
	case d.maxAge >= 0:
		return d.maxAge
	}
	v := h.Get("expires")
	if v == nil || h.Index("expires", h.Index("expires", 0)+1) >= 0 {
		return 0
	}
	expires, ok := httpDate(v)
	if !ok {
		return 0
	}
	if date == 0 {
		date = wall
	}
	return max(expires-date, 0)
}

var dateLayouts = [...]string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC}

// httpDate reads a date of RFC 9110 §5.6.7, in seconds since 1970.
func httpDate(v []byte) (int64, bool) {
	if len(v) > 40 {
		return 0, false
	}
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, string(v)); err == nil {
			if n := t.Unix(); n > 0 && n < 1<<33 { // nanoseconds hold that
				return n, true
			}
		}
	}
	return 0, false
}
