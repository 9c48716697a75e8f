// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// SessionPersistence keeps the requests of a client at the instance that its first one came
// to (GEP-1619). The instance's address is in a cookie or a header that the client gives
// back, encrypted by keys of the control plane.
type SessionPersistence struct {
	SessionName     string               `json:"sessionName,omitempty" rule:"maxlen=128" doc:"Name of the cookie or header; outrigger-session-SERVICE when empty, with x- before it for a header."`
	Type            string               `json:"type,omitempty" rule:"enum=Cookie|Header" doc:"Cookie when empty."`
	AbsoluteTimeout *Duration            `json:"absoluteTimeout,omitempty" rule:"mindur=1s,maxdur=720h" doc:"How long a session lasts, of cookies with lifetimeType Permanent; as long as its client and its instance when empty."`
	IdleTimeout     *Unsupported         `json:"idleTimeout,omitempty"`
	CookieConfig    *SessionCookieConfig `json:"cookieConfig,omitempty" doc:"Of cookies."`
	Strict          bool                 `json:"strict,omitempty" doc:"Answer 503 when the instance of a session is gone or unhealthy; another one gets the request, and the session, when false."`
}

// SessionCookieConfig says how long clients keep a cookie.
type SessionCookieConfig struct {
	LifetimeType string `json:"lifetimeType,omitempty" rule:"enum=Permanent|Session" doc:"Session (until the client ends) when empty; Permanent: for absoluteTimeout."`
}

// Types and lifetimes of sessions.
const (
	SessionCookie    = "Cookie"
	SessionHeader    = "Header"
	SessionPermanent = "Permanent"
)

// ByHeader reports whether a header holds the session, and no cookie.
func (s *SessionPersistence) ByHeader() bool { return s.Type == SessionHeader }

// Name is that of the cookie, or of the header in lower case; service is whose instances
// the sessions are at.
func (s *SessionPersistence) Name(service string) string {
	switch {
	case s.SessionName != "" && s.ByHeader():
		return strings.ToLower(s.SessionName)
	case s.SessionName != "":
		return s.SessionName
	case s.ByHeader():
		return "x-outrigger-session-" + service
	}
	return "outrigger-session-" + service
}

func (s *SessionPersistence) check(f *faults, path string) {
	permanent := s.CookieConfig != nil && s.CookieConfig.LifetimeType == SessionPermanent
	if s.ByHeader() {
		checkHeaderName(f, path+".sessionName", s.SessionName)
		if name := strings.ToLower(s.SessionName); framingHeaders[name] || name == "expect" || name == "http2-settings" {
			f.add(path+".sessionName", "header %q is the proxy's own and cannot hold a session", clip(s.SessionName))
		}
		if s.CookieConfig != nil {
			f.add(path+".cookieConfig", "is for cookies only, the type is Header")
		}
		if s.AbsoluteTimeout != nil {
			f.add(path+".absoluteTimeout", "is for cookies only, the type is Header")
		}
		return
	}
	if s.SessionName != "" && !tokenPattern.MatchString(s.SessionName) {
		f.add(path+".sessionName", "%q is not a cookie name", clip(s.SessionName))
	}
	switch {
	case permanent && s.AbsoluteTimeout == nil:
		f.add(path+".absoluteTimeout", "missing: a Permanent cookie needs it")
	case !permanent && s.AbsoluteTimeout != nil:
		f.add(path+".absoluteTimeout", "needs cookieConfig.lifetimeType Permanent: a Session cookie ends with its client")
	}
}

// OnlyBackend is the one backend of a rule that takes traffic; empty where none does, or
// several do.
func (r *HTTPRule) OnlyBackend() string {
	only := ""
	for i := range r.BackendRefs {
		if r.BackendRefs[i].Share() == 0 {
			continue
		}
		if only != "" {
			return ""
		}
		only = r.BackendRefs[i].Name
	}
	return only
}

// HasSessions says whether any policy or route wants sessions.
func (m *Model) HasSessions() bool {
	for _, o := range m.Objects[KindTrafficPolicy] {
		if p, ok := o.(*TrafficPolicy); ok && p.Spec.SessionPersistence != nil {
			return true
		}
	}
	for _, o := range m.Objects[KindHTTPRoute] {
		r, ok := o.(*HTTPRoute)
		for i := 0; ok && i < len(r.Spec.Rules); i++ {
			if r.Spec.Rules[i].SessionPersistence != nil {
				return true
			}
		}
	}
	return false
}
