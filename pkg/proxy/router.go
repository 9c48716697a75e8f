// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// match returns the first route that matches the request.
func (v *virtualHost) match(x *exchange) *route {
	path, query := splitPath(x.Request.Path())
	connect := x.Request.Method == codec.MethodConnect
	for _, r := range v.routes {
		m := &r.res.Match
		if connect != (m.Kind == resource.PathConnect) || !connect && !matchPath(m, path) {
			continue
		}
		if len(m.Headers)+len(m.Query) > 0 && !matchRest(m, x, query) {
			continue
		}
		if m.GRPCOnly && !grpc.Is(&x.Request.Header) {
			continue
		}
		if m.Fraction != nil && !x.inFraction(m.Fraction) {
			continue
		}
		return r
	}
	return nil
}

func matchRest(m *resource.RouteMatch, x *exchange, query []byte) bool {
	for i := range m.Headers {
		v, ok := requestValue(&x.Request, m.Headers[i].Name, &x.w.joined)
		if !matchHeader(&m.Headers[i], v, ok) {
			return false
		}
	}
	for i := range m.Query {
		q := &m.Query[i]
		v, ok := queryValue(query, q.Name)
		if q.String == nil {
			if ok != q.Present {
				return false
			}
			continue
		}
		if !ok || !matchString(q.String, v) {
			return false
		}
	}
	return true
}

// inFraction draws by the exchange's random number, so that all fractions of one
// request are drawn alike.
func (x *exchange) inFraction(p *resource.Percent) bool {
	limit := x.w.proxy.runtimePercent(*p)
	return limit >= 1_000_000 || uint32(x.Random>>32)%1_000_000 < limit
}

// lowerAuthority is the authority as virtual hosts are matched: in lower case,
// without what the manager strips.
func (x *exchange) lowerAuthority() []byte {
	a := x.Request.Authority()
	for _, c := range a {
		if c >= 'A' && c <= 'Z' {
			b := append(x.w.lower[:0], a...)
			for i, c := range b {
				if c >= 'A' && c <= 'Z' {
					b[i] = c | 0x20
				}
			}
			x.w.lower = b
			return b
		}
	}
	return a
}

// scopedTable builds the scope key of a request and finds its table.
func (x *exchange) scopedTable(s *scopeTable) *routeTable {
	key := x.w.value[:0]
	for i := range s.res.Fragments {
		f := &s.res.Fragments[i]
		v, ok := requestValue(&x.Request, f.Header, &x.w.joined)
		if !ok {
			return nil
		}
		if v, ok = extractFragment(f, v); !ok {
			return nil
		}
		if i > 0 {
			key = append(key, 0)
		}
		key = append(key, v...)
	}
	x.w.value = key
	if t := s.own[string(key)]; t != nil {
		return t
	}
	if r := s.byKey[string(key)]; r != nil {
		return r.table.Load()
	}
	return nil
}

// rewritePath applies the route's rewrite; the original goes into
// x-envoy-original-path.
func (x *exchange) rewritePath() filter.Verdict {
	a := x.route.action.res
	if !a.HasPrefixRewrite && a.RegexRewrite == nil || x.Request.Method == codec.MethodConnect {
		return filter.Next
	}
	old := x.Request.Path()
	path, query := splitPath(old)
	b := x.w.rewrite[:0]
	if a.RegexRewrite != nil {
		b = append(b, a.RegexRewrite.Regex.ReplaceAll(path, []byte(a.RegexRewrite.Substitution))...)
	} else {
		b = appendPrefixRewrite(b, path, x.route.matchedLen(path), a.PrefixRewrite)
	}
	if len(old) > len(path) {
		b = append(append(b, '?'), query...)
	}
	x.w.rewrite = b
	if len(b) == 0 || b[0] != '/' || !codec.ValidTarget(b) {
		return x.reply(&failureBadRewrite)
	}
	x.Request.SetKnown(codec.NameXEnvoyOriginalPath, old)
	x.Request.SetPath(b)
	return filter.Next
}

// appendPrefixRewrite replaces the first n bytes of path.
func appendPrefixRewrite(dst, path []byte, n int, with string) []byte {
	dst = append(dst, with...)
	return append(dst, path[min(n, len(path)):]...)
}

// matchedLen is how much of the path the route's match covers: what a prefix
// rewrite replaces.
func (r *route) matchedLen(path []byte) int {
	switch r.res.Match.Kind {
	case resource.PathPrefix, resource.PathSeparatedPrefix, resource.PathExact:
		return len(r.res.Match.Path)
	}
	return len(path)
}

// rewriteHost sets the authority that the upstream sees.
func (x *exchange) rewriteHost() {
	a := x.route.action.res
	old := x.Request.Authority()
	switch {
	case x.weighted != nil && x.weighted.res.HostRewrite != "":
		x.setAuthority(old, []byte(x.weighted.res.HostRewrite))
	case a.HostRewrite != "":
		x.setAuthority(old, []byte(a.HostRewrite))
	case a.HostRewriteHeader != "":
		if v, ok := requestValue(&x.Request, a.HostRewriteHeader, &x.w.joined); ok && codec.ValidAuthority(v) {
			x.setAuthority(old, v)
		}
	case a.HostRewritePath != nil:
		path, _ := splitPath(x.Request.Path())
		v := a.HostRewritePath.Regex.ReplaceAll(path, []byte(a.HostRewritePath.Substitution))
		if codec.ValidAuthority(v) {
			x.setAuthority(old, v)
		}
	}
}

func (x *exchange) setAuthority(old, v []byte) {
	if x.route.action.res.AppendXFH {
		x.Request.Add([]byte("x-forwarded-host"), old)
	}
	x.Request.SetAuthority(v)
}

// redirect makes the local reply of a redirect.
func (x *exchange) redirect(r *resource.Redirect) filter.Verdict {
	path, query := splitPath(x.Request.Path())
	scheme := x.Request.Known(codec.NameXForwardedProto)
	if len(scheme) == 0 {
		scheme = []byte("http")
	}
	loc := x.w.rewrite[:0]
	switch {
	case r.HTTPS:
		loc = append(loc, "https"...)
	case r.Scheme != "":
		loc = append(loc, r.Scheme...)
	default:
		loc = append(loc, scheme...)
	}
	loc = append(loc, "://"...)
	loc = x.appendRedirectHost(loc, r, string(scheme))
	switch {
	case r.Path != "":
		loc = append(loc, r.Path...)
	case r.HasPrefix:
		n := 0
		if x.route != nil {
			n = x.route.matchedLen(path)
		}
		loc = appendPrefixRewrite(loc, path, n, r.PrefixRewrite)
	case r.RegexRewrite != nil:
		loc = append(loc, r.RegexRewrite.Regex.ReplaceAll(path, []byte(r.RegexRewrite.Substitution))...)
	default:
		loc = append(loc, path...)
	}
	if len(query) > 0 && !r.StripQuery && bytes.IndexByte([]byte(r.Path), '?') < 0 {
		loc = append(append(loc, '?'), query...)
	}
	x.w.rewrite = loc
	x.Local = filter.LocalReply{Status: r.Status, Details: "direct_response"}
	if x.Local.Status == 0 {
		x.Local.Status = 301
	}
	x.location = append(x.location[:0], loc...)
	return filter.Reply
}

// appendRedirectHost appends host and port. A port that is the default of the
// scheme redirected from does not survive a change of scheme.
func (x *exchange) appendRedirectHost(loc []byte, r *resource.Redirect, scheme string) []byte {
	host := x.Request.Authority()
	if r.Host != "" {
		host = []byte(r.Host)
	}
	bare := withoutPort(host)
	switch {
	case r.Port != 0:
		loc = append(append(loc, bare...), ':')
		return appendUint(loc, uint64(r.Port))
	case (r.HTTPS || r.Scheme == "https") && scheme == "http" && string(host[len(bare):]) == ":80",
		r.Scheme == "http" && scheme == "https" && string(host[len(bare):]) == ":443":
		return append(loc, bare...)
	}
	return append(loc, host...)
}
