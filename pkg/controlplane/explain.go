// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// Query is a request to explain.
type Query struct {
	Method  string
	URL     *url.URL
	Headers map[string][]string
	At      time.Time // when it is sent: permissive policies end
}

// Explanation is the way of a request, step by step.
type Explanation struct {
	Outcome   string // a sentence: where it goes, or why nowhere
	Result    Result // the same in a word
	Routed    bool
	Steps     []Step
	Endpoints []Step
	Hints     []string // what to do where mutual TLS is in the way, or is not where it should be
}

// Result is what becomes of a request, in a word that scripts may rely on.
type Result string

// The results.
const (
	ResultRouted      Result = "routed"      // an instance gets it
	ResultAnswered    Result = "answered"    // the sidecar answers, as a route says
	ResultNotFound    Result = "notFound"    // no route, service or listener is for it
	ResultUnavailable Result = "unavailable" // its service has no instance
	ResultRefused     Result = "refused"     // by all instances that it may go to
)

// end says what becomes of the request.
func (x *Explanation) end(r Result, outcome string, args ...any) {
	x.Outcome, x.Result, x.Routed = fmt.Sprintf(outcome, args...), r, r == ResultRouted
}

// Step is one decision with its reason.
type Step struct {
	Stage  string // listener, virtual host, route, cluster, policy, subset, fallback, endpoint
	Name   string
	Reason string
	Object string // Kind/name that it comes from
}

// GroupOfNode is the group of a client that is, or was, connected.
func (cp *ControlPlane) GroupOfNode(id string) (Group, bool) {
	n, ok := cp.server.NodeStatus(id)
	return groupOf(n.Node), ok
}

// Sender is who sends a request that is explained.
type Sender struct {
	Group Group
	Name  string // as it was found
	How   string // why it is this one
}

// SenderNamed finds the sidecar that a name means: a service, SERVICE/INSTANCE, a
// node id, or an instance's id. A service without a sidecar is answered for one
// with the default addresses. ok is false for an instance that there is not, and
// for an id that several services have.
func (cp *ControlPlane) SenderNamed(m *mesh.Model, name string) (s Sender, ok bool) {
	if n, known := cp.server.NodeStatus(name); known {
		return Sender{groupOf(n.Node), name, "the sidecar of that node id"}, true
	}
	if service, id, both := strings.Cut(name, "/"); both {
		in := m.Instance(mesh.InstanceKey{Service: service, ID: id})
		if in == nil {
			return Sender{}, false
		}
		return cp.senderOf(in), true
	}
	if s, ok := cp.senderOfService(m, name); ok {
		return s, true
	}
	var found *mesh.Instance
	for _, list := range m.Instances {
		for _, in := range list {
			if in.ID != name {
				continue
			}
			if found != nil {
				return Sender{}, false
			}
			found = in
		}
	}
	if found != nil {
		return cp.senderOf(found), true
	}
	return Sender{GroupOfService(name), name, "no service, instance or sidecar of that name is known: as its sidecar would with the default addresses"}, true
}

// senderOf is the sidecar of an instance, which may have none.
func (cp *ControlPlane) senderOf(in *mesh.Instance) Sender {
	name := in.Service + "/" + in.ID
	if n, known := cp.server.NodeStatus(in.Node); known && in.Node != "" {
		return Sender{groupOf(n.Node), name, "its sidecar is " + in.Node}
	}
	return Sender{GroupOfService(in.Service).withIdentity([]*mesh.Instance{in}), name, "no sidecar of it is known: as one would with the default addresses"}
}

// senderOfService is any sidecar of the service: those of one service are given
// the same routes. A service that only calls others has one and no instance.
func (cp *ControlPlane) senderOfService(m *mesh.Model, service string) (Sender, bool) {
	note := ""
	if len(m.Instances[service]) == 0 {
		note = ", which has no instance"
	}
	for _, n := range cp.server.Status() {
		if n.Node.Text("service") == service {
			return Sender{groupOf(n.Node), service, "as the sidecar " + n.Node.ID + " of the service" + note}, true
		}
	}
	if m.Services[service] == nil {
		return Sender{}, false
	}
	return Sender{GroupOfService(service).withIdentity(m.Instances[service]), service, "no sidecar of the service" + note + " is known: as one would with the default addresses"}, true
}

// GroupOfService is the group of a sidecar of a service with the default
// addresses; with no service, that of a client that is not of the mesh.
func GroupOfService(service string) Group {
	if service == "" {
		return Group{Kind: KindEnvoy, Outbound: defaultOutbound}
	}
	return probe(service)
}

// Explain follows a request of the application beside a sidecar, in that
// model: listener, virtual host, route, clusters, endpoints. It is pure.
func Explain(m *mesh.Model, g Group, q Query) Explanation {
	var x Explanation
	flavor := encode.Sidecar
	switch {
	case g.Kind == KindGRPC:
		flavor = encode.GRPC
		x.step("listener", q.URL.Host, "a gRPC client asks for the listener of its target", "")
	case g.Outbound == "":
		x.end(ResultNotFound, "nowhere: this sidecar has no outbound listener")
		return x
	default:
		x.step("listener", encode.OutboundListener, "the application sends to "+g.Outbound, "")
	}
	if g.Kind == KindEnvoy {
		flavor = encode.Envoy
	}
	index := encode.NewIndex(m)
	tls := handshake{input{index: index, group: g, now: q.At}}
	if q.URL.Scheme == mesh.ProtocolTCP || q.URL.Scheme == mesh.ProtocolTLS {
		x.stream(index, tls, q)
		return x
	}
	rc, problems := encode.Routes(index, flavor)
	for _, p := range problems {
		x.step("route", "", "left out: "+p.Reason, p.Object.String())
	}
	hit, ok := encode.Find(rc, encode.Request{Method: q.Method, Host: q.URL.Host, URL: q.URL, Headers: q.Headers})
	if hit.VirtualHost == "" {
		x.end(ResultNotFound, "404 NR: no service and no route has the host name %q", q.URL.Host)
		return x
	}
	x.step("virtual host", hit.VirtualHost, "the domain "+hit.Domain+" is the most specific for "+q.URL.Host, "")
	for _, s := range hit.Skipped {
		x.step("route", s.Route, "skipped: "+s.Reason, encode.ObjectOf(s.Route))
	}
	if !ok {
		x.end(ResultNotFound, "404 NR: no route of the virtual host matches")
		return x
	}
	x.step("route", hit.Route, "taken: "+hit.Matched+actionOf(hit), encode.ObjectOf(hit.Route))
	switch {
	case hit.Redirect != "":
		x.end(ResultAnswered, "redirect: %s", hit.Redirect)
		return x
	case hit.Direct >= 500: // no backend of the route can take it
		x.end(ResultUnavailable, "%d from the sidecar itself", hit.Direct)
		return x
	case hit.Direct != 0:
		x.end(ResultAnswered, "%d from the sidecar itself", hit.Direct)
		return x
	}
	x.clusters(index, tls, q.Method, hit)
	return x
}

func (x *Explanation) step(stage, name, reason, object string) {
	x.Steps = append(x.Steps, Step{stage, name, reason, object})
}

// clusters ends the explanation with who may get the request.
func (x *Explanation) clusters(index *encode.Index, tls handshake, method string, hit encode.Hit) {
	var to targets
	for _, c := range hit.Clusters {
		service := strings.TrimPrefix(c.Cluster, encode.OutboundCluster(""))
		if !slices.Contains(to.names, service) { // shares of its subsets
			to.names = append(to.names, service)
		}
		reason, object := "with the mesh's defaults", ""
		if p := index.Policy(service); p != nil {
			reason, object = "as the policy says", p.Key().String()
		}
		members := index.Model.Instances[service]
		if len(c.Labels) > 0 {
			reason += ", of its instances those with " + mesh.LabelText(c.Labels)
			members = x.subset(index.Policy(service), members, c)
		}
		x.step("cluster", c.Cluster, fmt.Sprintf("%.4g%% of the requests, %s", c.Percent, reason), object)
		x.losers(index.Model.PoliciesOf(service))
		x.fallback(index, tls.rules.group, method, index.Policy(service))
		if len(members) == 0 {
			why := "no endpoints: the service has no instance"
			switch {
			case index.Model.Services[service] == nil:
				why = "no endpoints: there is no such service"
			case len(index.Model.Instances[service]) > 0:
				why = "no endpoints: " + index.Model.NoSuchLabels(service, c.Labels)
				to.noSubset = append(to.noSubset, index.Model.NoSuchLabels(service, c.Labels))
			}
			x.Endpoints = append(x.Endpoints, Step{"endpoint", "", fmt.Sprintf("%s, its %.4g%% get 503", why, c.Percent), service})
			to.empty, to.lost = append(to.empty, service), to.lost+c.Percent
		}
		for _, in := range members {
			policy := index.Policy(service)
			refusal := tls.refusal(policy, in)
			x.hint(tls.hint(policy, in, refusal))
			why := to.count(in, refusal)
			x.Endpoints = append(x.Endpoints, Step{"endpoint", fmt.Sprintf("%s:%d", in.Address, in.Port), why, service + "/" + in.ID})
		}
	}
	for _, m := range hit.Mirrors {
		x.step("cluster", m, "gets a copy", encode.ObjectOf(hit.Route))
	}
	outcome, result := to.outcome()
	x.end(result, "%s", outcome)
}

// losers names the policies of a service that an older one keeps out of force.
func (x *Explanation) losers(policies []*mesh.TrafficPolicy) {
	for i, p := range policies {
		if i > 0 {
			x.step("policy", p.Key().Name, fmt.Sprintf("not in force, circuit and retry budget neither: %s has the same target and is older", policies[0].Key()), p.Key().String())
		}
	}
}

// targets sums up who may get a request.
type targets struct {
	names, empty      []string // services; those without an instance
	noSubset          []string // why those have none that have some of other labels
	lost              float64  // percent of the requests that go to those
	instances, usable int      // usable: healthy, or held
	refused           refused  // of the usable ones
	refusedAll        refused
}

// count adds an instance and says what is known of it.
func (t *targets) count(in *mesh.Instance, refusal string) string {
	t.instances++
	why := in.Health.String()
	if in.Held {
		why += ", its lease has ended and it is held"
	}
	if in.Zone != "" {
		why += ", zone " + in.Zone
	}
	if in.MutualTLS {
		why += ", takes mutual TLS"
	}
	if in.Routable() {
		t.usable++
	} else {
		why += ": left out while others are healthy"
	}
	if refusal != "" {
		why += "; refused: " + refusal
		t.refusedAll.add(refusal)
		if in.Routable() {
			t.refused.add(refusal)
		}
	}
	return why
}

func (t *targets) outcome() (outcome string, _ Result) {
	names, no, tried := strings.Join(t.names, ", "), &t.refused, t.usable
	if t.usable == 0 {
		no, tried = &t.refusedAll, t.instances
	}
	switch {
	case t.instances == 0 && len(t.noSubset) > 0:
		return "503 UH: " + strings.Join(slices.Compact(t.noSubset), "; "), ResultUnavailable
	case t.instances == 0:
		return "503 UH: " + names + plural(len(t.names), " has", " have") + " no instance", ResultUnavailable
	case no.count == tried:
		return "refused: " + no.String(), ResultRefused
	case t.usable == 0:
		outcome = fmt.Sprintf("%s, but %s healthy, and tried all the same", names, plural(t.instances, "its only instance is not", fmt.Sprintf("none of its %d instances is", t.instances)))
	default:
		outcome = names + ", " + plural(t.usable, "the only instance", fmt.Sprintf("one of %d instances", t.usable))
	}
	if no.count > 0 {
		outcome += fmt.Sprintf(", but not with %d of them: %s", no.count, no)
	}
	if len(t.empty) > 0 {
		why := strings.Join(t.empty, ", ") + " has none"
		if len(t.noSubset) > 0 {
			why = strings.Join(slices.Compact(t.noSubset), "; ")
		}
		outcome += fmt.Sprintf("; %.4g%% get 503, because %s", t.lost, why)
	}
	return outcome, ResultRouted
}

// plural chooses between the words for one and for any other number.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func actionOf(h encode.Hit) string {
	out := ""
	if h.Rewrite != "" {
		out += ", path rewritten to " + h.Rewrite
	}
	if h.Timeout > 0 {
		out += ", timeout " + h.Timeout.Round(time.Millisecond).String()
	}
	if h.Retries > 0 {
		out += fmt.Sprintf(", up to %d %s on %s", h.Retries, plural(int(h.Retries), "retry", "retries"), h.RetryOn)
	}
	if h.Session != "" {
		out += ", sessions by " + h.Session
	}
	if h.HedgeAfter > 0 {
		out += ", another attempt beside the one under way after " + h.HedgeAfter.String()
	}
	return out
}
