// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// route follows the route table of the manager.
func (x *explainer) route(m *manager) {
	t, where := x.table(m)
	if t == nil {
		x.end("404 NR: %s", where)
		return
	}
	authority := bytes.ToLower(x.head.Authority())
	vh := t.host(authority)
	if vh == nil {
		x.end("404 NR: no virtual host of %s has the host name %q", where, authority)
		return
	}
	x.step("virtual host", vh.res.Name, "the most specific of %s for %s", where, authority)
	if vh.res.RequireTLS == resource.TLSAll {
		x.end("301 from the sidecar itself: the virtual host wants https")
		return
	}
	path, query := splitPath(x.head.Path())
	for _, r := range vh.routes {
		wants, why := x.matches(r, path, query)
		name := cmp.Or(r.res.Name, "unnamed")
		if why != "" {
			x.step("route", name, "skipped: wants %s", why)
			continue
		}
		x.step("route", name, "taken: %s%s", wants, actionReason(r))
		x.action(m, r)
		return
	}
	x.end("404 NR: no route of the virtual host matches")
}

// table finds the route table, and says which it is, or why there is none.
func (x *explainer) table(m *manager) (t *routeTable, where string) {
	switch {
	case m.inline != nil:
		return m.inline, cmp.Or(m.inline.res.Name, "the listener's own routes")
	case m.rds != nil:
		if t = m.rds.table.Load(); t == nil {
			return nil, fmt.Sprintf("the route configuration %q has not come yet", m.rds.name)
		}
		return t, m.rds.name
	}
	return nil, "the listener chooses routes by a scope key, which is not followed"
}

// matches says what a route asks for, or the first thing that does not hold.
func (x *explainer) matches(r *route, path, query []byte) (wants, why string) {
	m := &r.res.Match
	wants = pathText(m)
	if !matchPath(m, path) {
		return "", fmt.Sprintf("%s, the path is %s", wants, path)
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		v, ok := requestValue(&x.head, h.Name, &x.scratch)
		text := headerText(h)
		if !matchHeader(h, v, ok) {
			return "", fmt.Sprintf("%s, it is %s", text, valueText(v, ok))
		}
		wants += ", " + text
	}
	for i := range m.Query {
		q := &m.Query[i]
		v, ok := queryValue(query, q.Name)
		text, holds := "parameter "+q.Name+" present", ok == q.Present
		switch {
		case q.String != nil:
			text, holds = "parameter "+q.Name+" "+stringText(q.String), ok && matchString(q.String, v)
		case !q.Present:
			text = "parameter " + q.Name + " absent"
		}
		if !holds {
			return "", fmt.Sprintf("%s, it is %s", text, valueText(v, ok))
		}
		wants += ", " + text
	}
	if m.GRPCOnly && !grpc.Is(&x.head.Header) {
		return "", "a gRPC request (content-type application/grpc)"
	}
	if m.Fraction != nil {
		limit := x.p.runtimePercent(*m.Fraction)
		if limit == 0 {
			return "", "0% of the requests"
		}
		if limit < 1_000_000 {
			wants += fmt.Sprintf(", and only %.4g%% of the requests, the others go on to the next route", float64(limit)/10_000)
		}
	}
	return wants, ""
}

func pathText(m *resource.RouteMatch) string {
	switch m.Kind {
	case resource.PathExact:
		return "path " + m.Path
	case resource.PathSeparatedPrefix:
		return "path under " + m.Path
	case resource.PathRegex:
		return "path like " + m.Regex.String()
	}
	return "path prefix " + m.Path
}

func headerText(m *resource.HeaderMatch) string {
	text := m.Name + " "
	if m.Invert {
		text += "not "
	}
	switch m.Kind {
	case resource.HeaderString:
		return text + stringText(&m.String)
	case resource.HeaderRange:
		return text + fmt.Sprintf("from %d up to and without %d", m.Start, m.End)
	}
	if m.Present {
		return text + "present"
	}
	return text + "absent"
}

func stringText(m *resource.StringMatch) string {
	if m.Kind == resource.MatchRegex {
		return "like " + m.Regex.String()
	}
	how := [...]string{resource.MatchExact: "", resource.MatchPrefix: "beginning with ", resource.MatchSuffix: "ending in ", resource.MatchContains: "containing "}
	return fmt.Sprintf("%s%q", how[m.Kind], m.Value)
}

func valueText(v []byte, ok bool) string {
	if !ok {
		return "absent"
	}
	return fmt.Sprintf("%q", v)
}

// actionReason adds what the route does beside choosing clusters.
func actionReason(r *route) string {
	if r.action == nil {
		return ""
	}
	a, out := r.action.res, ""
	switch {
	case a.HasPrefixRewrite:
		out += ", path prefix rewritten to " + a.PrefixRewrite
	case a.RegexRewrite != nil:
		out += ", path rewritten to " + a.RegexRewrite.Substitution
	}
	if a.HostRewrite != "" {
		out += ", host rewritten to " + a.HostRewrite
	}
	if a.Timeout > 0 {
		out += ", timeout " + a.Timeout.String()
	}
	return out
}

// action ends the explanation with what the route does.
func (x *explainer) action(m *manager, r *route) {
	switch {
	case r.res.Direct != nil:
		x.end("%d from the sidecar itself", r.res.Direct.Status)
		return
	case r.res.Redirect != nil:
		x.end("%d from the sidecar itself: a redirect", cmp.Or(r.res.Redirect.Status, 301))
		return
	}
	a := r.action
	x.governed(m, r)
	x.sessions(m, r)
	x.routes = a.res.Fallback
	if a.res.ClusterHeader != "" {
		x.clusterOfHeader(a.res.ClusterHeader, &a.criteria)
		return
	}
	var names []string
	for i := range a.clusters {
		w := &a.clusters[i]
		name, c := w.res.Name, w.cluster
		if w.res.Header != "" {
			v, _ := requestValue(&x.head, w.res.Header, &x.scratch)
			name = string(v)
			c = x.p.slots[name]
		}
		names = append(names, name)
		x.cluster(name, c, &w.criteria, share(w.res.Weight, a.total, len(a.clusters)))
	}
	for i := range a.mirrors {
		if m := a.mirrors[i].res; m.Cluster != "" {
			x.step("cluster", m.Cluster, "gets a copy, whose answer is dropped")
		}
	}
	x.finish(names)
}

func (x *explainer) clusterOfHeader(header string, asked *criteria) {
	v, ok := requestValue(&x.head, header, &x.scratch)
	if !ok {
		x.end("503 NC: the route takes the cluster's name from the header %s, which is absent", header)
		return
	}
	name := string(v)
	x.cluster(name, x.p.slots[name], asked, 100)
	x.finish([]string{name})
}
