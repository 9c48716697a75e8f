// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Redacted stands where a value was hidden.
const Redacted = "[redacted]"

// RedactConfig is what a rule hides on top of what is always hidden.
type RedactConfig struct {
	Headers   []string `json:"headers"`   // names, without case
	JSONPaths []string `json:"jsonPaths"` // $.a.b, $.a[0], $.a[*].b, $..c
	Patterns  []string `json:"patterns"`  // names of detectors, or "regex:" and an RE2 expression
}

// Redactor takes secrets out of records, off the loops and before any disk.
//
// Always hidden are the values of secret headers (secretHeaders, and names that
// isSecretName finds), of query parameters, form fields and JSON members with
// secret names, anything that looks like a JWT or a private key, and what stands
// before the host of a URL. XML is searched as text. A body whose encoding cannot be
// undone, or that has several parts, is withheld as a whole, because it cannot be
// searched. Of connections, see stream.
type Redactor struct {
	headers  map[string]bool
	paths    []jsonPath
	patterns []pattern
	bytes    bool // bodies are bytes of connections: see stream
	expr     bool // a pattern is an expression of the rule
	lines    bool // one of them may match a line's end
}

// secretHeaders are hidden whatever the rule says, besides those that
// isSecretName finds.
var secretHeaders = map[string]bool{
	"authorization": true, "cookie": true, "set-cookie": true, "cookie2": true, "set-cookie2": true, "x-api-key": true,
	"proxy-authorization": true, "proxy-authenticate": true, "proxy-authentication-info": true,
	"authentication-info": true, "www-authenticate": true, "x-forwarded-client-cert": true,
	"x-amz-security-token": true, "x-csrf-token": true, "x-vault-token": true, "sec-websocket-key": true,
}

// secretWords make a name secret, wherever in it they stand, without case and
// without separators.
var secretWords = []string{
	"token", "secret", "password", "passwd", "passphrase", "apikey", "privatekey", "accesskey", "credential",
	"sessionid", "signature", "authcode", "clientassertion", "jwt",
}

// secretNames are secret as a whole only: as a part of a word they mean other
// things.
var secretNames = map[string]bool{"pwd": true, "pass": true, "pin": true, "cvv": true, "cvc": true, "sid": true, "sig": true, "auth": true, "session": true, "otp": true}

// isSecretName decides on the name of a header, parameter or member.
func isSecretName(name string) bool {
	var b [64]byte
	s := b[:0]
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			s = append(s, c|0x20)
		case c == '-' || c == '_' || c == '.' || c == ' ':
		default:
			s = append(s, c)
		}
	}
	if secretNames[string(s)] {
		return true
	}
	for _, w := range secretWords {
		if bytes.Contains(s, []byte(w)) {
			return true
		}
	}
	return false
}

// NewRedactor compiles a rule's settings; errors name the field.
func NewRedactor(c RedactConfig) (*Redactor, error) {
	r := &Redactor{headers: map[string]bool{}, patterns: slices.Clone(alwaysPatterns)}
	var errs []error
	for i, h := range c.Headers {
		if !codec.ValidName([]byte(h)) {
			errs = append(errs, fmt.Errorf("headers[%d]: %q is not a header name", i, h))
		}
		r.headers[strings.ToLower(h)] = true
	}
	for i, s := range c.JSONPaths {
		p, err := parseJSONPath(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("jsonPaths[%d]: %w", i, err))
			continue
		}
		r.paths = append(r.paths, p)
	}
	for i, s := range c.Patterns {
		p, err := parsePattern(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("patterns[%d]: %w", i, err))
			continue
		}
		r.patterns = append(r.patterns, p)
		if expr, ok := strings.CutPrefix(s, "regex:"); ok {
			r.expr, r.lines = true, r.lines || matchesLineEnd(expr)
		}
	}
	if len(c.JSONPaths)+len(c.Patterns) > maxPatterns {
		errs = append(errs, fmt.Errorf("more than %d paths and patterns", maxPatterns))
	}
	return r, errors.Join(errs...)
}

// Apply hides what must be hidden. Values that it changes are new memory; the
// record's old bytes are not written to.
func (r *Redactor) Apply(rec *Record) {
	// Of the connection, and what the client may choose freely.
	for _, v := range [...]*[]byte{&rec.ServerName, &rec.ALPN, &rec.Peer, &rec.Method, &rec.RequestID} {
		*v = r.text(*v, &rec.Redacted)
	}
	if r.bytes {
		r.applyStreams(rec)
		return
	}
	rec.Path = r.target(rec.Path, &rec.Redacted)
	rec.Authority = r.text(rec.Authority, &rec.Redacted)
	r.applyHeaders(rec.RequestHeaders, &rec.Redacted)
	r.applyHeaders(rec.ResponseHeaders, &rec.Redacted)
	rec.RequestBody, rec.RequestTruncated = r.body(rec.RequestBody, rec.RequestTruncated, rec.RequestHeaders, &rec.Redacted)
	rec.ResponseBody, rec.ResponseTruncated = r.body(rec.ResponseBody, rec.ResponseTruncated, rec.ResponseHeaders, &rec.Redacted)
}

func (r *Redactor) applyHeaders(hs []Header, count *uint32) {
	for i := range hs {
		h := &hs[i]
		name := strings.ToLower(string(h.Name))
		if secretHeaders[name] || r.headers[name] || isSecretName(name) {
			h.Value = []byte(Redacted)
			*count++
			continue
		}
		if bytes.IndexByte(h.Value, '?') >= 0 || bytes.IndexByte(h.Value, '=') >= 0 {
			h.Value = r.target(h.Value, count) // Referer, Location, original paths
			continue
		}
		h.Value = r.text(h.Value, count)
	}
}

// target hides the values of secret query parameters.
func (r *Redactor) target(v []byte, count *uint32) []byte {
	if i := bytes.IndexByte(v, '?'); i >= 0 {
		if q, n := redactForm(v[i+1:]); n > 0 {
			v = append(v[:i+1:i+1], q...)
			*count += n
		}
	}
	return r.text(v, count)
}

// text hides what the patterns find.
func (r *Redactor) text(v []byte, count *uint32) []byte { return r.hide(v, false, nil, count) }

// hide hides what was found and what the patterns find, and leaves out the end of what
// was cut. All look at the same bytes: what one of them hid could have been the middle of
// what another would have found. The input is not written to, found is.
func (r *Redactor) hide(v []byte, cut bool, found [][2]int, count *uint32) []byte {
	for i := range r.patterns {
		found = append(found, r.patterns[i].find(v)...)
	}
	found = union(found)
	if cut {
		v = v[:min(r.holdBack(v), cutUserInfo(v))]
		for n := len(found); n > 0 && found[n-1][1] > len(v); n-- {
			if found[n-1][1] = len(v); found[n-1][0] >= len(v) {
				found = found[:n-1]
			}
		}
	}
	*count += uint32(len(found))
	return replace(v, found)
}

// redactForm hides the values of secret names in a=b&c=d. The input is not
// written to; n is how many were hidden.
func redactForm(q []byte) (out []byte, n uint32) {
	for rest := q; len(rest) > 0; {
		end := bytes.IndexAny(rest, "&;#")
		pair, sep := rest, []byte(nil)
		if end >= 0 {
			pair, sep = rest[:end], rest[end:end+1]
		}
		rest = rest[len(pair)+len(sep):]
		k, _, hasValue := bytes.Cut(pair, []byte{'='})
		if hasValue && isSecretName(unescape(k)) {
			out = append(append(append(out, k...), '='), Redacted...)
			n++
		} else {
			out = append(out, pair...)
		}
		out = append(out, sep...)
	}
	return out, n
}

// unescape undoes percent-encoding, twice, as some servers do; what is malformed
// stays as it is.
func unescape(k []byte) string {
	s := string(k)
	for range 2 {
		if u, err := url.QueryUnescape(s); err == nil {
			s = u
		}
	}
	return s
}

// maxInflated bounds what a compressed body may become; beyond the ratio it is a
// bomb and cut.
const (
	maxInflated  = MaxBodyBytes
	inflateRatio = 100
)

// body hides secrets in a body by its content type. Cut says that the body is not the
// whole, before and after: withheld and shortened ones are not.
func (r *Redactor) body(b []byte, cut bool, hs []Header, count *uint32) ([]byte, bool) {
	if len(b) == 0 {
		return b, cut
	}
	switch enc := strings.ToLower(strings.TrimSpace(headerValue(hs, "content-encoding"))); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		var short bool
		if b, short = inflate(b); b == nil {
			*count++
			return nil, true
		}
		cut = cut || short
	default:
		*count++
		return nil, true
	}
	kind := strings.ToLower(headerValue(hs, "content-type"))
	switch {
	case strings.Contains(kind, "multipart/"):
		*count++
		return nil, true
	case strings.Contains(kind, "x-www-form-urlencoded"):
		if out, n := redactForm(b); n > 0 {
			b = out
			*count += n
		}
	case strings.Contains(kind, "json") || looksLikeJSON(b):
		out, n, bad := redactJSON(b, r.paths)
		if bad && strings.Contains(kind, "json") {
			// Where it stops being JSON, members can no longer be told apart.
			cut = true
		} else if bad {
			out, n = b, 0 // only looked like it
		}
		b = out
		*count += n
	}
	var found [][2]int
	if strings.Contains(kind, "xml") {
		found = findNamed(b)
	}
	return r.hide(b, cut, found, count), cut
}

// inflate undoes gzip as far as the body was copied and the bounds allow.
func inflate(b []byte) (out []byte, cut bool) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, true
	}
	limit := min(int64(maxInflated), int64(len(b))*inflateRatio)
	out, err = io.ReadAll(io.LimitReader(z, limit+1))
	if int64(len(out)) > limit {
		return out[:limit], true
	}
	if len(out) == 0 && err != nil {
		return nil, true
	}
	return out, err != nil
}

func headerValue(hs []Header, lowerName string) string {
	for i := range hs {
		if strings.EqualFold(string(hs[i].Name), lowerName) {
			return string(hs[i].Value)
		}
	}
	return ""
}

func looksLikeJSON(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n\xef\xbb\xbf")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}
