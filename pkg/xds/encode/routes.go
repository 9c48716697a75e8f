// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Problem is an object, or a part of one, that was left out so that the rest
// can be published.
type Problem struct {
	Object mesh.Key `json:"object"`
	Reason string   `json:"reason"`
}

func (p Problem) Error() string { return p.Object.String() + ": " + p.Reason }

// Routes is the route configuration of all services: one virtual host for each
// service, further ones for its ports that have routes of their own, and for
// host names that routes add. An HTTPRoute that cannot be expressed is left
// out, as a whole, and is a Problem.
func Routes(x *Index, f Flavor) (*routev3.RouteConfiguration, []Problem) {
	t := &routeTable{index: x, flavor: f, claimed: map[string]bool{}, compiled: map[string][]ranked{}}
	t.compile()
	rc := &routev3.RouteConfiguration{Name: OutboundRoutes}
	for _, s := range x.Services { // names first: no alias may take a service's own name
		t.claimed[s] = true
	}
	for _, s := range x.Services {
		rc.VirtualHosts = append(rc.VirtualHosts, t.service(s)...)
	}
	rc.VirtualHosts = append(rc.VirtualHosts, t.hostnames()...)
	return rc, t.problems
}

// routeTable gathers the virtual hosts of one route configuration.
type routeTable struct {
	index    *Index
	flavor   Flavor
	claimed  map[string]bool     // domains; no two virtual hosts may share one
	compiled map[string][]ranked // by compiledKey
	problems []Problem
}

// ranked is a compiled route with what decides its place.
type ranked struct {
	path    int // 0 exact, 1 regular expression, 2 prefix
	length  int // of the path, longer first
	method  bool
	headers int
	query   int
	route   *routev3.Route
}

// before is the Gateway API's precedence. Routes that tie keep their order:
// the older object, then the name, then the rule.
func (a ranked) before(b ranked) int {
	return cmp.Or(
		cmp.Compare(a.path, b.path),
		cmp.Compare(b.length, a.length),
		cmp.Compare(truth(b.method), truth(a.method)),
		cmp.Compare(b.headers, a.headers),
		cmp.Compare(b.query, a.query),
	)
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compiledKey(route, parent string) string { return route + "\x00" + parent }

// compile compiles every route for each of its parents.
func (t *routeTable) compile() {
	for _, r := range t.index.ordered {
		byParent := map[string][]ranked{}
		t.undivided(r)
		err := func() error {
			for _, p := range r.Spec.ParentRefs {
				if _, done := byParent[p.Name]; done {
					continue
				}
				list, err := t.compileRoute(r, p.Name)
				if err != nil {
					return err
				}
				byParent[p.Name] = list
			}
			return nil
		}()
		if err != nil {
			t.problems = append(t.problems, Problem{Object: r.Key(), Reason: err.Error()})
			continue
		}
		for parent, list := range byParent {
			t.compiled[compiledKey(r.name(), parent)] = list
		}
	}
}

// undivided names the rules whose labels choose nothing: they answer 503.
func (t *routeTable) undivided(r *source) {
	for i := range r.Spec.Rules {
		if b := t.index.undivided(&r.Spec.Rules[i]); b != nil {
			t.problems = append(t.problems, Problem{Object: r.Key(), Reason: fmt.Sprintf(
				"spec.rules[%d]: labels of %q: policy and older routes divide its instances by %d other sets of keys, which is the limit: the rule answers 503", i, b.Name, maxSubsetKeys)})
		}
	}
}

func (t *routeTable) compileRoute(r *source, parent string) ([]ranked, error) {
	var out []ranked
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		name := rule.Name
		if name == "" {
			name = strconv.Itoa(i)
		}
		matches := rule.Matches
		if len(matches) == 0 {
			matches = []mesh.HTTPMatch{{}}
		}
		for j := range matches {
			for _, m := range pathMatches(matches[j].Path, t.flavor) {
				route, err := t.route(rule, &matches[j], m, parent)
				if err != nil {
					return nil, fmt.Errorf("spec.rules[%d]: %w", i, err)
				}
				route.Name = r.name() + "/" + name + "/" + strconv.Itoa(j)
				for _, route := range t.hedged(route, rule, matches[j].Method, parent) {
					if err := Validate(route); err != nil {
						return nil, fmt.Errorf("spec.rules[%d]: %w", i, err)
					}
					out = append(out, r.rank(i, j, &matches[j], route))
				}
			}
		}
	}
	return out, nil
}

func rank(m *mesh.HTTPMatch, route *routev3.Route) ranked {
	k := ranked{path: 2, length: len(strings.TrimRight(m.Path.Text(), "/")), method: m.Method != "", headers: len(m.Headers), query: len(m.QueryParams), route: route}
	switch m.Path.Kind() {
	case mesh.MatchExact:
		k.path = 0
	case mesh.MatchRegularExpression:
		k.path = 1
	}
	return k
}

// rank is that of a rule's match.
func (r *source) rank(rule, match int, m *mesh.HTTPMatch, route *routev3.Route) ranked {
	k := rank(m, route)
	if r.grpc == nil || len(r.grpc.Spec.Rules[rule].Matches) == 0 {
		return k
	}
	// A service's name weighs more than any method's: names have 1024 bytes at most.
	exact, service, method := r.grpc.Spec.Rules[rule].Matches[match].Specificity()
	if k.path = 0; !exact {
		k.path = 1
	}
	k.length = service<<11 + method
	return k
}

// service makes the virtual hosts of a service.
func (t *routeTable) service(name string) []*routev3.VirtualHost {
	var ports []uint16
	if s := t.index.Model.Services[name]; s != nil {
		for _, p := range s.Spec.Ports {
			ports = append(ports, p.Port)
		}
	}
	if streams := t.index.StreamsOf(name); len(streams) > 0 {
		t.onlyRequests(name)
		return t.streamHosts(name, streams)
	}
	apart := t.portsApart(name, ports)
	var hosts []*routev3.VirtualHost
	for _, port := range apart {
		at := ":" + strconv.Itoa(int(port))
		hosts = append(hosts, t.host(name+at, name, int(port), []string{name + at, name + "." + MeshDomain + at}))
	}
	domains := []string{name, name + "." + MeshDomain}
	for _, n := range []string{name, name + "." + MeshDomain} {
		if len(ports) == 0 {
			domains = append(domains, n+":*") // no port is declared: any will do
		}
		for _, p := range ports {
			if !slices.Contains(apart, p) {
				domains = append(domains, n+":"+strconv.Itoa(int(p)))
			}
		}
	}
	port := 0
	if len(ports) == 1 {
		port = int(ports[0]) // the name alone means the only port
	}
	delete(t.claimed, name)
	return append(hosts, t.host(name, name, port, domains))
}

// onlyRequests names what the policy of a service of connections says of requests.
func (t *routeTable) onlyRequests(service string) {
	p := t.index.Policy(service)
	if p == nil {
		return
	}
	for _, part := range []struct {
		field, why string
		said       bool
	}{
		{"fault", "have faults", p.Spec.Fault != nil},
		{"hedging", "are hedged", p.Spec.Hedging != nil},
		{"sessionPersistence", "have sessions", p.Spec.SessionPersistence != nil},
	} {
		if part.said {
			t.problems = append(t.problems, Problem{Object: p.Key(), Reason: "spec." + part.field + ": the service's ports carry connections, and only requests " + part.why})
		}
	}
}

// portsApart are the ports with routes that other ports do not have.
func (t *routeTable) portsApart(service string, declared []uint16) []uint16 {
	if len(declared) == 1 {
		return nil
	}
	var out []uint16
	for _, r := range t.index.routes[service] {
		for _, p := range r.Spec.ParentRefs {
			known := len(declared) == 0 || slices.Contains(declared, p.Port)
			if p.Name == service && p.Port != 0 && known && !slices.Contains(out, p.Port) {
				out = append(out, p.Port)
			}
		}
	}
	slices.Sort(out)
	return out
}

// host makes one virtual host of a service: its routes by precedence, then
// what no route matches, which goes to the service itself. port 0 has the
// routes that are for all ports.
func (t *routeTable) host(name, service string, port int, domains []string) *routev3.VirtualHost {
	var list []ranked
	for _, r := range t.index.routes[service] {
		if t.index.applies(r, service, port) {
			list = append(list, t.compiled[compiledKey(r.name(), service)]...)
		}
	}
	return t.finish(name, service, list, t.claim(domains))
}

func (t *routeTable) finish(name, service string, list []ranked, domains []string) *routev3.VirtualHost {
	slices.SortStableFunc(list, ranked.before)
	h := &routev3.VirtualHost{Name: name, Domains: domains, Routes: make([]*routev3.Route, 0, len(list)+1)}
	for _, k := range list {
		h.Routes = append(h.Routes, k.route)
	}
	h.Routes = append(h.Routes, t.fallthroughTo(service)...)
	if p := t.index.Policy(service); p != nil && p.Spec.Fault != nil && t.flavor != GRPC {
		if err := addFault(h, p.Spec.Fault); err != nil {
			t.problems = append(t.problems, Problem{Object: p.Key(), Reason: err.Error()})
		}
	}
	return h
}

// attaches says whether a route is for a port of a service.
func attaches(r *source, service string, port int) bool {
	return slices.ContainsFunc(r.Spec.ParentRefs, func(p mesh.ParentRef) bool {
		return p.Name == service && (p.Port == 0 || int(p.Port) == port)
	})
}

// inForce says whether a route is at some port of a service.
func (t *routeTable) inForce(r *source, service string) bool {
	s := t.index.Model.Services[service]
	if s == nil || len(s.Spec.Ports) == 0 {
		return slices.ContainsFunc(r.Spec.ParentRefs, func(p mesh.ParentRef) bool {
			return p.Name == service && t.index.applies(r, service, int(p.Port))
		})
	}
	return slices.ContainsFunc(s.Spec.Ports, func(p mesh.Port) bool {
		return !p.Streams() && t.index.applies(r, service, int(p.Port))
	})
}

// claim keeps the domains that nobody has.
func (t *routeTable) claim(domains []string) []string {
	out := make([]string, 0, len(domains))
	for _, d := range domains {
		if !t.claimed[d] {
			t.claimed[d] = true
			out = append(out, d)
		}
	}
	return out
}

// hostnames makes the virtual hosts of host names that routes add. Routes of
// several objects, and parents, may meet under one name; what none of them
// matches goes to the first parent of the oldest.
func (t *routeTable) hostnames() []*routev3.VirtualHost {
	type entry struct {
		list    []ranked
		service string
	}
	found := map[string]*entry{}
	var order []string
	for _, r := range t.index.ordered {
		parent := r.Spec.ParentRefs[0].Name
		list, ok := t.compiled[compiledKey(r.name(), parent)]
		if !ok || !t.inForce(r, parent) {
			continue
		}
		for _, h := range r.Spec.Hostnames {
			if found[h] == nil {
				found[h] = &entry{service: parent}
				order = append(order, h)
			}
			found[h].list = append(found[h].list, list...)
		}
	}
	slices.Sort(order)
	var out []*routev3.VirtualHost
	for _, h := range order {
		domains := []string{h}
		if h[0] != '*' { // a domain has one wildcard at most
			domains = append(domains, h+":*")
		}
		if domains = t.claim(domains); len(domains) > 0 {
			out = append(out, t.finish("host|"+h, found[h].service, found[h].list, domains))
		}
	}
	return out
}
