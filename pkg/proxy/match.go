// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// matchString reports whether b matches m.
func matchString(m *resource.StringMatch, b []byte) bool {
	switch m.Kind {
	case resource.MatchExact:
		if m.Fold {
			return codec.EqualFold(b, m.Value)
		}
		return string(b) == m.Value
	case resource.MatchPrefix:
		return len(b) >= len(m.Value) && equal(b[:len(m.Value)], m.Value, m.Fold)
	case resource.MatchSuffix:
		return len(b) >= len(m.Value) && equal(b[len(b)-len(m.Value):], m.Value, m.Fold)
	case resource.MatchContains:
		return containsString(b, m.Value, m.Fold)
	case resource.MatchRegex:
		return fullMatch(m.Regex, b)
	}
	return false
}

func equal(b []byte, s string, fold bool) bool {
	if fold {
		return codec.EqualFold(b, s)
	}
	return string(b) == s
}

func containsString(b []byte, s string, fold bool) bool {
	for i := 0; i+len(s) <= len(b); i++ {
		if equal(b[i:i+len(s)], s, fold) {
			return true
		}
	}
	return false
}

// matcher is the part of *regexp.Regexp that matching needs.
type matcher interface{ Match(b []byte) bool }

// fullMatch relies on decode, which anchors every expression at both ends: a
// safe_regex must match the whole text.
func fullMatch(re matcher, b []byte) bool { return re.Match(b) }

// requestValue returns what a matcher on a request header sees: pseudo headers
// by their parts, all values of a name joined. scratch is overwritten.
func requestValue(h *codec.RequestHead, name string, scratch *[]byte) ([]byte, bool) {
	if len(name) > 0 && name[0] == ':' {
		switch name {
		case ":method":
			return h.MethodBytes(), true
		case ":path":
			return h.Path(), true
		case ":authority":
			return h.Authority(), true
		case ":scheme":
			return h.Scheme(), len(h.Scheme()) > 0
		}
		return nil, false
	}
	switch name {
	case "host":
		return h.Authority(), true
	case "upgrade": // the decoder took it out of the list
		return h.UpgradeProtocol(), h.Upgrade
	}
	return joinedValue(&h.Header, name, scratch)
}

func joinedValue(h *codec.Header, name string, scratch *[]byte) ([]byte, bool) {
	first := h.Index(name, 0)
	if first < 0 {
		return nil, false
	}
	if h.Index(name, first+1) < 0 {
		_, v, _, _ := h.At(first)
		return v, true
	}
	b, ok := h.AppendJoined((*scratch)[:0], name)
	*scratch = b
	return b, ok
}

// matchHeader applies m to a value that was found or not.
func matchHeader(m *resource.HeaderMatch, v []byte, found bool) bool {
	if !found && m.MissingOK && m.Kind != resource.HeaderPresent {
		v, found = nil, true
	}
	ok := false
	switch m.Kind {
	case resource.HeaderPresent:
		ok = found == m.Present
	case resource.HeaderString:
		if !found {
			return false // not even inverted: Envoy's rule for absent headers
		}
		ok = matchString(&m.String, v)
	case resource.HeaderRange:
		if !found {
			return false
		}
		n, err := strconv.ParseInt(string(v), 10, 64)
		ok = err == nil && n >= m.Start && n < m.End
	}
	return ok != m.Invert
}

// splitPath cuts a target into path and query; the query has no question mark.
func splitPath(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i+1:]
	}
	return target, nil
}

// queryValue finds a parameter; the first one of the name counts. Values are
// compared as they are on the wire, as Envoy does.
func queryValue(query []byte, name string) ([]byte, bool) {
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		k, v := pair, []byte(nil)
		if i := bytes.IndexByte(pair, '='); i >= 0 {
			k, v = pair[:i], pair[i+1:]
		}
		if string(k) == name {
			return v, true
		}
	}
	return nil, false
}

// cookieValue finds a cookie in all Cookie fields.
func cookieValue(h *codec.Header, name string) ([]byte, bool) {
	for i := h.Index("cookie", 0); i >= 0; i = h.Index("cookie", i+1) {
		_, v, _, _ := h.At(i)
		for len(v) > 0 {
			part := v
			if j := bytes.IndexByte(v, ';'); j >= 0 {
				part, v = v[:j], v[j+1:]
			} else {
				v = nil
			}
			part = bytes.TrimLeft(part, " \t")
			if len(part) > len(name) && part[len(name)] == '=' && string(part[:len(name)]) == name {
				return bytes.Trim(part[len(name)+1:], `"`), true
			}
		}
	}
	return nil, false
}

// matchPath applies the path part of a route match to a path without query.
func matchPath(m *resource.RouteMatch, path []byte) bool {
	switch m.Kind {
	case resource.PathPrefix:
		return len(path) >= len(m.Path) && equal(path[:len(m.Path)], m.Path, m.CaseFold)
	case resource.PathExact:
		return len(path) == len(m.Path) && equal(path, m.Path, m.CaseFold)
	case resource.PathSeparatedPrefix:
		return len(path) >= len(m.Path) && equal(path[:len(m.Path)], m.Path, m.CaseFold) &&
			(len(path) == len(m.Path) || path[len(m.Path)] == '/')
	case resource.PathRegex:
		return fullMatch(m.Regex, path)
	}
	return false
}

// extractFragment takes a scope key's part out of a header's value.
func extractFragment(f *resource.ScopeFragment, v []byte) ([]byte, bool) {
	if f.Separator == "" {
		return v, true
	}
	elements := bytes.Split(v, []byte(f.Separator))
	if f.Key == "" {
		if f.Index >= len(elements) {
			return nil, false
		}
		return elements[f.Index], true
	}
	for _, e := range elements {
		k, val, ok := bytes.Cut(e, []byte(f.KeySep))
		if ok && string(k) == f.Key {
			return val, true
		}
	}
	return nil, false
}
