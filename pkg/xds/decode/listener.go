// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	limitURL        = typeURLPrefix + "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"
	hcmURL          = typeURLPrefix + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	netRateLimitURL = typeURLPrefix + "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit"
	tcpProxyURL     = typeURLPrefix + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

	defaultBacklog          = 1024
	defaultDetectionTimeout = 15 * time.Second
)

//nolint:staticcheck // deprecated fields are still in use
func (j *job) listener(m *listenerv3.Listener, p *place) *resource.Listener {
	l := &resource.Listener{
		Name: j.intern(m.GetName()), StatPrefix: m.GetStatPrefix(),
		Direction:         resource.Direction(m.GetTrafficDirection()),
		BufferLimit:       j.bufferLimit(m.GetPerConnectionBufferLimitBytes(), p),
		Backlog:           int(min(uint32Or(m.GetTcpBacklogSize(), defaultBacklog), 1<<20)),
		BindToPort:        boolOr(m.GetBindToPort(), true) && boolOr(m.GetDeprecatedV1().GetBindToPort(), true),
		ContinueOnTimeout: m.GetContinueOnListenerFiltersTimeout(),
		DrainModifyOnly:   m.GetDrainType() == listenerv3.Listener_MODIFY_ONLY,
		DetectionTimeout:  j.duration(m.GetListenerFiltersTimeout(), defaultDetectionTimeout, p.field("listener_filters_timeout")),
		Metadata:          j.metadata(m.GetMetadata()),
		AccessLog:         j.accessLogs(m.GetAccessLog(), p, "access_log"),
		BypassOverload:    m.GetBypassOverloadManager(),
		IgnoreGlobalLimit: m.GetIgnoreGlobalConnLimit(),
	}
	if m.GetAddress() == nil {
		j.fail(p.field("address"), "is missing")
	} else {
		l.Addresses = append(l.Addresses, j.address(m.GetAddress(), p.field("address")))
	}
	for i, a := range m.GetAdditionalAddresses() {
		l.Addresses = append(l.Addresses, j.address(a.GetAddress(), p.item("additional_addresses", i).field("address")))
	}
	l.Filters = j.listenerFilters(m.GetListenerFilters(), p)
	l.Detection = j.detection(m.GetMetadata(), p.field("metadata").entry("filter_metadata", ownMetadata))
	matches := map[string]int{}
	names := map[string]bool{}
	for i, f := range m.GetFilterChains() {
		at := p.item("filter_chains", i)
		c := j.filterChain(f, at)
		j.overlaps(c, i, matches, at.field("filter_chain_match"))
		if c.Name != "" && names[c.Name] {
			j.fail(at.field("name"), "%q is used twice", c.Name)
		}
		names[c.Name] = true
		l.FilterChains = append(l.FilterChains, c)
	}
	if m.GetDefaultFilterChain() != nil {
		l.DefaultFilterChain = j.filterChain(m.GetDefaultFilterChain(), p.field("default_filter_chain"))
	}
	if len(l.FilterChains) == 0 && l.DefaultFilterChain == nil {
		j.fail(p.field("filter_chains"), "is empty and there is no default_filter_chain")
	}
	addTLSInspector(l)
	j.checkDetection(l, p)
	return l
}

func (j *job) filterChain(m *listenerv3.FilterChain, p *place) *resource.FilterChain {
	c := &resource.FilterChain{Name: m.GetName(), Match: j.chainMatch(m.GetFilterChainMatch(), p.field("filter_chain_match"))}
	c.TLS = j.downstreamSocket(m.GetTransportSocket(), m.GetTransportSocketConnectTimeout(), p)
	if len(m.GetFilters()) == 0 {
		j.fail(p.field("filters"), "is empty: a chain needs http_connection_manager or tcp_proxy")
	}
	for i, f := range m.GetFilters() {
		at := p.item("filters", i).field("typed_config")
		a := f.GetTypedConfig()
		if i < len(m.GetFilters())-1 {
			j.connectionLimit(c, a, f.GetName(), p.item("filters", i))
			continue
		}
		switch a.GetTypeUrl() {
		case hcmURL:
			var h hcmv3.HttpConnectionManager
			if j.unpack(a, &h, at) {
				c.HTTP = j.httpManager(&h, at)
			}
		case tcpProxyURL:
			var t tcpv3.TcpProxy
			if j.unpack(a, &t, at) {
				c.TCP = j.tcpProxy(&t, at)
			}
		default:
			j.fail(at, "unsupported network filter %q", clip(a.GetTypeUrl(), 200))
		}
	}
	j.chainSettings(c, m.GetMetadata(), p.field("metadata").entry("filter_metadata", ownMetadata))
	return c
}

func (j *job) chainMatch(m *listenerv3.FilterChainMatch, p *place) resource.FilterChainMatch {
	out := resource.FilterChainMatch{
		TransportProtocol:    m.GetTransportProtocol(),
		PrefixRanges:         j.prefixes(m.GetPrefixRanges(), p, "prefix_ranges"),
		DirectSourcePrefixes: j.prefixes(m.GetDirectSourcePrefixRanges(), p, "direct_source_prefix_ranges"),
		SourcePrefixes:       j.prefixes(m.GetSourcePrefixRanges(), p, "source_prefix_ranges"),
		SourceType:           resource.SourceType(m.GetSourceType()),
	}
	if v := m.GetDestinationPort(); v != nil {
		out.DestinationPort = uint16(j.within(v.GetValue(), 1, 65535, p.field("destination_port")))
	}
	for i, port := range m.GetSourcePorts() {
		out.SourcePorts = append(out.SourcePorts, uint16(j.within(port, 1, 65535, p.item("source_ports", i))))
	}
	if t := out.TransportProtocol; t != "" && t != "raw_buffer" && t != "tls" {
		j.fail(p.field("transport_protocol"), "unsupported %q", clip(t, 60))
	}
	out.ServerNames = j.serverNames(m.GetServerNames(), p)
	for i, a := range m.GetApplicationProtocols() {
		j.only(a == "" || len(a) > 255, p.item("application_protocols", i), "must have 1 to 255 bytes")
		out.ApplicationProtocols = append(out.ApplicationProtocols, j.intern(a))
	}
	return out
}

// connectionLimit reads the network filters that may stand before the last.
func (j *job) connectionLimit(c *resource.FilterChain, a *anypb.Any, name string, p *place) {
	switch {
	case a.GetTypeUrl() == netRateLimitURL:
		var m netratelimitv3.LocalRateLimit
		if at := p.field("typed_config"); j.unpack(a, &m, at) {
			c.RateLimits = append(c.RateLimits, j.connectionRateLimit(&m, at))
		}
		return
	case a.GetTypeUrl() != limitURL:
		j.fail(p, "%q must be the last filter: of those before it this version supports connection_limit and local_ratelimit only", clip(name, 100))
		return
	case c.ConnectionLimit != 0:
		j.fail(p, "is a second connection_limit")
		return
	}
	var l limitv3.ConnectionLimit
	if at := p.field("typed_config"); j.unpack(a, &l, at) {
		c.ConnectionLimit = j.within(uint32(min(l.GetMaxConnections().GetValue(), 1<<32-1)), 1, 1<<30, at.field("max_connections"))
	}
}

func (j *job) tcpProxy(m *tcpv3.TcpProxy, p *place) *resource.TCPProxy {
	t := &resource.TCPProxy{
		StatPrefix:         m.GetStatPrefix(),
		IdleTimeout:        j.duration(m.GetIdleTimeout(), time.Hour, p.field("idle_timeout")),
		MaxConnectAttempts: j.within(uint32Or(m.GetMaxConnectAttempts(), 1), 1, 100, p.field("max_connect_attempts")),
		AccessLog:          j.accessLogs(m.GetAccessLog(), p, "access_log"),
	}
	match := j.metadataMatch(m.GetMetadataMatch(), nil, p.field("metadata_match"))
	switch v := m.GetClusterSpecifier().(type) {
	case *tcpv3.TcpProxy_Cluster:
		j.needCluster(v.Cluster, p.field("cluster"))
		t.Clusters = []resource.WeightedCluster{{Name: j.intern(v.Cluster), Weight: 1, MetadataMatch: match}}
	case *tcpv3.TcpProxy_WeightedClusters:
		total := uint64(0)
		for i, w := range v.WeightedClusters.GetClusters() {
			at := p.field("weighted_clusters").item("clusters", i)
			j.needCluster(w.GetName(), at.field("name"))
			t.Clusters = append(t.Clusters, resource.WeightedCluster{
				Name: j.intern(w.GetName()), Weight: w.GetWeight(),
				MetadataMatch: j.metadataMatch(w.GetMetadataMatch(), match, at.field("metadata_match")),
			})
			total += uint64(w.GetWeight())
		}
		j.only(total == 0 || total > maxWeightTotal, p.field("weighted_clusters"), "the weights must add up to 1 to 4294967295")
	default:
		j.fail(p, "names no cluster")
	}
	for i, h := range m.GetHashPolicy() {
		if _, ok := h.GetPolicySpecifier().(*typev3.HashPolicy_SourceIp_); !ok {
			j.fail(p.item("hash_policy", i), notSupported)
			continue
		}
		t.HashSourceIP = true
	}
	return t
}

// scoped reads the scopes of a connection manager.
func (j *job) scoped(m *hcmv3.ScopedRoutes, h *resource.HTTPManager, p *place) {
	s := &resource.ScopedRoutes{Name: m.GetName()}
	h.Scoped = s
	for i, f := range m.GetScopeKeyBuilder().GetFragments() {
		s.Fragments = append(s.Fragments, j.fragment(f, p.field("scope_key_builder").item("fragments", i)))
	}
	rds := Source{}
	if m.GetRdsConfigSource() != nil {
		rds = j.source(m.GetRdsConfigSource(), p.field("rds_config_source"))
	}
	switch v := m.GetConfigSpecifier().(type) {
	case *hcmv3.ScopedRoutes_ScopedRds:
		at := p.field("scoped_rds")
		s.FromSRDS = true
		src := j.source(v.ScopedRds.GetScopedRdsConfigSource(), at.field("scoped_rds_config_source"))
		j.need(ScopedRoute, "", src)
		j.need(Route, "", rds) // the routes that scopes will name come from there
	case *hcmv3.ScopedRoutes_ScopedRouteConfigurationsList:
		at := p.field("scoped_route_configurations_list")
		s.Inline = j.inlineScopes(v.ScopedRouteConfigurationsList.GetScopedRouteConfigurations(), rds, at)
	default:
		j.fail(p, "has neither scoped_rds nor scoped_route_configurations_list")
	}
}

func (j *job) inlineScopes(list []*routev3.ScopedRouteConfiguration, rds Source, p *place) []*resource.ScopedRoute {
	var out []*resource.ScopedRoute
	for i, r := range list {
		at := p.item("scoped_route_configurations", i)
		sr := j.scopedRoute(r, at)
		if sr.RouteConfigName != "" {
			if rds.Kind == NoSource {
				j.fail(at.field("route_configuration_name"), "needs rds_config_source")
			}
			j.need(Route, sr.RouteConfigName, rds)
		}
		out = append(out, sr)
	}
	return out
}

func (j *job) fragment(f *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder, p *place) resource.ScopeFragment {
	at := p.field("header_value_extractor")
	x := f.GetHeaderValueExtractor()
	out := resource.ScopeFragment{Header: j.matchedName(x.GetName(), at.field("name")), Separator: x.GetElementSeparator()}
	switch v := x.GetExtractType().(type) {
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index:
		out.Index = int(min(v.Index, 1<<20))
		j.only(out.Separator == "" && v.Index != 0, at.field("index"), "must be 0 without element_separator")
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Element:
		out.KeySep, out.Key = v.Element.GetSeparator(), v.Element.GetKey()
		j.only(out.Key == "" || out.KeySep == "", at.field("element"), "needs separator and key")
	default:
		j.fail(at, "has neither index nor element")
	}
	return out
}
