// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxList bounds the entries of one list: more is a mistake, and iptables looks at
// one after the other.
const maxList = 1024

// Range is a range of ports or of user or group ids, both ends included.
type Range struct{ Lo, Hi uint32 }

// String is LO, or LO-HI.
func (r Range) String() string { return r.text("-") }

func (r Range) text(separator string) string {
	if r.Lo == r.Hi {
		return strconv.FormatUint(uint64(r.Lo), 10)
	}
	return strconv.FormatUint(uint64(r.Lo), 10) + separator + strconv.FormatUint(uint64(r.Hi), 10)
}

// ParsePorts reads port numbers and ranges (8000-8010), each from 1 to 65535. The
// result is sorted, and ranges that overlap or touch are one. All faults are
// returned.
func ParsePorts(entries []string) ([]Range, error) {
	return parseRanges(entries, "port", 1, math.MaxUint16, nil)
}

// ParseIDs reads numbers and ranges of user or group ids, and names where lookup
// knows them; nil knows none.
func ParseIDs(entries []string, lookup func(name string) (uint32, error)) ([]Range, error) {
	return parseRanges(entries, "id", 0, math.MaxUint32-1, lookup) // 2³²-1 means "no id" to the kernel
}

func parseRanges(entries []string, what string, least, most uint32, lookup func(string) (uint32, error)) ([]Range, error) {
	var out []Range
	var faults []error
	if len(entries) > maxList {
		return nil, fmt.Errorf("%d entries: want at most %d", len(entries), maxList)
	}
	for _, e := range entries {
		e = strings.TrimSpace(e)
		if lookup != nil && e != "" && (e[0] < '0' || e[0] > '9') {
			id, err := lookup(e)
			if err != nil {
				faults = append(faults, fmt.Errorf("%q: %w", clip(e), err))
				continue
			}
			out = append(out, Range{id, id})
			continue
		}
		first, last, isRange := strings.Cut(e, "-")
		if !isRange {
			last = first
		}
		lo, err1 := number(first, least, most)
		hi, err2 := number(last, least, most)
		switch {
		case err1 != nil || err2 != nil:
			faults = append(faults, fmt.Errorf("%q: want a %s from %d to %d, or a range LO-HI", clip(e), what, least, most))
		case lo > hi:
			faults = append(faults, fmt.Errorf("%q: the range ends before it begins", clip(e)))
		default:
			out = append(out, Range{lo, hi})
		}
	}
	return joinRanges(out), errors.Join(faults...)
}

// number takes plain decimal digits only.
func number(s string, least, most uint32) (uint32, error) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, err
	}
	if n < uint64(least) || n > uint64(most) {
		return 0, strconv.ErrRange
	}
	return uint32(n), nil
}

// joinRanges sorts, and makes one of what overlaps or touches: nftables refuses
// sets whose intervals overlap.
func joinRanges(rs []Range) []Range {
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Or(cmp.Compare(a.Lo, b.Lo), cmp.Compare(a.Hi, b.Hi)) })
	var out []Range
	for _, r := range rs {
		if n := len(out); n > 0 && uint64(r.Lo) <= uint64(out[n-1].Hi)+1 {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

func contains(rs []Range, n uint32) bool {
	return slices.ContainsFunc(rs, func(r Range) bool { return r.Lo <= n && n <= r.Hi })
}

// ParsePrefixes reads networks (10.0.0.0/8, fd00::/8) and single addresses. Bits
// behind the prefix must be zero: an entry that says two things is a mistake. The
// result is sorted and has no network that lies in another.
func ParsePrefixes(entries []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var faults []error
	if len(entries) > maxList {
		return nil, fmt.Errorf("%d entries: want at most %d", len(entries), maxList)
	}
	for _, e := range entries {
		e = strings.TrimSpace(e)
		p, err := netip.ParsePrefix(e)
		if a, errAddr := netip.ParseAddr(e); errAddr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
			if a.Zone() != "" {
				err = errors.New("zone")
			}
		}
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("%q: want a network such as 10.0.0.0/8 or fd00::/8, or an address", clip(e)))
		case p.Addr().Is4In6():
			faults = append(faults, fmt.Errorf("%q: write it as IPv4: %s", clip(e), p.Addr().Unmap()))
		case p.Masked() != p:
			faults = append(faults, fmt.Errorf("%q: has bits behind the prefix; want %s", clip(e), p.Masked()))
		default:
			out = append(out, p)
		}
	}
	return joinPrefixes(out), errors.Join(faults...)
}

func joinPrefixes(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range ps {
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) {
			continue // sorted: what contains p comes before it
		}
		out = append(out, p)
	}
	return out
}

// ofFamily are the networks of IPv4, or of IPv6.
func ofFamily(ps []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if p.Addr().Is4() != v6 {
			out = append(out, p)
		}
	}
	return out
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
