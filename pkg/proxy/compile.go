// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/router"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// listenerConfig is a compiled listener.
type listenerConfig struct {
	res    *resource.Listener
	chains []*chain
	deflt  *chain
	log    *connectionLog // nil: none
	tree   chainTree
	// mixed: some chains are secured and others are not.
	mixed bool
}

// chain is the place of a filter chain of one listener. It keeps its identity
// over updates as long as its name, match and TLS stay, so that its connections live
// on and the next request of each sees the new settings. Connections that were made
// under another TLS are told to go.
type chain struct {
	// set once
	match resource.FilterChainMatch
	name  string
	// off the loops only
	res *resource.FilterChain
	// atomic
	manager atomic.Pointer[manager]   // nil for a TCP proxy
	tcp     atomic.Pointer[tcpProxy]  // nil for HTTP
	tls     atomic.Pointer[serverTLS] // nil: plaintext
	rates   atomic.Pointer[[]connectionRate]
	// removed: connections are told to go.
	removed atomic.Bool
	// active counts its connections of all workers, limit is the most; 0: none.
	active, limit atomic.Int64
}

// manager is a compiled HTTP connection manager.
type manager struct {
	res      *resource.HTTPManager
	listener *resource.Listener
	chain    string
	limits   http1.Limits
	http2    http2.Limits

	rds    *routeSlot // one of rds, inline, scoped
	inline *routeTable
	scoped atomic.Pointer[scopeTable]

	router   router.Config
	filters  [][]filterHooks // by worker
	slots    int
	log      *accesslog.Plan // nil: no access log
	tracing  *trace.Plan     // nil: context passes untouched
	captures []accesslog.Capture
	consumer record.Consumer // nil: nobody wants records
	internal []netip.Prefix
	server   []byte
	stats    *managerStats // by worker, see stats.go
}

// filterHooks is one filter of a chain on one worker with the hooks it has.
type filterHooks struct {
	request      filter.Filter
	response     filter.ResponseFilter
	requestData  filter.RequestDataFilter
	responseData filter.ResponseDataFilter
	resume       filter.ResumeFilter
	done         filter.DoneFilter
	reply        filter.ReplyFilter

	responseTrailer filter.ResponseTrailerFilter
	changeRequest   filter.RequestTransformer
	changeResponse  filter.ResponseTransformer
}

// scopeTable finds a route table by scope key.
type scopeTable struct {
	res   *resource.ScopedRoutes
	byKey map[string]*routeSlot // keys joined by NUL
	own   map[string]*routeTable
}

// consumers hands a record to the access log and to tracing.
type consumers struct {
	log   *accesslog.Plan
	trace *trace.Plan
}

// Consume implements record.Consumer.
func (c *consumers) Consume(r *record.Record) {
	if c.log != nil {
		c.log.Consume(r)
	}
	if c.trace != nil && r.Kind == record.HTTPExchange {
		c.trace.Consume(r)
	}
}

// compileListener compiles res, carrying over the chains of prev that stay.
// Chains that stay get their new settings only with commit, so that a listener of
// which one part fails keeps all of what it was.
func (p *Proxy) compileListener(res *resource.Listener, prev *listenerConfig) (c *listenerConfig, commit func(), err error) {
	c = &listenerConfig{res: res}
	var errs []error
	if c.log, err = p.compileConnectionLog(res); err != nil {
		errs = append(errs, err)
	}
	var stores []func()
	for i, fc := range res.FilterChains {
		if len(fc.DestinationNames) > 0 {
			continue // nobody has said where that is
		}
		ch, store, err := p.compileChain(res, fc, prev.find(fc))
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: filter_chains[%d]: %w", res.Name, i, err))
			continue
		}
		c.chains, stores = append(c.chains, ch), append(stores, store)
	}
	if fc := res.DefaultFilterChain; fc != nil {
		// A chain that was the only one, and for all connections, is the same as the
		// default one.
		old := prev.find(fc)
		ch, store, err := p.compileChain(res, fc, old)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: default_filter_chain: %w", res.Name, err))
		} else {
			c.deflt, stores = ch, append(stores, store)
		}
	}
	c.tree = chainTree{}
	for _, ch := range c.chains {
		c.tree.add(ch)
	}
	c.mixed = mixedChains(res)
	commit = func() {
		for _, store := range stores {
			store()
		}
	}
	return c, commit, errors.Join(errs...)
}

// find returns the chain of the previous configuration that fc continues.
func (c *listenerConfig) find(fc *resource.FilterChain) *chain {
	if c == nil {
		return nil
	}
	for _, ch := range c.all() {
		same := ch.res.Name == fc.Name && reflect.DeepEqual(ch.res.Match, fc.Match)
		if same && (ch.res.HTTP != nil) == (fc.HTTP != nil) {
			return ch
		}
	}
	return nil
}

func (c *listenerConfig) all() []*chain {
	if c == nil {
		return nil
	}
	if c.deflt == nil {
		return c.chains
	}
	return append(slices.Clone(c.chains), c.deflt)
}

// compileChain compiles fc for its place, the old one where it stays. What it
// compiled goes into the place with store.
func (p *Proxy) compileChain(ln *resource.Listener, fc *resource.FilterChain, old *chain) (ch *chain, store func(), err error) {
	ch = old
	if ch == nil || (ch.res.HTTP != nil) != (fc.HTTP != nil) || !reflect.DeepEqual(ch.res.TLS, fc.TLS) {
		ch = &chain{match: fc.Match, name: fc.Name}
	} else if ch.res == fc && !p.recompile {
		return ch, func() {}, nil
	}
	if fc.HTTP != nil {
		m, err := p.compileManager(ln, fc)
		return ch, func() { ch.manager.Store(m); p.adoptChain(ch, fc) }, err
	}
	t, err := p.compileTCP(ln, fc)
	return ch, func() { ch.tcp.Store(t); p.adoptChain(ch, fc) }, err
}

func (p *Proxy) compileManager(ln *resource.Listener, fc *resource.FilterChain) (*manager, error) {
	res := fc.HTTP
	m := &manager{
		res: res, listener: ln, chain: fc.Name,
		limits:   http1.Limits{HeadBytes: res.MaxHeadBytes, HeaderCount: res.MaxHeaders},
		internal: res.InternalAddressRanges,
		server:   []byte(res.ServerName),
		stats:    p.managerStats(res.StatPrefix),
	}
	m.http2 = http2Limits(&res.HTTP2, m.limits)
	switch {
	case res.RejectUnderscores:
		m.limits.Underscores, m.http2.Underscores = http1.RejectUnderscores, http2.RejectUnderscores
	case res.DropUnderscores:
		m.limits.Underscores, m.http2.Underscores = http1.DropUnderscores, http2.DropUnderscores
	}
	if res.ServerName == "" {
		m.server = []byte("outrigger")
	}
	switch {
	case res.Routes != nil:
		m.inline = compileTable(res.Routes, p.slot)
	case res.Scoped != nil:
		m.scoped.Store(p.compileScopes(res.Scoped))
	default:
		m.rds = p.routeSlot(res.RouteConfigName)
	}
	if err := p.compileFilters(m); err != nil {
		return nil, err
	}
	return m, p.compileRecords(m, ln)
}

func (p *Proxy) compileFilters(m *manager) error {
	m.filters = make([][]filterHooks, len(p.workers))
	for i, f := range m.res.Filters {
		if f.Disabled {
			continue
		}
		if f.Missing {
			for w := range p.workers {
				m.filters[w] = append(m.filters[w], filterHooks{request: missingFilter{}})
			}
			m.slots++
			continue
		}
		spec := p.options.Filters.Lookup(f.TypeURL)
		if spec == nil {
			return fmt.Errorf("http_filters[%d]: no filter of type %s", i, f.TypeURL)
		}
		if c, ok := f.Config.(*router.Config); ok {
			m.router = *c
		}
		if spec.New == nil {
			continue // a marker, such as the router
		}
		for w := range p.workers {
			impl := spec.New(f.Config, filter.Worker{
				Index: w, Slot: m.slots, Loop: p.workers[w].loop, Name: f.Name, StatPrefix: m.res.StatPrefix,
				Service: p.options.Service, Node: p.options.Node, Percent: p.runtimePercent, Number: p.runtimeNumber,
				Failing: p.failing.Load, Members: p.workers[w].members,
			})
			h := filterHooks{request: impl}
			h.response, _ = impl.(filter.ResponseFilter)
			h.requestData, _ = impl.(filter.RequestDataFilter)
			h.responseData, _ = impl.(filter.ResponseDataFilter)
			h.resume, _ = impl.(filter.ResumeFilter)
			h.done, _ = impl.(filter.DoneFilter)
			h.reply, _ = impl.(filter.ReplyFilter)
			h.responseTrailer, _ = impl.(filter.ResponseTrailerFilter)
			h.changeRequest, _ = impl.(filter.RequestTransformer)
			h.changeResponse, _ = impl.(filter.ResponseTransformer)
			m.filters[w] = append(m.filters[w], h)
		}
		m.slots++
	}
	return nil
}

// compileRecords sets who gets the manager's records and what they need captured.
func (p *Proxy) compileRecords(m *manager, ln *resource.Listener) error {
	var out consumers
	if len(m.res.AccessLog) > 0 {
		plan, err := accesslog.Compile(m.res.AccessLog, p.options.AccessLogs, p.logOptions())
		if err != nil {
			return err
		}
		m.log, out.log = plan, plan
		m.captures = append(m.captures, plan.Captures()...)
	}
	if m.res.Tracing != nil {
		plan, err := trace.Compile(m.res.Tracing, trace.Options{
			Direction: ln.Direction, Service: p.options.Service, Node: p.options.Node,
			Runtime:      p.runtimePercent,
			FirstCapture: record.FixedCaptures + len(m.captures),
			Exporter:     p.options.TraceExporter,
		})
		if err != nil {
			return err
		}
		m.tracing, out.trace = plan, plan
		for _, h := range plan.CaptureHeaders() {
			m.captures = append(m.captures, accesslog.Capture{Kind: accesslog.ReqHeader, Name: h})
		}
	}
	if out.log != nil || out.trace != nil {
		m.consumer = &out
	}
	return nil
}

// clusterNames adds every cluster that the chain names by itself, not by RDS.
func (ch *chain) clusterNames(add func(string)) {
	if t := ch.tcp.Load(); t != nil {
		for i := range t.res.Clusters {
			add(t.res.Clusters[i].Name)
		}
	}
	m := ch.manager.Load()
	if m == nil {
		return
	}
	if m.inline != nil {
		m.inline.clusterNames(add)
	}
	if s := m.scoped.Load(); s != nil {
		for _, t := range s.own {
			t.clusterNames(add)
		}
	}
}

func (m *manager) namesRoute(name string) bool {
	if m.rds != nil && m.rds.name == name {
		return true
	}
	if s := m.scoped.Load(); s != nil {
		for _, r := range s.byKey {
			if r.name == name {
				return true
			}
		}
	}
	return false
}

// http2Limits joins what a resource says of HTTP/2 with the limits of heads, which
// are the same for both protocols.
func http2Limits(o *resource.HTTP2Options, l http1.Limits) http2.Limits {
	return http2.Limits{
		MaxConcurrentStreams: o.MaxConcurrentStreams, InitialStreamWindow: o.StreamWindow, InitialConnWindow: o.ConnWindow,
		HeaderTableSize: o.HeaderTableSize, MaxOutboundFrames: int(o.MaxOutboundFrames), MaxOutboundControlFrames: int(o.MaxOutboundControlFrames),
		HeadBytes: l.HeadBytes, HeaderCount: l.HeaderCount, AllowConnect: o.AllowConnect,
	}
}
