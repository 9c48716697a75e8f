// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const million = 1_000_000

// filter is a compiled access log filter.
type filter struct {
	kind   resource.LogFilterKind
	op     resource.Comparison
	value  int64
	chance uint32 // parts of a million
	sub    []*filter
	header *resource.HeaderMatch
	index  int // of the header's value
	flags  record.Flags
}

// maxFilterDepth bounds nested and/or filters.
const maxFilterDepth = 16

func (c *compiler) filter(f *resource.LogFilter) (*filter, error) { return c.filterAt(f, 0) }

func (c *compiler) filterAt(f *resource.LogFilter, depth int) (*filter, error) {
	if depth > maxFilterDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxFilterDepth)
	}
	out := &filter{kind: f.Kind, op: f.Op, value: int64(f.Value), chance: percent(f.Percent, c.opts.Runtime)}
	switch f.Kind {
	case resource.FilterStatus, resource.FilterDuration:
		if n, ok := number(c.opts.Runtime, f.Runtime); ok {
			out.value = int64(n)
		}
	case resource.FilterRuntime:
		if n, ok := number(c.opts.Runtime, f.Runtime); ok && f.Percent.RuntimeKey == "" {
			out.chance = clamp(n * 10_000) // the key counts in percent
		}
	case resource.FilterAnd, resource.FilterOr:
		for i, s := range f.Sub {
			g, err := c.filterAt(s, depth+1)
			if err != nil {
				return nil, fmt.Errorf("filters[%d]: %w", i, err)
			}
			out.sub = append(out.sub, g)
		}
	case resource.FilterHeader:
		if f.Header == nil {
			return nil, fmt.Errorf("header_filter.header: required")
		}
		out.header = f.Header
		out.index = c.capture(Capture{Kind: ReqHeaderAll, Name: f.Header.Name})
	case resource.FilterResponseFlag:
		for i, name := range f.Flags {
			b, ok := record.ParseFlag(name)
			if !ok {
				return nil, fmt.Errorf("response_flag_filter.flags[%d]: unknown flag %q", i, name)
			}
			out.flags |= b
		}
	case resource.FilterNotHealthCheck, resource.FilterTraceable:
	default:
		return nil, fmt.Errorf("unknown kind %d", f.Kind)
	}
	return out, nil
}

func percent(v resource.Percent, rt *resource.Runtime) uint32 {
	if n, ok := number(rt, v.RuntimeKey); ok && v.Denominator > 0 {
		return clamp(n * float64(million/v.Denominator))
	}
	return min(v.PerMillion, million)
}

func clamp(n float64) uint32 { return uint32(max(0, min(n, million))) }

func number(rt *resource.Runtime, key string) (float64, bool) {
	if rt == nil || key == "" {
		return 0, false
	}
	n, ok := rt.Numbers[key]
	return n, ok
}

// pass decides on the record at hand of p.
func (f *filter) pass(p *Plan, r *record.Record) bool {
	switch f.kind {
	case resource.FilterStatus:
		return compare(int64(r.Status), f.op, f.value)
	case resource.FilterDuration:
		return compare(max(r.End, 0)/1e6, f.op, f.value)
	case resource.FilterTraceable:
		return r.Trace.Sampled
	case resource.FilterRuntime:
		return f.chance >= million || p.roll() < f.chance
	case resource.FilterAnd:
		for _, s := range f.sub {
			if !s.pass(p, r) {
				return false
			}
		}
	case resource.FilterOr:
		for _, s := range f.sub {
			if s.pass(p, r) {
				return true
			}
		}
		return false
	case resource.FilterHeader:
		return matchHeader(f.header, p.value(f.index))
	case resource.FilterResponseFlag:
		if f.flags == 0 {
			return r.Flags != 0
		}
		return r.Flags&f.flags != 0
	}
	return !r.HealthCheck // FilterNotHealthCheck
}

// roll is a number below a million: of the request id, so that all proxies of a
// chain log the same requests, or a random one where there is none.
func (p *Plan) roll() uint32 {
	if id := p.value(record.CaptureRequestID); len(id) >= 8 {
		if n, err := strconv.ParseUint(string(id[:8]), 16, 32); err == nil {
			return uint32(n % million)
		}
	}
	return p.rnd.Uint32N(million)
}

func compare(v int64, op resource.Comparison, to int64) bool {
	switch op {
	case resource.OpGE:
		return v >= to
	case resource.OpLE:
		return v <= to
	case resource.OpNE:
		return v != to
	}
	return v == to
}

func matchHeader(m *resource.HeaderMatch, v []byte) bool {
	if v == nil {
		if !m.MissingOK {
			return m.Kind == resource.HeaderPresent && m.Present == m.Invert
		}
		v = []byte{}
	}
	ok := false
	switch m.Kind {
	case resource.HeaderPresent:
		ok = m.Present
	case resource.HeaderString:
		ok = matchString(&m.String, v)
	case resource.HeaderRange:
		n, err := strconv.ParseInt(string(v), 10, 64)
		ok = err == nil && n >= m.Start && n < m.End
	}
	return ok != m.Invert
}

func matchString(m *resource.StringMatch, v []byte) bool {
	if m.Kind == resource.MatchRegex {
		at := m.Regex.FindIndex(v)
		return at != nil && at[0] == 0 && at[1] == len(v)
	}
	if m.Fold {
		v = bytes.ToLower(v)
	}
	s := string(v)
	switch m.Kind {
	case resource.MatchPrefix:
		return strings.HasPrefix(s, m.Value)
	case resource.MatchSuffix:
		return strings.HasSuffix(s, m.Value)
	case resource.MatchContains:
		return strings.Contains(s, m.Value)
	}
	return s == m.Value
}
