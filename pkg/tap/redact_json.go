// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// jsonPath is a compiled path: steps from the root.
type jsonPath []jsonStep

// jsonStep is one member (name), one element (index ≥ 0), any of both (any), or
// with deep any number of levels before it.
type jsonStep struct {
	name  string
	index int // -1: a member
	any   bool
	deep  bool
}

// parseJSONPath reads $.a.b, $['a'], $.a[0], $.a[*], $.* and $..a.
func parseJSONPath(s string) (jsonPath, error) {
	if !strings.HasPrefix(s, "$") || len(s) > 1024 {
		return nil, fmt.Errorf(`%q: a path starts with "$" and has at most 1024 bytes`, s)
	}
	var p jsonPath
	for rest := s[1:]; rest != ""; {
		var st jsonStep
		st.index = -1
		switch {
		case strings.HasPrefix(rest, ".."):
			st.deep = true
			rest = rest[2:]
			if strings.HasPrefix(rest, "[") {
				break
			}
			rest = "." + rest
		case rest[0] != '.' && rest[0] != '[':
			return nil, fmt.Errorf(`%q: want "." or "[" at %q`, s, rest)
		}
		var err error
		if rest, err = st.read(rest); err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		p = append(p, st)
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%q: names the whole document", s)
	}
	return p, nil
}

// read takes one step from the front of s: ".name", ".*", "[n]", "[*]" or "['name']".
func (st *jsonStep) read(s string) (rest string, err error) {
	if s[0] == '.' {
		end := strings.IndexAny(s[1:], ".[")
		if end < 0 {
			end = len(s) - 1
		}
		st.name = s[1 : 1+end]
		if st.name == "" {
			return "", fmt.Errorf("an empty name at %q", s)
		}
		st.any = st.name == "*"
		return s[1+end:], nil
	}
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return "", fmt.Errorf("a bracket is not closed at %q", s)
	}
	in := s[1:end]
	switch {
	case in == "*":
		st.any = true
	case len(in) >= 2 && (in[0] == '\'' || in[0] == '"') && in[len(in)-1] == in[0]:
		st.name = in[1 : len(in)-1]
	default:
		n, err := strconv.Atoi(in)
		if err != nil || n < 0 {
			return "", fmt.Errorf("%q is neither a number nor a quoted name", in)
		}
		st.index = n
	}
	return s[end+1:], nil
}

// matches reports whether the path leads exactly to the place.
func (p jsonPath) matches(place []jsonStep) bool {
	if len(p) == 0 {
		return len(place) == 0
	}
	if len(place) == 0 {
		return false
	}
	if p[0].deep {
		for i := range place {
			if p[0].one(&place[i]) && p[1:].matches(place[i+1:]) {
				return true
			}
		}
		return false
	}
	return p[0].one(&place[0]) && p[1:].matches(place[1:])
}

func (st *jsonStep) one(place *jsonStep) bool {
	return st.any || st.index == place.index && st.name == place.name
}

// maxJSONDepth is where a document is withheld from: what is deeper cannot be
// told to be harmless.
const maxJSONDepth = 128

// redactJSON hides the values that paths lead to and those of members with secret
// names. The text may be cut anywhere; a secret value that the cut runs through
// is hidden as a whole. Where it is no JSON, it ends, and bad is true. The input
// is not written to.
func redactJSON(b []byte, paths []jsonPath) (out []byte, n uint32, bad bool) {
	s := jsonScan{in: b, paths: paths}
	for s.space(); s.i < len(b); s.space() { // one value, or a stream of them
		if !s.value(false) {
			bad = s.i < len(b)
			break
		}
	}
	if s.hidden == 0 && !bad {
		return b, 0, false
	}
	return append(s.out, b[min(s.copied, s.i):s.i]...), s.hidden, bad
}

// jsonScan walks a text and copies it to out but for what is hidden.
type jsonScan struct {
	in     []byte
	i      int
	copied int
	out    []byte
	paths  []jsonPath
	place  []jsonStep
	hidden uint32
}

func (s *jsonScan) space() {
	for s.i < len(s.in) {
		switch s.in[s.i] {
		case ' ', '\t', '\r', '\n', 0xef, 0xbb, 0xbf:
			s.i++
		default:
			return
		}
	}
}

// value reads one value, hiding it if it is secret; false means that the text
// ended or is no JSON from here on.
func (s *jsonScan) value(secret bool) bool {
	s.space()
	if s.i >= len(s.in) {
		return false
	}
	if !secret {
		secret = s.listed()
	}
	from := s.i
	if secret || len(s.place) > maxJSONDepth {
		ok := s.skip()
		s.out = append(append(append(s.out, s.in[s.copied:from]...), '"'), Redacted...)
		s.out = append(s.out, '"')
		s.copied = s.i
		s.hidden++
		return ok
	}
	switch s.in[s.i] {
	case '{':
		return s.object()
	case '[':
		return s.array()
	case '"':
		_, ok := s.string()
		return ok
	}
	return s.scalar()
}

func (s *jsonScan) listed() bool {
	for _, p := range s.paths {
		if p.matches(s.place) {
			return true
		}
	}
	return false
}

func (s *jsonScan) object() bool {
	s.i++
	for first := true; ; first = false {
		s.space()
		if s.i >= len(s.in) {
			return false
		}
		if s.in[s.i] == '}' {
			s.i++
			return true
		}
		if !first {
			if s.in[s.i] != ',' {
				return false
			}
			s.i++
			s.space()
		}
		name, ok := s.string()
		if !ok {
			return false
		}
		s.space()
		if s.i >= len(s.in) || s.in[s.i] != ':' {
			return false
		}
		s.i++
		s.place = append(s.place, jsonStep{name: name, index: -1})
		ok = s.value(isSecretName(name))
		s.place = s.place[:len(s.place)-1]
		if !ok {
			return false
		}
	}
}

func (s *jsonScan) array() bool {
	s.i++
	for n := 0; ; n++ {
		s.space()
		if s.i >= len(s.in) {
			return false
		}
		if s.in[s.i] == ']' {
			s.i++
			return true
		}
		if n > 0 {
			if s.in[s.i] != ',' {
				return false
			}
			s.i++
		}
		s.place = append(s.place, jsonStep{index: n})
		ok := s.value(false)
		s.place = s.place[:len(s.place)-1]
		if !ok {
			return false
		}
	}
}

// string reads a quoted string and undoes its escapes.
func (s *jsonScan) string() (v string, ok bool) {
	if s.i >= len(s.in) || s.in[s.i] != '"' {
		return "", false
	}
	from, escaped := s.i, false
	for s.i++; s.i < len(s.in); s.i++ {
		switch s.in[s.i] {
		case '\\':
			escaped = true
			s.i++
		case '"':
			s.i++
			raw := s.in[from:s.i]
			if !escaped {
				return string(raw[1 : len(raw)-1]), true
			}
			if json.Unmarshal(raw, &v) != nil {
				v = string(raw)
			}
			return v, true
		}
	}
	s.i = len(s.in)
	return "", false
}

// scalar reads a number or a word.
func (s *jsonScan) scalar() bool {
	from := s.i
	for s.i < len(s.in) {
		switch s.in[s.i] {
		case ',', '}', ']', ' ', '\t', '\r', '\n', ':', '"', '{', '[':
			return s.i > from
		}
		s.i++
	}
	return true
}

// skip passes over one value of any depth without looking into it.
func (s *jsonScan) skip() bool {
	depth := 0
	for {
		s.space()
		if s.i >= len(s.in) {
			return false
		}
		switch s.in[s.i] {
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			depth--
			s.i++
		case '"':
			if _, ok := s.string(); !ok {
				return false
			}
		case ',', ':':
			s.i++
		default:
			if !s.scalar() {
				return false
			}
		}
		if depth <= 0 {
			return true
		}
	}
}
