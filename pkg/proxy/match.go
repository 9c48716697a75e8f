// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Matching is the same for routes, retries and filters; these are pkg/filter's.

func matchString(m *resource.StringMatch, b []byte) bool { return filter.MatchString(m, b) }

func requestValue(h *codec.RequestHead, name string, scratch *[]byte) ([]byte, bool) {
	return filter.RequestValue(h, name, scratch)
}

func joinedValue(h *codec.Header, name string, scratch *[]byte) ([]byte, bool) {
	return filter.JoinedValue(h, name, scratch)
}

func matchHeader(m *resource.HeaderMatch, v []byte, found bool) bool {
	return filter.MatchHeader(m, v, found)
}

func splitPath(target []byte) (path, query []byte) { return filter.SplitPath(target) }

func queryValue(query []byte, name string) ([]byte, bool) { return filter.QueryValue(query, name) }

func equal(b []byte, s string, fold bool) bool {
	if fold {
		return codec.EqualFold(b, s)
	}
	return string(b) == s
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
		return m.Regex.Match(path)
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
