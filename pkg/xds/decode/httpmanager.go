// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	typedStructURL    = typeURLPrefix + "xds.type.v3.TypedStruct"
	oldTypedStructURL = typeURLPrefix + "udpa.type.v1.TypedStruct"
	routerURL         = typeURLPrefix + "envoy.extensions.filters.http.router.v3.Router"
)

func (j *job) httpManager(m *hcmv3.HttpConnectionManager, p *place) *resource.HTTPManager {
	h := &resource.HTTPManager{
		StatPrefix: m.GetStatPrefix(), ServerName: m.GetServerName(), Via: m.GetVia(),
		ServerHeader:          resource.ServerHeader(m.GetServerHeaderTransformation()),
		UseRemoteAddress:      m.GetUseRemoteAddress().GetValue(),
		XFFTrustedHops:        int(min(m.GetXffNumTrustedHops(), 1000)),
		SkipXFFAppend:         m.GetSkipXffAppend(),
		GenerateRequestID:     boolOr(m.GetGenerateRequestId(), true),
		PreserveRequestID:     m.GetPreserveExternalRequestId(),
		AlwaysSetRequestID:    m.GetAlwaysSetRequestIdInResponse(),
		NormalizePath:         m.GetNormalizePath().GetValue(),
		MergeSlashes:          m.GetMergeSlashes(),
		EscapedSlashes:        escapedSlashes(m.GetPathWithEscapedSlashesAction()),
		StripMatchingPort:     m.GetStripMatchingHostPort(),
		StripAnyPort:          m.GetStripAnyHostPort(),
		StripTrailingHostDot:  m.GetStripTrailingHostDot(),
		StreamErrorOnInvalid:  m.GetStreamErrorOnInvalidHttpMessage().GetValue(),
		InternalAddressRanges: j.prefixes(m.GetInternalAddressConfig().GetCidrRanges(), p.field("internal_address_config"), "cidr_ranges"),
		MaxHeadBytes:          defaultHeadBytes,
		MaxHeaders:            defaultMaxHeaders,
		AccessLog:             j.accessLogs(m.GetAccessLog(), p, "access_log"),
		Tracing:               j.tracing(m.GetTracing(), p.field("tracing")),
	}
	if h.ServerName == "" {
		h.ServerName = "outrigger"
	}
	j.only(!validHeaderValue(h.ServerName), p.field("server_name"), "has control characters")
	j.only(!validHeaderValue(h.Via), p.field("via"), "has control characters")
	if v := m.GetMaxRequestHeadersKb(); v != nil {
		h.MaxHeadBytes = j.within(v.GetValue(), 1, maxHeadKiB, p.field("max_request_headers_kb")) << 10
	}
	switch m.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
	case hcmv3.HttpConnectionManager_HTTP1:
		h.Codec = resource.CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		h.Codec = resource.CodecHTTP2
	default:
		j.fail(p.field("codec_type"), "unsupported %s", m.GetCodecType())
	}
	for i, u := range m.GetUpgradeConfigs() {
		h.Upgrades = j.upgrade(h.Upgrades, u, p.item("upgrade_configs", i))
	}
	h.ClientCert = resource.ForwardClientCert{
		Mode:    forwardModes[m.GetForwardClientCertDetails()],
		Subject: m.GetSetCurrentClientCertDetails().GetSubject().GetValue(),
		DNS:     m.GetSetCurrentClientCertDetails().GetDns(), URI: m.GetSetCurrentClientCertDetails().GetUri(),
	}
	j.managerTimeouts(m, h, p)
	j.managerProtocol(m, h, p)
	j.routeSource(m, h, p)
	h.Filters = j.httpFilters(m.GetHttpFilters(), p)
	j.localReplies(m.GetLocalReplyConfig(), h, p.field("local_reply_config"))
	return h
}

var forwardModes = map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]resource.ForwardMode{
	hcmv3.HttpConnectionManager_SANITIZE: resource.ForwardSanitize, hcmv3.HttpConnectionManager_FORWARD_ONLY: resource.ForwardOnly,
	hcmv3.HttpConnectionManager_APPEND_FORWARD: resource.ForwardAppend, hcmv3.HttpConnectionManager_SANITIZE_SET: resource.ForwardSanitizeSet,
	hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: resource.ForwardAlways,
}

func escapedSlashes(a hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction) resource.EscapedSlashes {
	switch a {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		return resource.SlashesReject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		return resource.SlashesUnescapeRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		return resource.SlashesUnescapeForward
	}
	return resource.SlashesKeep
}

// Timeouts of a connection manager that says nothing; docs/limits.md.
const (
	defaultIdleTimeout       = time.Hour
	defaultStreamIdleTimeout = 5 * time.Minute
	defaultHeadersTimeout    = 10 * time.Second
	defaultDelayedClose      = time.Second
)

//nolint:staticcheck // access_log_flush_interval is deprecated and still in use
func (j *job) managerTimeouts(m *hcmv3.HttpConnectionManager, h *resource.HTTPManager, p *place) {
	h.IdleTimeout = defaultIdleTimeout
	h.StreamIdleTimeout = j.duration(m.GetStreamIdleTimeout(), defaultStreamIdleTimeout, p.field("stream_idle_timeout"))
	h.RequestTimeout = j.duration(m.GetRequestTimeout(), 0, p.field("request_timeout"))
	h.RequestHeadersTimeout = j.duration(m.GetRequestHeadersTimeout(), defaultHeadersTimeout, p.field("request_headers_timeout"))
	h.DelayedCloseTimeout = j.duration(m.GetDelayedCloseTimeout(), defaultDelayedClose, p.field("delayed_close_timeout"))
	h.DrainTimeout = j.duration(m.GetDrainTimeout(), 5*time.Second, p.field("drain_timeout"))
	h.AccessLogInterval = j.duration(m.GetAccessLogFlushInterval(), 0, p.field("access_log_flush_interval"))
	if o := m.GetAccessLogOptions(); o != nil {
		h.AccessLogInterval = j.duration(o.GetAccessLogFlushInterval(), h.AccessLogInterval, p.field("access_log_options").field("access_log_flush_interval"))
	}
	o, at := m.GetCommonHttpProtocolOptions(), p.field("common_http_protocol_options")
	if o == nil {
		return
	}
	h.IdleTimeout = j.duration(o.GetIdleTimeout(), h.IdleTimeout, at.field("idle_timeout"))
	h.MaxConnectionDuration = j.duration(o.GetMaxConnectionDuration(), 0, at.field("max_connection_duration"))
	h.MaxStreamDuration = j.duration(o.GetMaxStreamDuration(), 0, at.field("max_stream_duration"))
	h.MaxRequestsPerConn = int(o.GetMaxRequestsPerConnection().GetValue())
	if v := o.GetMaxHeadersCount(); v != nil {
		h.MaxHeaders = j.within(v.GetValue(), 1, 10_000, at.field("max_headers_count"))
	}
	j.only(o.GetMaxResponseHeadersKb() != nil, at.field("max_response_headers_kb"), "is for clusters only")
	switch o.GetHeadersWithUnderscoresAction() {
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		h.RejectUnderscores = true
	case corev3.HttpProtocolOptions_DROP_HEADER:
		h.DropUnderscores = true
	}
}

func (j *job) managerProtocol(m *hcmv3.HttpConnectionManager, h *resource.HTTPManager, p *place) {
	o, at := m.GetHttpProtocolOptions(), p.field("http_protocol_options")
	j.http1Options(o, at)
	h.HTTP2 = j.http2Options(m.GetHttp2ProtocolOptions(), p.field("http2_protocol_options"))
	h.Accept10, h.DefaultHost10 = o.GetAcceptHttp_10(), j.host(o.GetDefaultHostForHttp_10(), at.field("default_host_for_http_10"))
	if v := o.GetOverrideStreamErrorOnInvalidHttpMessage(); v != nil {
		h.StreamErrorOnInvalid = v.GetValue()
	}
	j.only(m.GetInternalAddressConfig().GetUnixSockets(), p.field("internal_address_config").field("unix_sockets"), notSupported)
	j.only(h.StripMatchingPort && h.StripAnyPort, p.field("strip_any_host_port"), "must not be set together with strip_matching_host_port")
}

func (j *job) routeSource(m *hcmv3.HttpConnectionManager, h *resource.HTTPManager, p *place) {
	switch v := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		at := p.field("rds")
		h.RouteConfigName = j.intern(v.Rds.GetRouteConfigName())
		if h.RouteConfigName == "" {
			j.fail(at.field("route_config_name"), "is empty")
		}
		j.need(Route, h.RouteConfigName, j.source(v.Rds.GetConfigSource(), at.field("config_source")))
	case *hcmv3.HttpConnectionManager_RouteConfig:
		h.Routes = j.routeConfig(v.RouteConfig, p.field("route_config"))
		// What is written inline is checked against clusters at once, by default.
		h.Routes.ValidateClusters = boolOr(v.RouteConfig.GetValidateClusters(), true)
	case *hcmv3.HttpConnectionManager_ScopedRoutes:
		j.scoped(v.ScopedRoutes, h, p.field("scoped_routes"))
	default:
		j.fail(p, "has none of rds, route_config and scoped_routes")
	}
}

// httpFilters reads the chain. The router ends it and can be nowhere else.
func (j *job) httpFilters(list []*hcmv3.HttpFilter, p *place) []resource.HTTPFilter {
	var out []resource.HTTPFilter
	names := map[string]bool{}
	for i, f := range list {
		at := p.item("http_filters", i)
		if f.GetName() == "" {
			j.fail(at.field("name"), "is empty")
		}
		if names[f.GetName()] {
			j.fail(at.field("name"), "%q is used twice", clip(f.GetName(), 100))
		}
		names[f.GetName()] = true
		if f.GetConfigDiscovery() != nil {
			j.only(i == len(list)-1, at, "the last filter must be the router")
			out = append(out, j.discovered(f, at))
			continue
		}
		a := f.GetTypedConfig()
		if a == nil {
			j.fail(at.field("typed_config"), "is missing")
			continue
		}
		cfg, ok := j.filterConfig(a, f.GetIsOptional(), false, at.field("typed_config"))
		if !ok {
			continue
		}
		url := filterURL(j, a)
		if s := j.filters.Lookup(url); s != nil {
			j.only(s.RouteOnly, at.field("typed_config"), "is for typed_per_filter_config only")
		}
		last := i == len(list)-1
		j.only(url == routerURL && !last, at, "the router must be the last filter")
		j.only(url == routerURL && f.GetDisabled(), at.field("disabled"), "the router cannot be disabled")
		j.only(url != routerURL && last, at, "the last filter must be the router")
		out = append(out, resource.HTTPFilter{Name: j.intern(f.GetName()), TypeURL: url, Config: cfg, Disabled: f.GetDisabled()})
	}
	if len(out) == 0 {
		j.fail(p.field("http_filters"), "is empty: the router is needed")
	}
	return out
}

// filterURL is the type URL by which a filter is registered.
func filterURL(j *job, a *anypb.Any) string {
	if inner, _, ok := typedStruct(a); ok {
		return j.intern(inner)
	}
	return j.intern(a.GetTypeUrl())
}

// filterConfig parses a filter's configuration by its type URL; false if it was
// skipped or refused. route: it is one of typed_per_filter_config.
func (j *job) filterConfig(a *anypb.Any, optional, route bool, p *place) (any, bool) {
	url, config := a.GetTypeUrl(), a.GetValue()
	if inner, text, ok := typedStruct(a); ok {
		url, config = inner, text
	}
	spec := j.filters.Lookup(url)
	if spec == nil {
		if !optional {
			j.fail(p, "unknown HTTP filter type %q", clip(url, 200))
		}
		return nil, false
	}
	if f, ok := filterMessages[url]; ok && spec.Build != nil {
		res, ok := j.filterResource(f, a, route, p)
		if !ok {
			return nil, false
		}
		return spec.Build(res), true
	}
	if spec.Parse == nil {
		return nil, true
	}
	cfg, err := spec.Parse(config)
	if err != nil {
		j.fail(p, "%s", clip(err.Error(), 400))
		return nil, false
	}
	if c, ok := cfg.(filter.NeedsSecret); ok {
		if name, wait := c.NeededSecret(); name != "" {
			j.need(Secret, name, Source{Kind: SourceADS, InitialFetchTimeout: wait})
		}
	}
	return cfg, true
}

func (j *job) localReplies(m *hcmv3.LocalReplyConfig, h *resource.HTTPManager, p *place) {
	if m == nil {
		return
	}
	h.LocalReplyFormat = j.logFormat(m.GetBodyFormat(), p.field("body_format"))
	for i, r := range m.GetMappers() {
		at := p.item("mappers", i)
		out := resource.LocalReplyMapper{
			Filter: j.logFilter(r.GetFilter(), at.field("filter"), 0),
			Add:    j.headerOptions(r.GetHeadersToAdd(), at, "headers_to_add"),
			Format: j.logFormat(r.GetBodyFormatOverride(), at.field("body_format_override")),
		}
		if v := r.GetStatusCode(); v != nil {
			out.Status = j.within(v.GetValue(), 200, 599, at.field("status_code"))
		}
		if r.GetBody() != nil {
			body := j.data(r.GetBody(), at.field("body"))
			j.only(len(body) > maxDirectBody, at.field("body"), "has more than 1 MiB")
			out.Body, out.HasBody = string(body), true
		}
		h.LocalReplies = append(h.LocalReplies, out)
	}
}
