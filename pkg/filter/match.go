// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"bytes"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// MatchString reports whether b matches m.
func MatchString(m *resource.StringMatch, b []byte) bool {
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

// equal compares, without case where fold.
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

// RequestValue returns what a matcher on a request header sees: pseudo headers
// by their parts, all values of a name joined. scratch is overwritten.
func RequestValue(h *codec.RequestHead, name string, scratch *[]byte) ([]byte, bool) {
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
	return JoinedValue(&h.Header, name, scratch)
}

// JoinedValue returns all values of a field joined; scratch is overwritten where there
// are several.
func JoinedValue(h *codec.Header, name string, scratch *[]byte) ([]byte, bool) {
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

// MatchHeader applies m to a value that was found or not.
func MatchHeader(m *resource.HeaderMatch, v []byte, found bool) bool {
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
		ok = MatchString(&m.String, v)
	case resource.HeaderRange:
		if !found {
			return false
		}
		n, err := strconv.ParseInt(string(v), 10, 64)
		ok = err == nil && n >= m.Start && n < m.End
	}
	return ok != m.Invert
}

// SplitPath cuts a target into path and query; the query has no question mark.
func SplitPath(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i+1:]
	}
	return target, nil
}

// QueryValue finds a parameter; the first one of the name counts. Values are
// compared as they are on the wire, as Envoy does.
func QueryValue(query []byte, name string) ([]byte, bool) {
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
