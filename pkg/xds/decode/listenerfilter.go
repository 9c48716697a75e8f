// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	proxysocketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	listenerFilterURL = typeURLPrefix + "envoy.extensions.filters.listener."
	proxyProtocolURL  = listenerFilterURL + "proxy_protocol.v3.ProxyProtocol"
	originalDstURL    = listenerFilterURL + "original_dst.v3.OriginalDst"
	tlsInspectorURL   = listenerFilterURL + "tls_inspector.v3.TlsInspector"
	httpInspectorURL  = listenerFilterURL + "http_inspector.v3.HttpInspector"
	proxySocketURL    = typeURLPrefix + "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

	defaultDetectionWait   = 100 // ms
	defaultDetectionExpiry = 600_000
	maxHello               = 16 << 10
	// maxCombinations bounds the criteria of one chain, multiplied out.
	maxCombinations = 100_000
)

func (j *job) listenerFilters(list []*listenerv3.ListenerFilter, p *place) (out []resource.ListenerFilter) {
	for i, f := range list {
		at := p.item("listener_filters", i).field("typed_config")
		a := f.GetTypedConfig()
		var l resource.ListenerFilter
		switch a.GetTypeUrl() {
		case proxyProtocolURL:
			var m proxyfilterv3.ProxyProtocol
			j.unpack(a, &m, at)
			l.Kind, l.HeaderOptional = resource.ProxyProtocol, m.GetAllowRequestsWithoutProxyProtocol()
			for _, v := range m.GetDisallowedVersions() {
				l.RefuseVersion[1+v&1] = true
			}
			j.only(l.RefuseVersion[1] && l.RefuseVersion[2], at.field("disallowed_versions"), "leaves no version")
		case originalDstURL:
			j.unpack(a, new(originaldstv3.OriginalDst), at)
			l.Kind = resource.RestoreOriginalDst
		case tlsInspectorURL:
			var m tlsinspectorv3.TlsInspector
			j.unpack(a, &m, at)
			l.Kind, l.CloseOnMalformedHello = resource.TLSInspector, m.GetCloseConnectionOnClientHelloParsingErrors()
			if v := m.GetMaxClientHelloSize(); v != nil {
				l.MaxHello = j.within(v.GetValue(), 256, maxHello, at.field("max_client_hello_size"))
			}
		case httpInspectorURL:
			j.unpack(a, new(httpinspectorv3.HttpInspector), at)
			l.Kind = resource.HTTPInspector
		default:
			j.fail(p.item("listener_filters", i), "unsupported listener filter %q of type %q", clip(f.GetName(), 100), clip(a.GetTypeUrl(), 200))
			continue
		}
		if f.GetFilterDisabled() != nil {
			l.Disabled = j.connections(f.GetFilterDisabled(), p.item("listener_filters", i).field("filter_disabled"), 0)
		}
		out = append(out, l)
	}
	return out
}

// maxConditions bounds how deep conditions are nested.
const maxConditions = 16

// connections reads a condition on connections.
func (j *job) connections(m *listenerv3.ListenerFilterChainMatchPredicate, p *place, depth int) *resource.ConnectionMatch {
	if depth == maxConditions {
		j.fail(p, "is nested more than %d deep", maxConditions)
		return &resource.ConnectionMatch{}
	}
	set := func(list []*listenerv3.ListenerFilterChainMatchPredicate, p *place) (out []*resource.ConnectionMatch) {
		for i, r := range list {
			out = append(out, j.connections(r, p.item("rules", i), depth+1))
		}
		return out
	}
	switch r := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		return &resource.ConnectionMatch{Or: set(r.OrMatch.GetRules(), p.field("or_match"))}
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		return &resource.ConnectionMatch{And: set(r.AndMatch.GetRules(), p.field("and_match"))}
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		return &resource.ConnectionMatch{Not: j.connections(r.NotMatch, p.field("not_match"), depth+1)}
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		at, ports := p.field("destination_port_range"), r.DestinationPortRange
		j.only(ports.GetStart() < 0 || ports.GetEnd() > 1<<16 || ports.GetStart() >= ports.GetEnd(), at, "is no range of ports, whose end is not in it")
		return &resource.ConnectionMatch{FromPort: int(ports.GetStart()), ToPort: int(ports.GetEnd())}
	}
	return &resource.ConnectionMatch{Not: &resource.ConnectionMatch{}}
}

// serverNames reads names in lower case.
func (j *job) serverNames(list []string, p *place) (out []string) {
	for i, name := range list {
		at := p.item("server_names", i)
		name = strings.ToLower(name)
		switch rest := strings.TrimPrefix(name, "*."); {
		case name == "":
			j.fail(at, "is empty")
		case rest == "" || strings.Contains(rest, "*"):
			j.fail(at, "%q: a wildcard stands for the whole first labels only, as in *.example.com", clip(name, 100))
		}
		out = append(out, j.intern(name))
	}
	return out
}

// overlaps refuses a chain of which one combination of criteria is another chain's,
// too: nobody could say which one is meant.
func (j *job) overlaps(c *resource.FilterChain, index int, taken map[string]int, p *place) {
	m := &c.Match
	lists := [][]string{
		{fmt.Sprint(m.DestinationPort)}, append(prefixKeys(m.PrefixRanges), c.DestinationNames...), m.ServerNames, {m.TransportProtocol}, m.ApplicationProtocols,
		prefixKeys(m.DirectSourcePrefixes), {fmt.Sprint(m.SourceType)}, prefixKeys(m.SourcePrefixes), nil,
	}
	for _, port := range m.SourcePorts {
		lists[8] = append(lists[8], fmt.Sprint(port))
	}
	keys := []string{""}
	for _, list := range lists {
		if len(list) == 0 {
			list = []string{""}
		}
		if len(keys)*len(list) > maxCombinations {
			j.fail(p, "has more than %d combinations of criteria", maxCombinations)
			return
		}
		var next []string
		for _, k := range keys {
			for _, v := range list {
				next = append(next, k+"\x00"+v)
			}
		}
		keys = next
	}
	for _, k := range keys {
		if first, dup := taken[k]; dup && first != index {
			j.fail(p, "overlaps with that of filter_chains[%d]", first)
			return
		}
		taken[k] = index
	}
}

func prefixKeys(list []netip.Prefix) (out []string) {
	for _, p := range list {
		out = append(out, p.Masked().String())
	}
	return out
}

// addTLSInspector adds the inspector that matches cannot do without, as Envoy does.
func addTLSInspector(l *resource.Listener) {
	for _, f := range l.Filters {
		if f.Kind == resource.TLSInspector {
			return
		}
	}
	for _, c := range l.FilterChains {
		m := &c.Match
		if m.TransportProtocol == "tls" || m.TransportProtocol == "" && len(m.ServerNames)+len(m.ApplicationProtocols) > 0 {
			l.Filters = append(l.Filters, resource.ListenerFilter{Kind: resource.TLSInspector})
			return
		}
	}
}

// detection reads a listener's own settings.
func (j *job) detection(m *corev3.Metadata, p *place) *resource.Detection {
	s := j.own(m, p)
	if s == nil {
		return nil
	}
	j.only(s.CircuitBreaker != nil, p.field("circuitBreaker"), "is for clusters only")
	j.only(s.Fallback != nil, p.field("fallback"), "is for clusters only")
	j.only(s.HTTP2 != "", p.field("http2"), "is for clusters only")
	j.onlyChains(s, p)
	if s.Detection == nil {
		return nil
	}
	at := p.field("protocolDetection")
	return &resource.Detection{
		Wait:   time.Duration(j.number(s.Detection.WaitMS, defaultDetectionWait, 1, 10_000, at.field("waitMs"))) * time.Millisecond,
		Expiry: time.Duration(j.number(s.Detection.ExpiryMS, defaultDetectionExpiry, 1000, 86_400_000, at.field("expiryMs"))) * time.Millisecond,
	}
}

// chainSettings reads a chain's own settings: the names of the mesh whose addresses it
// is for, and what looks on at its connections. The chain's proxy is known.
func (j *job) chainSettings(c *resource.FilterChain, m *corev3.Metadata, p *place) {
	s := j.own(m, p)
	if s == nil {
		return
	}
	j.only(s.CircuitBreaker != nil, p.field("circuitBreaker"), "is for clusters only")
	j.only(s.Fallback != nil, p.field("fallback"), "is for clusters only")
	j.only(s.HTTP2 != "", p.field("http2"), "is for clusters only")
	j.only(s.Detection != nil, p.field("protocolDetection"), "is for listeners only")
	j.only(s.DestinationNames != nil && len(s.DestinationNames) == 0, p.field("destinationNames"), "is empty")
	for i, name := range s.DestinationNames {
		if name == "" || len(name) > 253 || strings.ContainsFunc(name, notInName) {
			j.fail(p.item("destinationNames", i), "%q is no host name in lower case", clip(name, 100))
		}
		c.DestinationNames = append(c.DestinationNames, j.intern(name))
	}
	j.tap(c, s.Tap, p.field("tap"))
}

// tapURL is the type of the filter that taps.
const tapURL = typeURLPrefix + "io.outrigger.v1.Tap"

// tap reads what is copied of a chain's connections.
func (j *job) tap(c *resource.FilterChain, config []byte, p *place) {
	if config == nil {
		return
	}
	if c.TCP == nil {
		j.fail(p, "is for chains with tcp_proxy only: exchanges are tapped by the HTTP filter of type %s", tapURL)
		return
	}
	spec := j.filters.Lookup(tapURL)
	if spec == nil || spec.Connection == nil {
		j.fail(p, notSupported)
		return
	}
	parsed, err := spec.Connection.Parse(config)
	if err != nil {
		j.fail(p, "%s", clip(err.Error(), 400))
		return
	}
	c.TCP.Tap = &resource.ConnectionFilter{TypeURL: tapURL, Config: parsed}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

// checkDetection holds detection to where silence gets round no policy: there is an
// inspector to wait for, and what silence leads to is a TCP proxy.
func (j *job) checkDetection(l *resource.Listener, p *place) {
	if l.Detection == nil {
		return
	}
	at := p.field("metadata").entry("filter_metadata", ownMetadata).field("protocolDetection")
	waits := false
	for _, f := range l.Filters {
		waits = waits || f.Kind == resource.TLSInspector || f.Kind == resource.HTTPInspector
	}
	j.only(!waits, at, "needs tls_inspector or http_inspector among listener_filters")
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(chains[:len(chains):len(chains)], l.DefaultFilterChain)
	}
	for _, c := range chains {
		silent := len(c.Match.ServerNames)+len(c.Match.ApplicationProtocols) == 0 && c.Match.TransportProtocol != "tls"
		if silent && c.TLS != nil {
			j.fail(at, "filter chain %q would take silent clients and wants TLS: let it match transport_protocol tls", cmp.Or(c.Name, "default_filter_chain"))
		}
		if silent && c.HTTP != nil {
			j.fail(at, "filter chain %q would take silent clients and is no tcp_proxy: let it match application_protocols", cmp.Or(c.Name, "default_filter_chain"))
		}
	}
}

// upstreamSocket reads how connections to a cluster begin.
func (j *job) upstreamSocket(t *corev3.TransportSocket, c *resource.Cluster, p *place) {
	if t.GetTypedConfig().GetTypeUrl() != proxySocketURL {
		c.TLS = j.upstreamTLS(t, p)
		return
	}
	var m proxysocketv3.ProxyProtocolUpstreamTransport
	at := p.field("typed_config")
	if !j.unpack(t.GetTypedConfig(), &m, at) {
		return
	}
	c.ProxyProtocol = 1 + uint8(m.GetConfig().GetVersion())&1
	j.rawBuffer(m.GetTransportSocket(), at.field("transport_socket"))
}
