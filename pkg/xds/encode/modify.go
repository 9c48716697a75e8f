// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// headerOptions are a modifier's set and add. A percent sign begins a command
// for Envoy, and is only itself to the user: it is doubled.
func headerOptions(h *mesh.HeaderModifier) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	option := func(v mesh.HeaderValue, a corev3.HeaderValueOption_HeaderAppendAction) {
		out = append(out, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: v.Name, Value: strings.ReplaceAll(v.Value, "%", "%%")},
			AppendAction: a,
		})
	}
	for _, v := range h.Set {
		option(v, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	}
	for _, v := range h.Add {
		option(v, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	}
	return out
}

// rewrite sets what the backend sees. Replacing a prefix keeps exactly one
// slash between what is new and what stays.
func rewrite(a *routev3.RouteAction, r *mesh.URLRewrite, p *mesh.PathMatch) {
	if r.Hostname != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Hostname}
	}
	switch {
	case r.Path == nil:
	case r.Path.ReplaceFullPath != nil:
		a.RegexRewrite = substitute("^/.*$", *r.Path.ReplaceFullPath)
	case r.Path.ReplacePrefixMatch != nil:
		a.PrefixRewrite, a.RegexRewrite = prefixRewrite(p, *r.Path.ReplacePrefixMatch)
	}
}

func prefixRewrite(p *mesh.PathMatch, replacement string) (prefix string, rx *matcherv3.RegexMatchAndSubstitute) {
	matched, with := strings.TrimRight(p.Text(), "/"), strings.TrimRight(replacement, "/")
	switch {
	case matched == "":
		return with + "/", nil
	case with == "":
		return "", substitute("^"+regexp.QuoteMeta(matched)+"/*", "/")
	}
	return with, nil
}

func substitute(pattern, with string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex(pattern), Substitution: strings.ReplaceAll(with, `\`, `\\`)}
}

var redirectCodes = map[uint16]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(r *mesh.RequestRedirect, p *mesh.PathMatch) *routev3.RedirectAction {
	code, ok := redirectCodes[r.StatusCode]
	if !ok {
		code = routev3.RedirectAction_FOUND
	}
	out := &routev3.RedirectAction{HostRedirect: r.Hostname, PortRedirect: uint32(r.Port), ResponseCode: code}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.Path == nil:
	case r.Path.ReplaceFullPath != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: *r.Path.ReplaceFullPath}
	case r.Path.ReplacePrefixMatch != nil:
		if prefix, rx := prefixRewrite(p, *r.Path.ReplacePrefixMatch); rx != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rx}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
		}
	}
	return out
}
