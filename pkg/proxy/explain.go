// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Query is a request that is explained and not sent.
type Query struct {
	Listener  string // name or address of the listener it comes to; empty: the outbound one for HTTP
	Method    string // GET when empty
	Scheme    string // http when empty
	Authority string // host, with the port if it has one
	Path      string // with the query; / when empty
	Headers   [][2]string
}

// Explanation is the way of a request through what is in service, step by step.
type Explanation struct {
	Outcome   string        `json:"outcome"` // a sentence: where it goes, or why nowhere
	Routed    bool          `json:"routed"`  // an upstream gets it
	Steps     []ExplainStep `json:"steps"`
	Endpoints []ExplainStep `json:"endpoints,omitempty"`
	Hints     []string      `json:"hints,omitempty"` // where mutual TLS is demanded and one side would not speak it, and the like
}

// ExplainStep is one decision with its reason.
type ExplainStep struct {
	// Stage is listener, filter chain, filters, virtual host, route, session, cluster,
	// fallback or endpoint; or of what governs the request timeouts, retries, retry budget,
	// hedging, rate limit, fault, limits, circuit or outlier detection.
	Stage  string `json:"stage"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
	// Settings are those of what governs the request with their present numbers, for
	// scripts: Timeouts… to Outlier… of this package, or a filter's. Nil of other steps.
	Settings any `json:"settings,omitempty"`
}

// ErrNoListener is returned for a listener that is not in service.
var ErrNoListener = errors.New("no such listener")

// Explain follows a request through the compiled configuration that the workers
// use, with their own matchers. Filters are named and not run: one that answers or
// changes the request is not seen. Any goroutine but a loop may call it.
func (p *Proxy) Explain(q Query) (Explanation, error) {
	now := p.loopTime()
	p.mu.Lock()
	defer p.mu.Unlock()
	x := explainer{p: p, now: now}
	l, err := x.listener(q.Listener)
	if err != nil {
		return Explanation{}, err
	}
	x.request(q)
	x.chain(l)
	return x.out, nil
}

// explainer is one explanation under way.
type explainer struct {
	p       *Proxy
	now     int64 // of the loops
	local   netip.AddrPort
	head    codec.RequestHead
	scratch []byte
	out     Explanation
	empty   []string           // clusters without an endpoint
	lost    float64            // percent of the requests that they get
	usable  int                // endpoints that it may go to
	routes  *resource.Fallback // of the route, which comes before its clusters'
	high    bool               // by the route's priority
	retries bool               // the route's policy retries something
	open    []string           // clusters whose circuit lets nothing pass
	through int                // clusters with an endpoint whose circuit does
	instead []string           // what answers for those without an endpoint, or with an open circuit
}

func (x *explainer) step(stage, name, reason string, args ...any) {
	x.out.Steps = append(x.out.Steps, ExplainStep{Stage: stage, Name: name, Reason: fmt.Sprintf(reason, args...)})
}

func (x *explainer) hint(text string, args ...any) {
	x.out.Hints = append(x.out.Hints, fmt.Sprintf(text, args...))
}

func (x *explainer) end(outcome string, args ...any) { x.out.Outcome = fmt.Sprintf(outcome, args...) }

// listener picks by name or address; without either the one that the application
// sends HTTP to.
func (x *explainer) listener(want string) (*listener, error) {
	var found *listener
	how := "asked for"
	if want == "" {
		found, how = x.defaultListener()
	}
	var names []string
	for _, l := range x.p.listeners {
		names = append(names, l.name)
		if want != "" && (l.name == want || slices.ContainsFunc(l.open, func(o openSocket) bool { return o.addr.String() == want })) {
			found = l
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("%w: none is in service yet", ErrNoListener)
	case found == nil && want == "":
		return nil, fmt.Errorf("%w: %s; name the listener to explain, there are: %s", ErrNoListener, how, strings.Join(names, ", "))
	case found == nil:
		return nil, fmt.Errorf("%w: %q; there are: %s", ErrNoListener, want, strings.Join(names, ", "))
	}
	var addresses []string
	for _, o := range found.open {
		addresses = append(addresses, o.addr.String())
	}
	if len(found.open) > 0 {
		x.local = found.open[0].addr.AddrPort
	}
	x.step("listener", found.name, "%s: %s", cmp.Or(strings.Join(addresses, ", "), "bound to no address"), how)
	return found, nil
}

// outboundListener is what the control plane and the sidecar's own bootstrap call
// the listener that the application sends HTTP to.
const outboundListener = "outbound"

// defaultListener is the outbound listener with an HTTP connection manager, and why
// it is that one: of several the one named outbound, or else the first by name.
// Others are looked at only where none is outbound. It is nil where none of those
// has a manager: a TCP proxy sends all to its clusters, whatever host a URL names.
func (x *explainer) defaultListener() (found *listener, how string) {
	outbound, several := false, false
	for _, l := range x.p.listeners {
		outbound = outbound || l.resource().Direction == resource.Outbound
	}
	for _, l := range x.p.listeners {
		res := l.resource()
		if outbound && res.Direction != resource.Outbound || !hasHTTPManager(res) {
			continue
		}
		several = several || found != nil
		if found == nil || compareDefault(l, found) < 0 {
			found = l
		}
	}
	switch {
	case found == nil && outbound:
		return nil, "no outbound one has an HTTP connection manager"
	case found == nil:
		return nil, "none has an HTTP connection manager"
	case !outbound:
		return found, "the first by name, as none is outbound"
	case several && found.name != outboundListener:
		return found, "the first by name of the outbound ones for HTTP"
	}
	return found, "the application sends here"
}

// hasHTTPManager says whether a filter chain of the listener takes HTTP.
func hasHTTPManager(l *resource.Listener) bool {
	return l.DefaultFilterChain != nil && l.DefaultFilterChain.HTTP != nil ||
		slices.ContainsFunc(l.FilterChains, func(c *resource.FilterChain) bool { return c.HTTP != nil })
}

// compareDefault puts outbound listeners first, inbound ones last, and of one
// direction the one named outbound first.
func compareDefault(a, b *listener) int {
	rank := func(l *listener) int {
		r := [...]int{resource.Unspecified: 2, resource.Inbound: 4, resource.Outbound: 0}[l.resource().Direction]
		if l.name != outboundListener {
			r++
		}
		return r
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.name, b.name))
}

// request makes the head that the matchers see.
func (x *explainer) request(q Query) {
	h := &x.head
	h.Reset()
	h.SetMethod([]byte(cmp.Or(q.Method, "GET")))
	h.SetScheme([]byte(cmp.Or(q.Scheme, "http")))
	h.SetAuthority([]byte(q.Authority))
	h.SetPath([]byte(cmp.Or(q.Path, "/")))
	for _, f := range q.Headers {
		h.Add([]byte(f[0]), []byte(f[1]))
	}
}

// chain finds the filter chain of a client on this host.
func (x *explainer) chain(l *listener) {
	conf := l.config.Load()
	remote := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	if x.local.Addr().Is6() && !x.local.Addr().Is4In6() {
		remote = netip.AddrPortFrom(netip.IPv6Loopback(), 0)
	}
	t := traits{local: x.local, remote: remote, direct: remote, transport: transportRaw}
	if slices.ContainsFunc(conf.res.Filters, func(f resource.ListenerFilter) bool { return f.Kind == resource.HTTPInspector }) {
		t.alpn = []byte(alpnHTTP11)
	}
	ch := conf.match(&t)
	if ch == nil {
		x.end("the connection is closed: none of %d filter chains is for a client on this host", len(conf.chains))
		return
	}
	reason := "takes every connection"
	switch {
	case ch == conf.deflt:
		reason = "the default, as no other matches a client on this host"
	case !ch.plain():
		reason = fmt.Sprintf("the most specific of %d for a client on this host", len(conf.chains))
	}
	if t := ch.res.TLS; t != nil {
		how := "TLS"
		if t.RequireClientCertificate {
			how = "mutual TLS"
		}
		reason += ", by " + how
		x.hint("the listener %s takes %s only: whoever speaks plaintext to it is refused before there is a request", l.name, how)
	}
	x.step("filter chain", cmp.Or(ch.name, "unnamed"), "%s", reason)
	x.connections(ch)
	if t := ch.tcp.Load(); t != nil {
		x.tcp(t)
		return
	}
	m := ch.manager.Load()
	if m == nil {
		x.end("nowhere: the filter chain is not compiled")
		return
	}
	var filters []string
	for _, f := range m.res.Filters {
		if !f.Disabled {
			filters = append(filters, f.Name)
		}
	}
	x.step("filters", strings.Join(filters, ", "), "in this order; what they would do is not followed")
	if x.prepare(m) {
		x.route(m)
	}
}

// tcp ends with the clusters of a TCP proxy.
func (x *explainer) tcp(t *tcpProxy) {
	idle, attempts := "no limit of silence", max(t.res.MaxConnectAttempts, 1)
	if t.res.IdleTimeout > 0 {
		idle = fmt.Sprintf("%v of silence", t.res.IdleTimeout)
	}
	x.rule("timeouts", cmp.Or(t.res.StatPrefix, "unnamed"), TimeoutSettings{Idle: millis(t.res.IdleTimeout)}, idle)
	x.rule("retries", cmp.Or(t.res.StatPrefix, "unnamed"), ConnectSettings{attempts}, fmt.Sprintf("%d attempts to connect at most", attempts))
	total := uint32(0)
	for i := range t.res.Clusters {
		total += t.res.Clusters[i].Weight
	}
	var names []string
	for i := range t.res.Clusters {
		w := &t.res.Clusters[i]
		names = append(names, w.Name)
		x.cluster(w.Name, x.p.slots[w.Name], &t.clusters[i].criteria, share(w.Weight, total, len(t.res.Clusters)))
	}
	x.finish(names)
}

// prepare changes host and path as the manager does before it matches; false
// where it answers itself.
func (x *explainer) prepare(m *manager) bool {
	bare := withoutPort(x.head.Authority())
	port := x.head.Authority()[len(bare):]
	if len(port) > 1 && (m.res.StripAnyPort || m.res.StripMatchingPort && string(port[1:]) == strconv.Itoa(int(x.local.Port()))) {
		port = nil
	}
	if m.res.StripTrailingHostDot && len(bare) > 1 && bare[len(bare)-1] == '.' {
		bare = bare[:len(bare)-1]
	}
	x.head.SetAuthority(append(slices.Clone(bare), port...))

	was := string(x.head.Path())
	path, query := splitPath([]byte(was))
	path = slices.Clone(path)
	if m.res.EscapedSlashes != resource.SlashesKeep && hasEscapedSlash(path) {
		switch m.res.EscapedSlashes {
		case resource.SlashesReject:
			x.end("400 from the sidecar itself: the path has escaped slashes, which the listener refuses")
			return false
		case resource.SlashesUnescapeRedirect:
			x.end("307 from the sidecar itself: the path has escaped slashes, which the listener redirects")
			return false
		}
		path = unescapeSlashes(path)
	}
	if m.res.NormalizePath {
		var ok bool
		if path, ok = normalise(path); !ok {
			x.end("400 from the sidecar itself: the path cannot be normalised")
			return false
		}
	}
	if m.res.MergeSlashes {
		path = mergeSlashes(path)
	}
	if strings.Contains(was, "?") {
		path = append(append(path, '?'), query...)
	}
	if string(path) != was {
		x.step("path", string(path), "normalised from %s", was)
	}
	x.head.SetPath(path)
	return true
}

// cluster shows one cluster with its endpoints.
func (x *explainer) cluster(name string, c *cluster, asked *criteria, percent float64) {
	var s *clusterSpec
	if c != nil {
		s = c.spec.Load()
	}
	if s == nil {
		x.step("cluster", name, "%.4g%% of the requests, and it is not configured: 503 NC", percent)
		x.empty, x.lost = append(x.empty, name), x.lost+percent
		return
	}
	reason := fmt.Sprintf("%.4g%% of the requests, %s", percent, s.res.LB.Policy)
	if s.res.Type == resource.Aggregate {
		reason = fmt.Sprintf("%.4g%% of the requests, for the first of its clusters that has room", percent)
	}
	view := s.lb.View()
	open := false
	if s.circuit != nil {
		st := s.circuit.State(x.now)
		if st != breaker.Disabled {
			reason += ", circuit " + st.String()
		}
		if open = st == breaker.Open || st == breaker.ForcedOpen; open {
			x.open = append(x.open, name)
		}
	}
	if view.InPanic() {
		reason += ", too few are healthy: all are tried (panic)"
	}
	subset, outcome := view.InSubset(asked.lb)
	reason += subsetReason(outcome, asked.text)
	x.step("cluster", name, "%s", reason)
	x.bounds(name, c, s)
	x.named(name, s.res.LB.Named, view)
	if c.members.Load() == nil { // of an aggregate, that of the member counts
		x.fallback(name, s.res.Fallback, x.routes, open || s.res.OriginalDst == nil && len(subset) == 0)
	}
	if s.res.OriginalDst != nil {
		x.out.Endpoints = append(x.out.Endpoints, ExplainStep{Stage: "endpoint", Name: "", Reason: "where the connection was meant to go"})
		return
	}
	if list := c.members.Load(); list != nil {
		for _, m := range *list {
			x.cluster(m.name, m, asked, percent)
		}
		return
	}
	if len(subset) == 0 {
		none := name
		if outcome == lb.SubsetMissing && asked.text != "" {
			none = "the subset " + asked.text + " of " + name
			for _, h := range view.Hosts() {
				reason, _ := endpointReason(s, view, h, x.now)
				x.out.Endpoints = append(x.out.Endpoints, ExplainStep{Stage: "endpoint", Name: h.Text(), Reason: reason + ": not in the subset" + asked.has(h)})
			}
		}
		x.out.Endpoints = append(x.out.Endpoints, ExplainStep{Stage: "endpoint", Name: "", Reason: "no endpoints in " + none + ": 503 UH"})
		x.empty, x.lost = append(x.empty, none), x.lost+percent
		return
	}
	x.out.Routed = true
	if !open {
		x.through++
	}
	for _, h := range view.Hosts() {
		reason, gets := endpointReason(s, view, h, x.now)
		switch {
		case outcome != lb.SubsetsOff && !slices.Contains(subset, h):
			reason += ": not in the subset"
		case gets:
			x.usable++
		}
		x.out.Endpoints = append(x.out.Endpoints, ExplainStep{Stage: "endpoint", Name: h.Text(), Reason: reason})
	}
}

// subsetReason says how requests come to their subset.
func subsetReason(o lb.SubsetOutcome, asked string) string {
	switch o {
	case lb.SubsetSelected:
		return ", the subset that the route asks for"
	case lb.SubsetFellBack:
		return ", the subset of the fallback"
	case lb.SubsetFellToAny:
		return ", all as the fallback has none"
	case lb.SubsetMissing:
		if asked != "" {
			return ", no endpoint is in the subset that the route asks for (" + asked + "), and there is no fallback"
		}
		return ", no subset as the route asks for, and no fallback"
	}
	return ""
}

func share(weight, total uint32, clusters int) float64 {
	if clusters == 1 || total == 0 {
		return 100
	}
	return 100 * float64(weight) / float64(total)
}

// finish says in a sentence where the request goes.
func (x *explainer) finish(names []string) {
	what := strings.Join(names, ", ")
	switch {
	case !x.out.Routed:
		if len(names) > 1 {
			x.end("503: %s have no endpoint", what)
			break
		}
		if len(x.empty) == 1 {
			what = x.empty[0]
		}
		x.end("503: %s has no endpoint", what)
	case x.usable == 0:
		x.end("%s, but no endpoint is healthy", what)
	case x.usable == 1:
		x.end("%s, the only endpoint", what)
	default:
		x.end("%s, one of %d endpoints", what, x.usable)
	}
	switch closed := strings.Join(x.open, ", "); {
	case closed == "" || !x.out.Routed:
	case x.through > 0:
		x.out.Outcome += fmt.Sprintf("; what goes to %s gets 503 for now: the circuit is open", closed)
	default:
		x.out.Outcome += fmt.Sprintf(", but 503 for now: the circuit of %s is open", closed)
	}
	if len(x.instead) > 0 {
		x.out.Outcome += fmt.Sprintf("; its fallback answers: %s", strings.Join(x.instead, ", "))
	}
	if x.out.Routed && len(x.empty) > 0 {
		x.out.Outcome += fmt.Sprintf("; %.4g%% get 503, because %s has none", x.lost, strings.Join(x.empty, ", "))
	}
}
