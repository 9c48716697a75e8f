// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// otherForm reads a target that is not in origin form (RFC 9112 §3.2).
func otherForm(in []byte, off, end int, h *codec.RequestHead) *Error {
	target := in[off:end]
	switch {
	case h.Method == codec.MethodConnect:
		_, _, hasPort := codec.SplitPort(target)
		if bytes.IndexByte(target, '@') >= 0 {
			return errTargetUserinfo
		}
		if !hasPort || !codec.ValidAuthority(target) {
			return errTargetForm
		}
		h.Form = codec.AuthorityForm
		h.SetAuthoritySpan(off, end)
		return nil
	case len(target) == 1 && target[0] == '*':
		if h.Method != codec.MethodOptions {
			return errTargetForm
		}
		h.Form = codec.AsteriskForm
		h.SetPathSpan(off, end)
		return nil
	}
	return absoluteForm(in, off, end, h)
}

// absoluteForm reads scheme "://" authority path-abempty ["?" query].
func absoluteForm(in []byte, off, end int, h *codec.RequestHead) *Error {
	colon := bytes.IndexByte(in[off:end], ':')
	if colon < 0 {
		return errTargetForm
	}
	colon += off
	host := colon + 3
	if host > end || in[colon+1] != '/' || in[colon+2] != '/' {
		return errTargetForm
	}
	if scheme := in[off:colon]; !codec.EqualFold(scheme, "http") && !codec.EqualFold(scheme, "https") {
		return errTargetScheme
	}
	path := host
	for path < end && in[path] != '/' && in[path] != '?' {
		path++
	}
	if bytes.IndexByte(in[host:path], '@') >= 0 {
		return errTargetUserinfo
	}
	if !codec.ValidAuthority(in[host:path]) {
		return errTarget
	}
	h.Form = codec.AbsoluteForm
	h.SetSchemeSpan(off, colon)
	h.SetAuthoritySpan(host, path)
	h.SetPathSpan(path, end)
	if path == end && h.Method != codec.MethodOptions {
		h.SetPathSpan(colon+1, colon+2) // an empty path is "/": the first of the two
	}
	return nil
}

// normaliseAbsolute gives scheme and path of an absolute target the form that
// matchers expect. It copies, and so waits until the buffer has its final size.
func normaliseAbsolute(h *codec.RequestHead) {
	switch path := h.Path(); {
	case len(path) == 0:
		h.SetPath([]byte{'*'}) // OPTIONS of the server as a whole, RFC 9112 §3.2.4
	case path[0] == '?':
		h.SetPath(append([]byte{'/'}, path...))
	}
	if scheme := h.Scheme(); scheme[0] != 'h' || bytes.ContainsAny(scheme, "HTPS") {
		h.SetScheme(bytes.ToLower(scheme))
	}
}

// judgeHost applies RFC 9112 §3.2: one valid Host in HTTP/1.1. With an absolute
// target or CONNECT the RFC would have Host ignored; here it must name the same,
// because a backend may believe either.
func judgeHost(in []byte, h *codec.RequestHead, f *facts) *Error {
	switch {
	case f.hosts > 1:
		return errHostRepeated
	case f.hosts == 0 && h.Protocol == codec.HTTP11:
		return errHostMissing
	case f.hosts == 0:
		return nil
	}
	host := f.host.of(in)
	if len(host) == 0 && h.Protocol == codec.HTTP10 {
		return nil
	}
	if !codec.ValidAuthority(host) {
		return errHost
	}
	switch h.Form {
	case codec.AbsoluteForm:
		port := "80"
		if len(h.Scheme()) == len("https") {
			port = "443"
		}
		if !sameAuthority(host, h.Authority(), port) {
			return errHostDiffers
		}
	case codec.AuthorityForm:
		// Some clients send Host without the port that the target must have.
		name, port, _ := codec.SplitPort(h.Authority())
		if !equalFold(host, h.Authority()) && !(equalFold(host, name) && len(port) > 0) {
			return errHostDiffers
		}
	default:
		h.SetAuthoritySpan(f.host.off, f.host.end)
	}
	return nil
}

// sameAuthority compares without case, and takes a missing port for defaultPort.
func sameAuthority(a, b []byte, defaultPort string) bool {
	hostA, portA, hasA := codec.SplitPort(a)
	hostB, portB, hasB := codec.SplitPort(b)
	if !equalFold(hostA, hostB) {
		return false
	}
	switch {
	case hasA == hasB:
		return bytes.Equal(portA, portB)
	case hasA:
		return string(portA) == defaultPort
	}
	return string(portB) == defaultPort
}
