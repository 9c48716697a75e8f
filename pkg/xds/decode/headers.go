// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// framing headers describe one hop; the proxy writes them itself.
var framing = map[string]bool{
	"connection": true, "content-length": true, "transfer-encoding": true, "keep-alive": true,
	"te": true, "trailer": true, "upgrade": true, "proxy-connection": true,
}

func lower(s string) string { return strings.ToLower(s) }

// validHeaderName reports whether s is a token (RFC 9110 section 5.6.2).
func validHeaderName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}

// validHeaderValue reports whether s can be a field value (RFC 9110 section 5.5).
func validHeaderValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// editable checks the name of a header that configuration adds or removes.
func (j *job) editable(name string, p *place) string {
	name = lower(name)
	switch {
	case strings.HasPrefix(name, ":") || name == "host":
		j.fail(p, "%q: pseudo headers and host must not be changed this way", clip(name, 60))
	case !validHeaderName(name):
		j.fail(p, "%q is no header name", clip(name, 60))
	case framing[name]:
		j.fail(p, "%q belongs to the connection and is written by the proxy", name)
	}
	return j.intern(name)
}

func (j *job) headerOptions(list []*corev3.HeaderValueOption, p *place, name string) []resource.HeaderOption {
	var out []resource.HeaderOption
	for i, h := range list {
		at := p.item(name, i)
		o := resource.HeaderOption{KeepEmpty: h.GetKeepEmptyValue()}
		o.Name = j.editable(h.GetHeader().GetKey(), at.field("header").field("key"))
		value := h.GetHeader().GetValue()
		j.only(!validHeaderValue(value), at.field("header").field("value"), "has control characters")
		o.Value = j.format(value, at.field("header").field("value"))
		if err := o.Value.ForHeaders(); err != nil {
			j.fail(at.field("header").field("value"), "%v", err)
		}
		o.Action = j.headerAction(h, at)
		out = append(out, o)
	}
	return out
}

func (j *job) headerAction(h *corev3.HeaderValueOption, p *place) resource.HeaderAction {
	//nolint:staticcheck // append is deprecated and still in use
	if legacy := h.GetAppend(); legacy != nil {
		j.only(h.GetAppendAction() != 0, p.field("append_action"), "must not be given together with append")
		if legacy.GetValue() {
			return resource.AppendIfExistsOrAdd
		}
		return resource.OverwriteIfExistsOrAdd
	}
	switch h.GetAppendAction() {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return resource.AddIfAbsent
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return resource.OverwriteIfExistsOrAdd
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return resource.OverwriteIfExists
	}
	return resource.AppendIfExistsOrAdd
}

// edited is every message with the four lists of header changes.
type edited interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func (j *job) headerEdits(m edited, p *place) resource.HeaderEdits {
	return resource.HeaderEdits{
		RequestAdd:     j.headerOptions(m.GetRequestHeadersToAdd(), p, "request_headers_to_add"),
		RequestRemove:  j.headerNames(m.GetRequestHeadersToRemove(), p, "request_headers_to_remove"),
		ResponseAdd:    j.headerOptions(m.GetResponseHeadersToAdd(), p, "response_headers_to_add"),
		ResponseRemove: j.headerNames(m.GetResponseHeadersToRemove(), p, "response_headers_to_remove"),
	}
}

func (j *job) headerNames(list []string, p *place, name string) []string {
	var out []string
	for i, n := range list {
		out = append(out, j.editable(n, p.item(name, i)))
	}
	return out
}

// matchedName is the name of a header to look at; host is :authority.
func (j *job) matchedName(name string, p *place) string {
	name = lower(name)
	switch name {
	case "host":
		return ":authority"
	case ":method", ":path", ":authority", ":scheme":
		return name
	}
	if !validHeaderName(name) {
		j.fail(p, "%q is no header name", clip(name, 60))
	}
	return j.intern(name)
}

func (j *job) headerMatches(list []*routev3.HeaderMatcher, p *place, name string) []resource.HeaderMatch {
	var out []resource.HeaderMatch
	for i, h := range list {
		out = append(out, j.headerMatch(h, p.item(name, i)))
	}
	return out
}

//nolint:staticcheck // the deprecated specifiers are still in use
func (j *job) headerMatch(h *routev3.HeaderMatcher, p *place) resource.HeaderMatch {
	out := resource.HeaderMatch{
		Name: j.matchedName(h.GetName(), p.field("name")), Kind: resource.HeaderString,
		Invert: h.GetInvertMatch(), MissingOK: h.GetTreatMissingHeaderAsEmpty(),
	}
	switch v := h.GetHeaderMatchSpecifier().(type) {
	case nil:
		out.Kind, out.Present = resource.HeaderPresent, true
	case *routev3.HeaderMatcher_PresentMatch:
		out.Kind, out.Present = resource.HeaderPresent, v.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		out.Kind, out.Start, out.End = resource.HeaderRange, v.RangeMatch.GetStart(), v.RangeMatch.GetEnd()
		j.only(out.Start >= out.End, p.field("range_match"), "is empty: start must be less than end")
	case *routev3.HeaderMatcher_ExactMatch:
		out.String = resource.StringMatch{Kind: resource.MatchExact, Value: v.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		out.String = resource.StringMatch{Kind: resource.MatchPrefix, Value: v.PrefixMatch}
	case *routev3.HeaderMatcher_SuffixMatch:
		out.String = resource.StringMatch{Kind: resource.MatchSuffix, Value: v.SuffixMatch}
	case *routev3.HeaderMatcher_ContainsMatch:
		out.String = resource.StringMatch{Kind: resource.MatchContains, Value: v.ContainsMatch}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		out.String = resource.StringMatch{Kind: resource.MatchRegex, Regex: j.regex(v.SafeRegexMatch, p.field("safe_regex_match"))}
	case *routev3.HeaderMatcher_StringMatch:
		out.String = j.stringMatch(v.StringMatch, p.field("string_match"))
	default:
		j.fail(p, "has an unknown kind of match")
	}
	return out
}
