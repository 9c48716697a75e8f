// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"maps"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Index is a model's objects by the service that they are for. It is made once
// per model, and immutable.
type Index struct {
	Model    *mesh.Model
	Services []string // known or named as a backend, sorted
	policies map[string]*mesh.TrafficPolicy
	routes   map[string][]*source // by parent, oldest first
	ordered  []*source            // oldest first
	subsets  map[string][]string  // by service: sets of keys that routes and policies name
	former   map[string][]string  // by service: those that they have named, see Keep
	streams  []Stream             // ports of services that carry connections, by service and port
	digest   string               // of streams
}

// source is a route of requests: one of HTTP, or one of gRPC as one of HTTP.
type source struct {
	*mesh.HTTPRoute
	grpc *mesh.GRPCRoute // nil for one of HTTP
}

// name begins the names of what the route becomes. No HTTPRoute has one with a
// capital letter.
func (s *source) name() string {
	if s.grpc != nil {
		return grpcPrefix + s.Metadata.Name
	}
	return s.Metadata.Name
}

const grpcPrefix = mesh.KindGRPCRoute + "/"

// ObjectOf is the object that the name of a route of requests says it is from, as
// Kind/name; empty for one that is nobody's.
func ObjectOf(route string) string {
	kind := mesh.KindHTTPRoute
	if rest, ok := strings.CutPrefix(route, grpcPrefix); ok {
		kind, route = mesh.KindGRPCRoute, rest
	}
	name, _, ok := strings.Cut(route, "/")
	if !ok {
		return ""
	}
	return kind + "/" + name
}

// sources are the routes of requests, oldest first.
func sources(m *mesh.Model) []*source {
	var out []*source
	for _, r := range mesh.Ordered[*mesh.HTTPRoute](m, mesh.KindHTTPRoute) {
		out = append(out, &source{HTTPRoute: r})
	}
	for _, r := range mesh.Ordered[*mesh.GRPCRoute](m, mesh.KindGRPCRoute) {
		out = append(out, &source{HTTPRoute: r.HTTP(), grpc: r})
	}
	slices.SortStableFunc(out, func(a, b *source) int { return a.Metadata.CreatedAt.Compare(b.Metadata.CreatedAt) })
	return out
}

// applies says whether a route is in force at a port of a service: it is attached,
// and where routes of gRPC are, those of HTTP are not (GEP-1294).
func (x *Index) applies(r *source, service string, port int) bool {
	return attaches(r, service, port) &&
		(r.grpc != nil || !slices.ContainsFunc(x.routes[service], func(o *source) bool { return o.grpc != nil && attaches(o, service, port) }))
}

// NewIndex indexes a model.
func NewIndex(m *mesh.Model) *Index {
	x := &Index{Model: m, policies: map[string]*mesh.TrafficPolicy{}, routes: map[string][]*source{}}
	for _, p := range mesh.Ordered[*mesh.TrafficPolicy](m, mesh.KindTrafficPolicy) {
		if target := p.Spec.TargetRef.Name; x.policies[target] == nil {
			x.policies[target] = p // the oldest is in force
		}
	}
	names := map[string]struct{}{}
	for name := range m.Services {
		names[name] = struct{}{}
	}
	x.ordered = sources(m)
	for _, r := range x.ordered {
		for _, p := range r.Spec.ParentRefs {
			if list := x.routes[p.Name]; len(list) == 0 || list[len(list)-1] != r {
				x.routes[p.Name] = append(list, r)
			}
			names[p.Name] = struct{}{}
		}
		for i := range r.Spec.Rules {
			for _, backend := range backendsOf(&r.Spec.Rules[i]) {
				names[backend] = struct{}{} // so that no route names a cluster that is not there
			}
		}
	}
	x.subsets = subsetKeys(x.ordered, x.policies)
	x.addStreams(func(service string) { names[service] = struct{}{} })
	x.Services = slices.Sorted(maps.Keys(names))
	return x
}

// Policy in force for a service, or nil.
func (x *Index) Policy(service string) *mesh.TrafficPolicy { return x.policies[service] }

// backendsOf lists the services that a rule sends to, copies included.
func backendsOf(rule *mesh.HTTPRule) []string {
	var out []string
	for _, b := range rule.BackendRefs {
		out = append(out, b.Name)
	}
	for _, f := range rule.Filters {
		if f.RequestMirror != nil {
			out = append(out, f.RequestMirror.BackendRef.Name)
		}
	}
	return out
}

// With is the index of a model that differs only in its instances.
func (x *Index) With(m *mesh.Model) *Index {
	y := *x
	y.Model = m
	return &y
}
