// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Request is a request that has not been sent.
type Request struct {
	Method  string
	Host    string // with the port, if it has one
	URL     *url.URL
	Headers map[string][]string // any case
}

// Hit is the route that takes a request, and how it was found.
type Hit struct {
	VirtualHost string
	Domain      string // that matched
	Skipped     []Skip // routes before it
	Route       string
	Matched     string // what the route asked for
	Clusters    []Share
	Mirrors     []string // clusters
	Timeout     time.Duration
	RetryOn     string
	Retries     uint32
	HedgeAfter  time.Duration // 0: it does not hedge
	Session     string        // what keeps a client at its instance; empty: nothing
	Rewrite     string
	Redirect    string // what the answer is, where there is one
	Direct      uint32 // status of a local answer
}

// Skip is a route that does not take the request.
type Skip struct{ Route, Reason string }

// Share is one cluster's part of the requests.
type Share struct {
	Cluster string
	Percent float64
	Labels  map[string]string // of the instances that are meant; nil: all
}

// Find follows a request through a route configuration as a proxy would: the
// most specific domain, then the first route that matches. Without a virtual
// host, or a route, ok is false and Hit says how far it came. It knows the
// matches that this package makes.
func Find(rc *routev3.RouteConfiguration, r Request) (h Hit, ok bool) {
	var host *routev3.VirtualHost
	host, h.Domain = domain(rc, strings.ToLower(r.Host))
	if host == nil {
		return h, false
	}
	h.VirtualHost = host.GetName()
	for _, route := range host.GetRoutes() {
		matched, why := matches(route.GetMatch(), r)
		if why != "" {
			h.Skipped = append(h.Skipped, Skip{route.GetName(), why})
			continue
		}
		h.Route, h.Matched = route.GetName(), matched
		h.act(route)
		h.Session = sessionOf(route)
		return h, true
	}
	return h, false
}

// domain picks by Envoy's order: exact, longest suffix, longest prefix, any.
func domain(rc *routev3.RouteConfiguration, host string) (best *routev3.VirtualHost, matched string) {
	rank, length := 4, 0
	for _, v := range rc.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			k := 4
			switch {
			case d == host:
				k = 0
			case d == "*":
				k = 3
			case strings.HasPrefix(d, "*") && strings.HasSuffix(host, d[1:]) && len(host) >= len(d):
				k = 1
			case strings.HasSuffix(d, "*") && strings.HasPrefix(host, d[:len(d)-1]) && len(host) >= len(d):
				k = 2
			}
			if k < rank || k == rank && k < 4 && len(d) > length {
				best, matched, rank, length = v, d, k, len(d)
			}
		}
	}
	return best, matched
}

// matches answers what matched, or why it does not.
func matches(m *routev3.RouteMatch, r Request) (what, why string) {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	ok := false
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		what, ok = "path prefix "+p.Prefix, strings.HasPrefix(path, p.Prefix)
	case *routev3.RouteMatch_Path:
		what, ok = "path "+p.Path, path == p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		what = "path under " + p.PathSeparatedPrefix
		ok = path == p.PathSeparatedPrefix || strings.HasPrefix(path, p.PathSeparatedPrefix+"/")
	case *routev3.RouteMatch_ConnectMatcher_:
		if r.Method != "CONNECT" {
			return "", "wants the method CONNECT, it is " + r.Method + ": the port carries connections, no requests"
		}
		what, ok = "method CONNECT", true
	case *routev3.RouteMatch_SafeRegex:
		what, ok = "path like "+p.SafeRegex.GetRegex(), whole(p.SafeRegex.GetRegex(), path)
	}
	if !ok {
		return "", fmt.Sprintf("wants %s, the path is %s", what, path)
	}
	for _, h := range m.GetHeaders() {
		value, present := headerValue(r, h.GetName())
		if !present || !textMatches(h.GetStringMatch(), value) {
			return "", fmt.Sprintf("wants %s %s, it is %s", h.GetName(), describe(h.GetStringMatch()), shown(value, present))
		}
		what += ", " + h.GetName() + " " + describe(h.GetStringMatch())
	}
	query := r.URL.Query()
	for _, q := range m.GetQueryParameters() {
		value, present := query.Get(q.GetName()), query.Has(q.GetName())
		if !present || !textMatches(q.GetStringMatch(), value) {
			return "", fmt.Sprintf("wants parameter %s %s, it is %s", q.GetName(), describe(q.GetStringMatch()), shown(value, present))
		}
		what += ", parameter " + q.GetName() + " " + describe(q.GetStringMatch())
	}
	return what, ""
}

func headerValue(r Request, name string) (string, bool) {
	if name == ":method" {
		return r.Method, true
	}
	for k, values := range r.Headers {
		if strings.EqualFold(k, name) {
			return strings.Join(values, ","), true
		}
	}
	return "", false
}

func shown(value string, present bool) string {
	if !present {
		return "absent"
	}
	return fmt.Sprintf("%q", value)
}

func describe(m *matcherv3.StringMatcher) string {
	if rx := m.GetSafeRegex(); rx != nil {
		return "like " + rx.GetRegex()
	}
	return fmt.Sprintf("%q", m.GetExact())
}

func textMatches(m *matcherv3.StringMatcher, value string) bool {
	if rx := m.GetSafeRegex(); rx != nil {
		return whole(rx.GetRegex(), value)
	}
	return m.GetExact() == value
}

// whole matches the entire text, as Envoy does.
func whole(expr, text string) bool {
	rx, err := regexp.Compile(`^(?:` + expr + `)$`)
	return err == nil && rx.MatchString(text)
}

// act describes what the route does.
func (h *Hit) act(route *routev3.Route) {
	if d := route.GetDirectResponse(); d != nil {
		h.Direct = d.GetStatus()
		return
	}
	if d := route.GetRedirect(); d != nil {
		h.Redirect = fmt.Sprintf("%s %s%s%s%s", d.GetResponseCode(), d.GetSchemeRedirect(), d.GetHostRedirect(), d.GetPathRedirect(), d.GetPrefixRewrite())
		return
	}
	a := route.GetRoute()
	h.Timeout = a.GetTimeout().AsDuration()
	h.RetryOn, h.Retries = a.GetRetryPolicy().GetRetryOn(), a.GetRetryPolicy().GetNumRetries().GetValue()
	if a.GetHedgePolicy().GetHedgeOnPerTryTimeout() {
		h.HedgeAfter = a.GetRetryPolicy().GetPerTryTimeout().AsDuration()
	}
	switch {
	case a.GetPrefixRewrite() != "":
		h.Rewrite = a.GetPrefixRewrite()
	case a.GetRegexRewrite() != nil:
		h.Rewrite = a.GetRegexRewrite().GetSubstitution()
	}
	if c := a.GetCluster(); c != "" {
		h.Clusters = []Share{{c, 100, labelsOf(a.GetMetadataMatch())}}
	}
	total := 0.0
	for _, c := range a.GetWeightedClusters().GetClusters() {
		total += float64(c.GetWeight().GetValue())
	}
	for _, c := range a.GetWeightedClusters().GetClusters() {
		h.Clusters = append(h.Clusters, Share{c.GetName(), 100 * float64(c.GetWeight().GetValue()) / total, labelsOf(c.GetMetadataMatch())})
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		h.Mirrors = append(h.Mirrors, m.GetCluster())
	}
}
