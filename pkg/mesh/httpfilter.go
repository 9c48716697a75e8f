// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// Types of HTTPFilter.
const (
	FilterRequestHeaderModifier  = "RequestHeaderModifier"
	FilterResponseHeaderModifier = "ResponseHeaderModifier"
	FilterRequestRedirect        = "RequestRedirect"
	FilterURLRewrite             = "URLRewrite"
	FilterRequestMirror          = "RequestMirror"
)

// HTTPFilter is one step of a rule: the field that Type names is set, no other.
type HTTPFilter struct {
	Type                   string           `json:"type" rule:"required,enum=RequestHeaderModifier|ResponseHeaderModifier|RequestRedirect|URLRewrite|RequestMirror" doc:"Which of the fields is set."`
	RequestHeaderModifier  *HeaderModifier  `json:"requestHeaderModifier,omitempty" doc:"Changes to the request's headers."`
	ResponseHeaderModifier *HeaderModifier  `json:"responseHeaderModifier,omitempty" doc:"Changes to the response's headers."`
	RequestRedirect        *RequestRedirect `json:"requestRedirect,omitempty" doc:"Answer with a redirect."`
	URLRewrite             *URLRewrite      `json:"urlRewrite,omitempty" doc:"Change host or path before the backend sees them."`
	RequestMirror          *RequestMirror   `json:"requestMirror,omitempty" doc:"Send a copy elsewhere and drop its answer."`
	ExtensionRef           *Unsupported     `json:"extensionRef,omitempty"`
	CORS                   *Unsupported     `json:"cors,omitempty"`
}

// HeaderModifier changes headers: set replaces, add appends, remove drops.
type HeaderModifier struct {
	Set    []HeaderValue `json:"set,omitzero" rule:"maxitems=16" doc:"Headers to replace."`
	Add    []HeaderValue `json:"add,omitzero" rule:"maxitems=16" doc:"Headers to append."`
	Remove []string      `json:"remove,omitzero" rule:"maxitems=16" doc:"Names of headers to drop."`
}

// HeaderValue is a header to write.
type HeaderValue struct {
	Name  string `json:"name" rule:"required,maxlen=256" doc:"Header name."`
	Value string `json:"value" rule:"required,maxlen=4096" doc:"Header value."`
}

// RequestRedirect answers 3xx with a Location made of the request and the fields set.
type RequestRedirect struct {
	Scheme     string        `json:"scheme,omitempty" rule:"enum=http|https" doc:"Scheme of the location; the request's when empty."`
	Hostname   string        `json:"hostname,omitempty" rule:"maxlen=253" doc:"Host of the location; the request's when empty."`
	Path       *PathModifier `json:"path,omitempty" doc:"Path of the location; the request's when empty."`
	Port       uint16        `json:"port,omitempty" rule:"min=1" doc:"Port of the location."`
	StatusCode uint16        `json:"statusCode,omitempty" rule:"enum=301|302|303|307|308" doc:"302 when empty."`
}

// URLRewrite changes what the backend sees.
type URLRewrite struct {
	Hostname string        `json:"hostname,omitempty" rule:"maxlen=253" doc:"Host header for the backend."`
	Path     *PathModifier `json:"path,omitempty" doc:"Path for the backend."`
}

// Types of PathModifier.
const (
	ReplaceFullPath    = "ReplaceFullPath"
	ReplacePrefixMatch = "ReplacePrefixMatch"
)

// PathModifier replaces a path or the prefix that matched.
type PathModifier struct {
	Type               string  `json:"type" rule:"required,enum=ReplaceFullPath|ReplacePrefixMatch" doc:"Which of the fields is set."`
	ReplaceFullPath    *string `json:"replaceFullPath,omitempty" rule:"maxlen=1024" doc:"The new path."`
	ReplacePrefixMatch *string `json:"replacePrefixMatch,omitempty" rule:"maxlen=1024" doc:"What stands in for the matched prefix."`
}

func (p *PathModifier) prefix() bool { return p != nil && p.Type == ReplacePrefixMatch }

// RequestMirror names who gets a copy, and of how many requests.
type RequestMirror struct {
	BackendRef MirrorRef `json:"backendRef" rule:"required" doc:"The service that gets the copy."`
	Percent    *uint32   `json:"percent,omitempty" rule:"max=100" doc:"Share of requests that are copied; 100 when empty."`
	Fraction   *Fraction `json:"fraction,omitempty" doc:"Share as a fraction, instead of percent."`
}

// MirrorRef is the destination of copies.
type MirrorRef struct {
	Group string `json:"group,omitempty" rule:"enum=outrigger.io" doc:"outrigger.io."`
	Kind  string `json:"kind,omitempty" rule:"enum=Service" doc:"Service."`
	Name  string `json:"name" rule:"required,maxlen=253" doc:"Name of the service."`
	Port  uint16 `json:"port,omitempty" rule:"min=1" doc:"Port of the service."`
}

// Fraction is Numerator of Denominator (100 when 0).
type Fraction struct {
	Numerator   uint32 `json:"numerator" rule:"required" doc:"Share."`
	Denominator uint32 `json:"denominator,omitempty" rule:"min=1" doc:"Whole; 100 when empty."`
}

// checkFilters reports whether a filter redirects. A backend's filters only modify headers.
func checkFilters(f *faults, path string, list []HTTPFilter, onBackend bool) (redirects bool) {
	count := map[string]int{}
	for i := range list {
		x, at := &list[i], index(path, i)
		x.check(f, at)
		count[x.Type]++
		if count[x.Type] == 2 && x.Type != FilterRequestMirror {
			f.add(at+".type", "%s is listed twice", x.Type)
		}
		headers := x.Type == FilterRequestHeaderModifier || x.Type == FilterResponseHeaderModifier
		if onBackend && x.Type != "" && !headers {
			f.add(at+".type", "%s is not supported on a backend, only header modifiers are", x.Type)
		}
	}
	if count[FilterRequestRedirect] > 0 && count[FilterURLRewrite] > 0 {
		f.add(path, "RequestRedirect and URLRewrite exclude each other")
	}
	return count[FilterRequestRedirect] > 0
}

func (x *HTTPFilter) check(f *faults, path string) {
	fields := []struct {
		kind, name string
		set        bool
	}{
		{FilterRequestHeaderModifier, "requestHeaderModifier", x.RequestHeaderModifier != nil},
		{FilterResponseHeaderModifier, "responseHeaderModifier", x.ResponseHeaderModifier != nil},
		{FilterRequestRedirect, "requestRedirect", x.RequestRedirect != nil},
		{FilterURLRewrite, "urlRewrite", x.URLRewrite != nil},
		{FilterRequestMirror, "requestMirror", x.RequestMirror != nil},
	}
	for _, fd := range fields {
		switch {
		case fd.set && fd.kind != x.Type:
			f.add(path+"."+fd.name, "is set, but the filter's type is %q", x.Type)
		case !fd.set && fd.kind == x.Type:
			f.add(path+"."+fd.name, "missing: the filter's type is %s", x.Type)
		}
	}
	x.RequestHeaderModifier.check(f, path+".requestHeaderModifier")
	x.ResponseHeaderModifier.check(f, path+".responseHeaderModifier")
	if r := x.RequestRedirect; r != nil {
		if r.Hostname != "" && !ValidServiceName(r.Hostname) {
			f.add(path+".requestRedirect.hostname", "want a host name without wildcard, got %q", clip(r.Hostname))
		}
		r.Path.check(f, path+".requestRedirect.path")
	}
	if r := x.URLRewrite; r != nil {
		if r.Hostname != "" && !ValidServiceName(r.Hostname) {
			f.add(path+".urlRewrite.hostname", "want a host name without wildcard, got %q", clip(r.Hostname))
		}
		if r.Hostname == "" && r.Path == nil {
			f.add(path+".urlRewrite", "want hostname or path")
		}
		r.Path.check(f, path+".urlRewrite.path")
	}
	if r := x.RequestMirror; r != nil {
		checkServiceName(f, path+".requestMirror.backendRef.name", r.BackendRef.Name)
		if r.Percent != nil && r.Fraction != nil {
			f.add(path+".requestMirror.fraction", "percent and fraction exclude each other")
		}
		if fr := r.Fraction; fr != nil && fr.Numerator > max(fr.Denominator, 1) && (fr.Denominator != 0 || fr.Numerator > 100) {
			f.add(path+".requestMirror.fraction.numerator", "is more than the denominator")
		}
	}
}

func (h *HeaderModifier) check(f *faults, path string) {
	if h == nil {
		return
	}
	if len(h.Set)+len(h.Add)+len(h.Remove) == 0 {
		f.add(path, "want set, add or remove")
	}
	seen := map[string]bool{}
	once := func(at, name string) {
		checkHeaderName(f, at, name)
		key := strings.ToLower(name)
		if seen[key] {
			f.add(at, "header %q is changed twice", clip(name))
		}
		if framingHeaders[key] {
			f.add(at, "header %q is the proxy's own and cannot be changed", clip(name))
		}
		seen[key] = true
	}
	for i, v := range h.Set {
		at := index(path+".set", i)
		once(at+".name", v.Name)
		checkHeaderValue(f, at+".value", v.Value)
	}
	for i, v := range h.Add {
		at := index(path+".add", i)
		once(at+".name", v.Name)
		checkHeaderValue(f, at+".value", v.Value)
	}
	for i, n := range h.Remove {
		once(index(path+".remove", i), n)
	}
}

// framingHeaders decide where a message ends or where it goes; changing them by
// a header filter would break framing. The host is changed by URLRewrite.
var framingHeaders = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true,
	"upgrade": true, "te": true, "trailer": true, "keep-alive": true, "proxy-connection": true,
}

func (p *PathModifier) check(f *faults, path string) {
	if p == nil {
		return
	}
	switch p.Type {
	case ReplaceFullPath:
		if p.ReplaceFullPath == nil || p.ReplacePrefixMatch != nil {
			f.add(path, "type ReplaceFullPath wants replaceFullPath, and only it")
			return
		}
		checkPath(f, path+".replaceFullPath", *p.ReplaceFullPath)
	case ReplacePrefixMatch:
		if p.ReplacePrefixMatch == nil || p.ReplaceFullPath != nil {
			f.add(path, "type ReplacePrefixMatch wants replacePrefixMatch, and only it")
			return
		}
		if *p.ReplacePrefixMatch != "" {
			checkPath(f, path+".replacePrefixMatch", *p.ReplacePrefixMatch)
		}
	}
}

func checkPath(f *faults, path, value string) {
	switch {
	case !strings.HasPrefix(value, "/"):
		f.add(path, "want a path that begins with /, got %q", clip(value))
	case strings.ContainsAny(value, "?#"):
		f.add(path, "want a path without query and fragment, got %q", clip(value))
	case strings.Contains(value, "//"), strings.Contains(value+"/", "/./"), strings.Contains(value+"/", "/../"):
		f.add(path, "want a path without //, /./ and /../, got %q", clip(value))
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		f.add(path, "want a path in ASCII without spaces, percent-encode the rest, got %q", clip(value))
	}
}
