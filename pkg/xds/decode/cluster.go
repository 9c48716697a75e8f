// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultConnectTimeout  = 5 * time.Second
	defaultBufferBytes     = 64 << 10
	maxBufferBytes         = 16 << 20
	defaultPoolIdle        = time.Hour
	defaultMaxHeaders      = 100
	defaultHeadBytes       = 60 << 10
	maxHeadKiB             = 8192
	httpOptionsName        = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	typeURLPrefix          = "type.googleapis.com/"
	rawBufferURL           = typeURLPrefix + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
	defaultKeepAlivePeriod = 2 * time.Hour
)

//nolint:staticcheck // deprecated fields are still in use: http2_protocol_options and others
func (j *job) cluster(m *clusterv3.Cluster, p *place) *resource.Cluster {
	c := &resource.Cluster{
		Name: j.intern(m.GetName()), AltStatName: m.GetAltStatName(),
		ConnectTimeout:       j.duration(m.GetConnectTimeout(), defaultConnectTimeout, p.field("connect_timeout")),
		BufferLimit:          j.bufferLimit(m.GetPerConnectionBufferLimitBytes(), p),
		IdleTimeout:          defaultPoolIdle,
		MaxResponseHeaders:   defaultMaxHeaders,
		MaxResponseHeadBytes: defaultHeadBytes,
		MaxRequestsPerConn:   int(m.GetMaxRequestsPerConnection().GetValue()),
		CloseOnHealthFailure: m.GetCloseConnectionsOnHostHealthFailure(),
		HTTP2:                m.GetHttp2ProtocolOptions() != nil,
		HTTP2Options:         j.http2Options(m.GetHttp2ProtocolOptions(), p.field("http2_protocol_options")),
		Metadata:             j.metadata(m.GetMetadata()),
		Outlier:              j.outlier(m.GetOutlierDetection(), p.field("outlier_detection")),
	}
	j.only(c.ConnectTimeout <= 0, p.field("connect_timeout"), "must be more than 0s")
	j.upstreamSocket(m.GetTransportSocket(), c, p.field("transport_socket"))
	j.socketMatches(m.GetTransportSocketMatches(), c, p)
	j.discovery(m, c, p)
	j.poolOptions(m.GetCommonHttpProtocolOptions(), c, p.field("common_http_protocol_options"))
	j.http1Options(m.GetHttpProtocolOptions(), p.field("http_protocol_options"))
	j.extensionOptions(m, c, p)
	j.keepAlive(m.GetUpstreamConnectionOptions().GetTcpKeepalive(), c)
	j.bind(m.GetUpstreamBindConfig(), c, p.field("upstream_bind_config"))
	j.limits(m.GetCircuitBreakers(), c, p.field("circuit_breakers"))
	j.balancing(m, c, p)
	c.Health = j.healthChecks(m, c, p)
	j.outrigger(m.GetMetadata(), c, p.field("metadata").entry("filter_metadata", ownMetadata))
	return c
}

// discovery reads where endpoints come from.
func (j *job) discovery(m *clusterv3.Cluster, c *resource.Cluster, p *place) {
	if custom := m.GetClusterType(); custom != nil {
		j.customCluster(m, custom, c, p)
		return
	}
	j.only(m.GetType() != clusterv3.Cluster_ORIGINAL_DST && m.GetOriginalDstLbConfig() != nil, p.field("original_dst_lb_config"), "needs type ORIGINAL_DST")
	switch m.GetType() {
	case clusterv3.Cluster_EDS:
		j.only(m.GetLoadAssignment() != nil, p.field("load_assignment"), "must not be set where type is EDS")
		c.Type, c.EDSName = resource.EDS, c.Name
		if name := m.GetEdsClusterConfig().GetServiceName(); name != "" {
			c.EDSName = j.intern(name)
		}
		src := j.source(m.GetEdsClusterConfig().GetEdsConfig(), p.field("eds_cluster_config").field("eds_config"))
		j.need(Endpoints, c.EDSName, src)
		return
	case clusterv3.Cluster_ORIGINAL_DST:
		j.originalDst(m, c, p)
		return
	case clusterv3.Cluster_STATIC:
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		if !literalHosts(m) {
			j.legacyDNS(m, c, p)
			return
		}
	default:
		j.fail(p.field("type"), "unsupported %s", m.GetType())
		return
	}
	j.only(m.GetEdsClusterConfig() != nil, p.field("eds_cluster_config"), "needs type EDS")
	if m.GetLoadAssignment() == nil {
		c.Static = &resource.Assignment{Cluster: c.Name, Overprovisioning: defaultOverprovisioning}
		return
	}
	at := p.field("load_assignment")
	c.Static = j.assignment(m.GetLoadAssignment(), at)
	c.Static.Cluster = c.Name
}

// literalHosts reports whether every endpoint is an address already.
func literalHosts(m *clusterv3.Cluster) bool {
	for _, l := range m.GetLoadAssignment().GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			s := e.GetEndpoint().GetAddress().GetSocketAddress()
			if s == nil {
				continue
			}
			if _, err := netip.ParseAddr(s.GetAddress()); err != nil {
				return false
			}
		}
	}
	return true
}

// customCluster reads cluster_type.
func (j *job) customCluster(m *clusterv3.Cluster, custom *clusterv3.Cluster_CustomClusterType, c *resource.Cluster, p *place) {
	at := p.field("cluster_type")
	switch custom.GetTypedConfig().GetTypeUrl() {
	case dnsClusterURL:
		j.typedDNS(m, custom.GetTypedConfig(), c, p)
	case aggregateURL:
		j.aggregate(m, custom.GetTypedConfig(), c, p)
	default:
		j.fail(at, "unsupported %q", clip(custom.GetName(), 100))
	}
}

func (j *job) rawBuffer(t *corev3.TransportSocket, p *place) {
	if t == nil || t.GetTypedConfig().GetTypeUrl() == rawBufferURL && len(t.GetTypedConfig().GetValue()) == 0 {
		return
	}
	j.fail(p, notSupported)
}

// poolOptions reads HttpProtocolOptions as they apply to upstream connections.
func (j *job) poolOptions(o *corev3.HttpProtocolOptions, c *resource.Cluster, p *place) {
	if o == nil {
		return
	}
	c.IdleTimeout = j.duration(o.GetIdleTimeout(), c.IdleTimeout, p.field("idle_timeout"))
	c.MaxConnDuration = j.duration(o.GetMaxConnectionDuration(), c.MaxConnDuration, p.field("max_connection_duration"))
	if v := o.GetMaxRequestsPerConnection(); v != nil {
		c.MaxRequestsPerConn = int(v.GetValue())
	}
	if v := o.GetMaxHeadersCount(); v != nil {
		c.MaxResponseHeaders = j.within(v.GetValue(), 1, 10_000, p.field("max_headers_count"))
	}
	if v := o.GetMaxResponseHeadersKb(); v != nil {
		c.MaxResponseHeadBytes = j.within(v.GetValue(), 1, maxHeadKiB, p.field("max_response_headers_kb")) << 10
	}
	j.only(o.GetMaxStreamDuration() != nil, p.field("max_stream_duration"), notSupported+" on clusters; use the route's")
	j.only(o.GetHeadersWithUnderscoresAction() != 0, p.field("headers_with_underscores_action"), "is for listeners only")
}

// within checks a number and returns it.
func (j *job) within(v uint32, lo, hi uint32, p *place) int {
	if v < lo || v > hi {
		j.fail(p, "must be between %d and %d, is %d", lo, hi, v)
		return int(lo)
	}
	return int(v)
}

func (j *job) bufferLimit(v interface{ GetValue() uint32 }, p *place) int {
	n := v.GetValue()
	if n == 0 {
		return defaultBufferBytes
	}
	j.only(n > maxBufferBytes, p.field("per_connection_buffer_limit_bytes"), "must be at most 16777216")
	return int(n)
}

// extensionOptions reads typed_extension_protocol_options.
func (j *job) extensionOptions(m *clusterv3.Cluster, c *resource.Cluster, p *place) {
	for name, a := range m.GetTypedExtensionProtocolOptions() {
		at := p.entry("typed_extension_protocol_options", name)
		if a.GetTypeUrl() != typeURLPrefix+httpOptionsName {
			j.fail(at, "unsupported type %q", clip(a.GetTypeUrl(), 200))
			continue
		}
		j.httpOptions(a, c, at)
	}
}

func (j *job) httpOptions(a *anypb.Any, c *resource.Cluster, p *place) {
	var o httpv3.HttpProtocolOptions
	if !j.unpack(a, &o, p) {
		return
	}
	j.poolOptions(o.GetCommonHttpProtocolOptions(), c, p.field("common_http_protocol_options"))
	j.errorMatcher(o.GetOutlierDetection(), c, p.field("outlier_detection"))
	switch v := o.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		at := p.field("explicit_http_config")
		switch h := v.ExplicitHttpConfig.GetProtocolConfig().(type) {
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
			j.http1Options(h.HttpProtocolOptions, at.field("http_protocol_options"))
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
			c.HTTP2 = true
			c.HTTP2Options = j.http2Options(h.Http2ProtocolOptions, at.field("http2_protocol_options"))
		}
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		d, at := v.UseDownstreamProtocolConfig, p.field("use_downstream_protocol_config")
		c.DownstreamProtocol = true
		j.http1Options(d.GetHttpProtocolOptions(), at.field("http_protocol_options"))
		c.HTTP2Options = j.http2Options(d.GetHttp2ProtocolOptions(), at.field("http2_protocol_options"))
	}
}

// http1Options refuses what would change how messages are written.
func (j *job) http1Options(o *corev3.Http1ProtocolOptions, p *place) {
	if o == nil {
		return
	}
	j.only(o.GetAllowAbsoluteUrl() != nil && !o.GetAllowAbsoluteUrl().GetValue(), p.field("allow_absolute_url"), "absolute-form requests cannot be refused by this version")
	j.only(o.GetHeaderKeyFormat().GetProperCaseWords() != nil, p.field("header_key_format").field("proper_case_words"), "not supported: the case of names is kept as received")
	j.only(o.GetAllowChunkedLength(), p.field("allow_chunked_length"), "not supported: such messages are ambiguous")
	j.only(o.GetSendFullyQualifiedUrl(), p.field("send_fully_qualified_url"), notSupported)
}

func (j *job) keepAlive(k *corev3.TcpKeepalive, c *resource.Cluster) {
	if k == nil {
		return
	}
	c.TCPKeepAlive, c.KeepAliveTime = true, defaultKeepAlivePeriod
	if t := k.GetKeepaliveTime(); t != nil {
		c.KeepAliveTime = time.Duration(t.GetValue()) * time.Second
	}
}

func (j *job) bind(b *corev3.BindConfig, c *resource.Cluster, p *place) {
	if b == nil {
		return
	}
	a := j.socketAddress(b.GetSourceAddress(), p.field("source_address"))
	j.only(a.Port != 0, p.field("source_address").field("port_value"), "must be 0: a fixed source port allows one connection only")
	j.only(b.GetFreebind().GetValue(), p.field("freebind"), notSupported)
	c.BindAddress = a.Host
}
