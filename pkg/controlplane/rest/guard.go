// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guarded refuses requests that a browser was tricked into, and callers without
// the token where one is wanted. Health checks need none.
func (s *Server) guarded(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.config.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		switch {
		case s.config.Loopback && !loopbackHost(r.Host):
			// A name that was re-bound to this address (DNS rebinding).
			s.problem(w, r, problem{Status: http.StatusForbidden, Title: "Foreign Host", Detail: "on a loopback address the Host header must be localhost or a loopback address, got " + clip(r.Host)})
		case r.Header.Get("Origin") != "":
			s.problem(w, r, problem{Status: http.StatusForbidden, Title: "Origin refused", Detail: "requests from web pages are refused"})
		case s.config.Token != "" && !strings.HasPrefix(r.URL.Path, "/healthz/") && !validToken(r, want):
			h.Set("WWW-Authenticate", `Bearer realm="outrigger"`)
			s.problem(w, r, problem{Status: http.StatusUnauthorized, Title: "Token wanted", Detail: "send Authorization: Bearer with the token in the file named token of the control plane's data folder"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func validToken(r *http.Request, want [sha256.Size]byte) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return ok && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// jsonOrYAML refuses bodies that a form of a web page could send without asking.
func jsonOrYAML(r *http.Request) bool {
	ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(ct)) {
	case "application/json", "application/yaml", "application/x-yaml", "text/yaml":
		return true
	case "":
		return r.ContentLength == 0
	}
	return false
}
