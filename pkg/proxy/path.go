// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// normalisePath makes the path what matchers and the upstream both see: what is
// matched is what is forwarded.
func (x *exchange) normalisePath() filter.Verdict {
	m := x.manager.res
	if !m.NormalizePath && !m.MergeSlashes && m.EscapedSlashes == resource.SlashesKeep {
		return filter.Next
	}
	target := x.Request.Path()
	path, query := splitPath(target)
	if len(path) == 0 || path[0] != '/' || !needsWork(path) {
		return filter.Next
	}
	b := append(x.w.rewrite[:0], path...)
	redirect := false
	if m.EscapedSlashes != resource.SlashesKeep && hasEscapedSlash(b) {
		if m.EscapedSlashes == resource.SlashesReject {
			return x.reply(&failureEscapedSlash)
		}
		b = unescapeSlashes(b)
		redirect = m.EscapedSlashes == resource.SlashesUnescapeRedirect
	}
	ok := true
	if m.NormalizePath {
		if b, ok = normalise(b); !ok {
			return x.reply(&failureBadPath)
		}
	}
	if m.MergeSlashes {
		b = mergeSlashes(b)
	}
	if len(target) > len(path) {
		b = append(append(b, '?'), query...)
	}
	x.w.rewrite = b
	if redirect {
		// A location that begins with two slashes would name a host.
		lead := 0
		for lead+1 < len(b) && (b[lead+1] == '/' || b[lead+1] == '\\') {
			lead++
		}
		b[lead] = '/'
		x.location = append(x.location[:0], b[lead:]...)
		x.Local = filter.LocalReply{Status: 307, Details: "path_normalization_failed"}
		return filter.Reply
	}
	x.Request.SetPath(b)
	return filter.Next
}

// needsWork is a quick look: most paths have no dot segment, escape or double slash.
func needsWork(p []byte) bool {
	for i, c := range p {
		switch c {
		case '%', '\\':
			return true
		case '.', '/':
			if i > 0 && p[i-1] == '/' {
				return true
			}
		}
	}
	return false
}

func hasEscapedSlash(p []byte) bool {
	for i := 0; i+2 < len(p); i++ {
		if p[i] == '%' && isSlashCode(p[i+1], p[i+2]) {
			return true
		}
	}
	return false
}

func isSlashCode(a, b byte) bool {
	return a == '2' && b|0x20 == 'f' || a == '5' && b|0x20 == 'c'
}

func unescapeSlashes(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) && isSlashCode(p[i+1], p[i+2]) {
			if p[i+1] == '2' {
				out = append(out, '/')
			} else {
				out = append(out, '\\')
			}
			i += 2
			continue
		}
		out = append(out, p[i])
	}
	return out
}

// normalise follows RFC 3986 §6: escapes of unreserved characters are decoded,
// the others get capital digits, dot segments are removed. It reports false for
// a broken escape, an escaped NUL, and a path that leaves its root.
func normalise(p []byte) ([]byte, bool) {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch c {
		case '%':
			if i+2 >= len(p) {
				return nil, false
			}
			hi, ok1 := unhex(p[i+1])
			lo, ok2 := unhex(p[i+2])
			if !ok1 || !ok2 {
				return nil, false
			}
			v := hi<<4 | lo
			if v == 0 {
				return nil, false
			}
			if unreserved(v) {
				out = append(out, v)
			} else {
				out = append(out, '%', upperHex[hi], upperHex[lo])
			}
			i += 2
		case '\\':
			out = append(out, '/')
		default:
			out = append(out, c)
		}
	}
	return removeDots(out)
}

const upperHex = "0123456789ABCDEF"

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func unreserved(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// removeDots removes dot segments (RFC 3986 §5.2.4) in place.
func removeDots(p []byte) ([]byte, bool) {
	out := p[:0]
	for i := 0; i < len(p); {
		// p[i] is a slash: a segment runs to the next one.
		end := bytes.IndexByte(p[i+1:], '/')
		last := end < 0
		if last {
			end = len(p)
		} else {
			end += i + 1
		}
		switch seg := p[i+1 : end]; string(seg) {
		case ".":
			if last {
				out = append(out, '/')
			}
		case "..":
			cut := bytes.LastIndexByte(out, '/')
			if cut < 0 {
				return nil, false
			}
			out = out[:cut]
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, p[i:end]...)
		}
		i = end
	}
	return out, true
}

func mergeSlashes(p []byte) []byte {
	out := p[:0]
	for i, c := range p {
		if c == '/' && i > 0 && p[i-1] == '/' {
			continue
		}
		out = append(out, c)
	}
	return out
}
