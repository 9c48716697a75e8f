// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/responsecache"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// sessions names the filters that choose endpoints before balancing does.
func (x *explainer) sessions(m *manager, r *route) {
	path := x.head.Path()
	for _, f := range m.res.Filters {
		if f.Disabled {
			continue
		}
		settings := f.Config
		if own := r.res.FilterConfig[f.Name]; own != nil {
			settings = own
		}
		if len(r.action.clusters) == 1 {
			if own := r.action.clusters[0].res.FilterConfig[f.Name]; own != nil {
				settings = own
			}
		}
		o, ok := settings.(filter.Overrider)
		if !ok {
			continue
		}
		by, strict := o.Overrides(path)
		switch {
		case by == "":
		case strict:
			x.rule("session", f.Name, SessionSettings{by, true}, by+" decides first: the endpoint that it names, or 503 where that cannot be had")
		default:
			x.rule("session", f.Name, SessionSettings{by, false}, by+" decides first: the endpoint that it names, if the cluster has it and it is not unhealthy")
		}
	}
}

// named shows the headers by which a request itself chooses endpoints of a cluster.
func (x *explainer) named(name string, n *resource.NamedHosts, view *lb.View) {
	if n == nil {
		return
	}
	for _, header := range n.Headers {
		v := x.head.Get(header)
		is := "it is absent"
		if v != nil {
			is = fmt.Sprintf("it is %q", v)
			first, _, _ := strings.Cut(string(v), ",")
			if a, ok := lb.ParseAddress([]byte(strings.Trim(first, " \t"))); ok && view.Find(a) != nil {
				is += ", which is one"
			}
		}
		x.rule("session", header, SessionSettings{"the header " + header, false},
			fmt.Sprintf("the header decides first: the endpoints of %s that it lists, whatever their health, one for each attempt; %s", name, is))
	}
}

// fallback shows what answers in place of a cluster, part by part, and notes what does
// where the cluster has no endpoint.
func (x *explainer) fallback(name string, own, routes *resource.Fallback, fails bool) {
	f, of := own, "of "+name
	if routes != nil {
		f, of = routes, "of the route"
	}
	if f == nil || x.head.Method == codec.MethodConnect {
		return
	}
	then := "where " + name + " does not answer (circuit, limits, no endpoint, connection, reset, timeout)"
	first := ""
	part := func(what, reason string, holds bool) {
		x.step("fallback", what, "%s, %s: %s", of, then, reason)
		if holds && first == "" {
			first = what
		}
		then = "then"
	}
	if f.Cluster != "" {
		reason, ok := x.fallbackCluster(name, f.Cluster)
		part(f.Cluster, reason, ok)
	}
	if f.Cached != nil {
		reason, usable := fmt.Sprintf("the last good answer to the same request, of %s at most, if there is one", f.Cached.MaxAge), responsecache.Usable(&x.head)
		if !usable {
			reason = "nothing: none is kept of such a request"
		}
		part("last good answer", reason, false)
	}
	if s := f.Static; s != nil {
		what := fmt.Sprint(s.Status)
		if grpc.Is(&x.head.Header) {
			part(what, "nothing: a text is no message of a call of gRPC", false)
		} else {
			part(what, fmt.Sprintf("an answer of the sidecar itself, of %d bytes", len(s.Body)), true)
		}
	}
	if fails && first != "" {
		x.instead = append(x.instead, first)
	}
}

// fallbackCluster says which requests another cluster gets; ok: this one, where nothing
// was asked before.
func (x *explainer) fallbackCluster(of, name string) (reason string, ok bool) {
	var s *clusterSpec
	if c := x.p.slots[name]; c != nil {
		s = c.spec.Load()
	}
	switch {
	case s == nil:
		return "nothing: it is not configured", false
	case name == of:
		return "nothing: it is the cluster itself", false
	case x.head.Upgrade:
		return "nothing: a request for a tunnel does not go there", false
	}
	reason = "gets the request if it surely was not processed"
	if x.head.Method.Idempotent() {
		reason = "gets the request"
	}
	reason += ", and its body is here"
	if s.res.OriginalDst != nil || s.res.Type == resource.Aggregate {
		return reason, true
	}
	n := len(s.lb.View().Hosts())
	if n == 0 {
		return reason + "; it has no endpoint", false
	}
	return fmt.Sprintf("%s; endpoints: %d", reason, n), true
}
