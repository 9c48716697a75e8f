// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	filesinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	fileSinkURL         = typeURLPrefix + "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
	defaultNoTraffic    = 60 * time.Second
	defaultCheckedBytes = 1024
	maxCheckedBytes     = 1 << 20
	maxPayloadBytes     = 64 << 10
	maxCheckHeaders     = 100
	maxThreshold        = 1 << 20
	maxJitterPercent    = 10_000
)

// healthChecks reads a cluster's health_checks, of which there may be one.
func (j *job) healthChecks(m *clusterv3.Cluster, c *resource.Cluster, p *place) *resource.HealthCheck {
	list := m.GetHealthChecks()
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		j.fail(p.item("health_checks", 1), "only one health check per cluster is supported by this version")
		return nil
	}
	p = p.item("health_checks", 0)
	if c.Type == resource.Original {
		j.fail(p, "a cluster of type ORIGINAL_DST has no endpoints of its own to check")
		return nil
	}
	h := j.healthCheck(list[0], c, p)
	h.Uneject = boolOr(m.GetOutlierDetection().GetSuccessfulActiveHealthCheckUnejectHost(), true)
	return h
}

func (j *job) healthCheck(m *corev3.HealthCheck, c *resource.Cluster, p *place) *resource.HealthCheck {
	h := &resource.HealthCheck{
		Name:                  m.GetName(),
		Timeout:               j.duration(m.GetTimeout(), 0, p.field("timeout")),
		Interval:              j.duration(m.GetInterval(), 0, p.field("interval")),
		InitialJitter:         j.duration(m.GetInitialJitter(), 0, p.field("initial_jitter")),
		IntervalJitter:        j.duration(m.GetIntervalJitter(), 0, p.field("interval_jitter")),
		IntervalJitterPercent: m.GetIntervalJitterPercent(),
		UnhealthyThreshold:    m.GetUnhealthyThreshold().GetValue(),
		HealthyThreshold:      m.GetHealthyThreshold().GetValue(),
		ReuseConnection:       boolOr(m.GetReuseConnection(), true),
		AlwaysLogFailures:     m.GetAlwaysLogHealthCheckFailures(),
		AlwaysLogSuccess:      m.GetAlwaysLogHealthCheckSuccess(),
	}
	j.checkName(h.Name, p.field("name"))
	j.only(h.IntervalJitterPercent > maxJitterPercent, p.field("interval_jitter_percent"), "must be at most 10000")
	j.only(h.UnhealthyThreshold > maxThreshold, p.field("unhealthy_threshold"), "must be at most 1048576")
	j.only(h.HealthyThreshold > maxThreshold, p.field("healthy_threshold"), "must be at most 1048576")
	h.UnhealthyThreshold, h.HealthyThreshold = max(h.UnhealthyThreshold, 1), max(h.HealthyThreshold, 1)
	every := func(name string, d *durationpb.Duration, def time.Duration) time.Duration {
		return j.duration(d, def, p.field(name))
	}
	h.NoTrafficInterval = every("no_traffic_interval", m.GetNoTrafficInterval(), defaultNoTraffic)
	h.NoTrafficHealthyInterval = every("no_traffic_healthy_interval", m.GetNoTrafficHealthyInterval(), h.NoTrafficInterval)
	h.UnhealthyInterval = every("unhealthy_interval", m.GetUnhealthyInterval(), h.Interval)
	h.UnhealthyEdgeInterval = every("unhealthy_edge_interval", m.GetUnhealthyEdgeInterval(), h.UnhealthyInterval)
	h.HealthyEdgeInterval = every("healthy_edge_interval", m.GetHealthyEdgeInterval(), h.Interval)
	j.checkLog(m, h, p)
	j.checkSocket(m, h, c, p)
	switch v := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		j.httpCheck(v.HttpHealthCheck, h, p.field("http_health_check"))
	case *corev3.HealthCheck_TcpHealthCheck_:
		j.tcpCheck(v.TcpHealthCheck, h, p.field("tcp_health_check"))
	case *corev3.HealthCheck_GrpcHealthCheck_:
		j.grpcCheck(v.GrpcHealthCheck, h, c, p.field("grpc_health_check"))
	case *corev3.HealthCheck_CustomHealthCheck_:
		j.fail(p.field("custom_health_check"), "unsupported %q", clip(v.CustomHealthCheck.GetName(), 100))
	}
	return h
}

// checkName refuses what could not be a part of a stat's name.
func (j *job) checkName(name string, p *place) {
	if strings.ContainsAny(name, ": \t\r\n") || len(name) > 200 {
		j.fail(p, "must have at most 200 bytes, and neither a colon nor a space")
	}
}

// checkLog reads where the events go.
//
//nolint:staticcheck // event_log_path is deprecated and still in use
func (j *job) checkLog(m *corev3.HealthCheck, h *resource.HealthCheck, p *place) {
	h.EventLog = m.GetEventLogPath()
	at := p.field("event_log_path")
	for i, sink := range m.GetEventLogger() {
		at = p.item("event_logger", i).field("typed_config")
		if sink.GetTypedConfig().GetTypeUrl() != fileSinkURL {
			j.fail(at, "unsupported type %q: events go to a file only", clip(sink.GetTypedConfig().GetTypeUrl(), 200))
			continue
		}
		var f filesinkv3.HealthCheckEventFileSink
		if !j.unpack(sink.GetTypedConfig(), &f, at) {
			continue
		}
		j.only(h.EventLog != "", at, "events go to one file only")
		h.EventLog = f.GetEventLogPath()
	}
	j.only(strings.IndexByte(h.EventLog, 0) >= 0 || len(h.EventLog) > 4096, at, "is no path")
}

// checkSocket reads how the connections of checks differ from others.
func (j *job) checkSocket(m *corev3.HealthCheck, h *resource.HealthCheck, c *resource.Cluster, p *place) {
	h.ALPN = m.GetTlsOptions().GetAlpnProtocols()
	for i, s := range h.ALPN {
		j.only(len(s) == 0 || len(s) > 255, p.field("tls_options").item("alpn_protocols", i), "must have 1 to 255 bytes")
	}
	for key, v := range m.GetTransportSocketMatchCriteria().GetFields() {
		text, ok := v.GetKind().(*structpb.Value_StringValue)
		if !ok {
			j.fail(p.entry("transport_socket_match_criteria", key), "only strings are supported by this version")
			continue
		}
		if h.MatchCriteria == nil {
			h.MatchCriteria = map[string]string{}
		}
		h.MatchCriteria[j.intern(key)] = j.intern(text.StringValue)
	}
	j.only(h.MatchCriteria != nil && len(c.SocketMatches) == 0, p.field("transport_socket_match_criteria"), "needs transport_socket_matches of the cluster")
	j.only(c.ProxyProtocol != 0 && m.GetTcpHealthCheck() == nil, p, "a cluster that sends PROXY headers can have a tcp_health_check only")
}

func (j *job) httpCheck(m *corev3.HealthCheck_HttpHealthCheck, h *resource.HealthCheck, p *place) {
	h.Kind, h.Path, h.Host, h.Method = resource.CheckHTTP, m.GetPath(), m.GetHost(), "GET"
	if h.Path != "" && (h.Path[0] != '/' || strings.ContainsAny(h.Path, " \t#")) {
		j.fail(p.field("path"), "%q is no path: it begins with / and has neither spaces nor #", clip(h.Path, 100))
	}
	j.only(strings.ContainsAny(h.Host, " /?#@"), p.field("host"), "is no host")
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = m.GetMethod().String()
	}
	switch m.GetCodecClientType() {
	case typev3.CodecClientType_HTTP2:
		h.HTTP2 = true
	case typev3.CodecClientType_HTTP3:
		j.fail(p.field("codec_client_type"), "HTTP3 is not supported by this version")
	}
	h.Headers = j.checkHeaders(m.GetRequestHeadersToAdd(), p, "request_headers_to_add")
	h.Remove = j.headerNames(m.GetRequestHeadersToRemove(), p, "request_headers_to_remove")
	h.Expected = j.statusRanges(m.GetExpectedStatuses(), p, "expected_statuses")
	if len(h.Expected) == 0 {
		h.Expected = []resource.StatusSpan{{From: 200, To: 201}}
	}
	h.Retriable = j.statusRanges(m.GetRetriableStatuses(), p, "retriable_statuses")
	if m.GetServiceNameMatcher() != nil {
		s := j.stringMatch(m.GetServiceNameMatcher(), p.field("service_name_matcher"))
		h.ServiceName = &s
	}
	h.Send = j.payload(m.GetSend(), p.field("send"))
	switch {
	case len(h.Send) == 0:
	case h.Method != "POST" && h.Method != "PUT" && h.Method != "PATCH" && h.Method != "OPTIONS":
		j.fail(p.field("send"), "needs a method with a body: POST, PUT, PATCH or OPTIONS, not %s", h.Method)
	}
	h.Receive = j.payloads(m.GetReceive(), p)
	h.ReceiveBytes = defaultCheckedBytes
	if v := m.GetResponseBufferSize(); v != nil {
		j.only(v.GetValue() > maxCheckedBytes, p.field("response_buffer_size"), "must be at most 1048576")
		h.ReceiveBytes = int(min(v.GetValue(), maxCheckedBytes))
		if v.GetValue() == 0 {
			h.ReceiveBytes = maxCheckedBytes // "the entire response", within reason
		}
	}
}

// checkHeaders reads headers whose values are known beforehand: there is no request
// that command operators could speak of.
func (j *job) checkHeaders(list []*corev3.HeaderValueOption, p *place, name string) []resource.HeaderValue {
	j.only(len(list) > maxCheckHeaders, p.field(name), "has more than 100 entries")
	var out []resource.HeaderValue
	for i, o := range list {
		at := p.item(name, i)
		value := o.GetHeader().GetValue()
		j.only(!validHeaderValue(value), at.field("header").field("value"), "has control characters")
		value = strings.ReplaceAll(value, "%%", "\x00")
		j.only(strings.IndexByte(value, '%') >= 0, at.field("header").field("value"), "command operators are not supported in health checks; write %% for a percent sign")
		out = append(out, resource.HeaderValue{
			Name:   j.editable(o.GetHeader().GetKey(), at.field("header").field("key")),
			Value:  strings.ReplaceAll(value, "\x00", "%"),
			Action: j.headerAction(o, at),
		})
	}
	return out
}

func (j *job) statusRanges(list []*typev3.Int64Range, p *place, name string) []resource.StatusSpan {
	var out []resource.StatusSpan
	for i, r := range list {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			j.fail(p.item(name, i), "want 100 ≤ start < end ≤ 600 (end is not included), got %d and %d", r.GetStart(), r.GetEnd())
			continue
		}
		out = append(out, resource.StatusSpan{From: int(r.GetStart()), To: int(r.GetEnd())})
	}
	return out
}

func (j *job) tcpCheck(m *corev3.HealthCheck_TcpHealthCheck, h *resource.HealthCheck, p *place) {
	h.Kind = resource.CheckTCP
	h.Send = j.payload(m.GetSend(), p.field("send"))
	h.Receive = j.payloads(m.GetReceive(), p)
	if pp := m.GetProxyProtocolConfig(); pp != nil {
		h.SendProxy = 1 + int(pp.GetVersion())
	}
}

func (j *job) grpcCheck(m *corev3.HealthCheck_GrpcHealthCheck, h *resource.HealthCheck, c *resource.Cluster, p *place) {
	h.Kind, h.Service, h.Host, h.HTTP2 = resource.CheckGRPC, m.GetServiceName(), m.GetAuthority(), true
	j.only(len(h.Service) > 4096, p.field("service_name"), "has more than 4096 bytes")
	j.only(!c.HTTP2 && !c.DownstreamProtocol, p, "needs a cluster of HTTP/2, as gRPC does")
	h.Headers = j.checkHeaders(m.GetInitialMetadata(), p, "initial_metadata")
}

// payload reads bytes, or their hexadecimal form.
func (j *job) payload(m *corev3.HealthCheck_Payload, p *place) []byte {
	b := m.GetBinary()
	if t, ok := m.GetPayload().(*corev3.HealthCheck_Payload_Text); ok {
		var err error
		if b, err = hex.DecodeString(t.Text); err != nil {
			j.fail(p.field("text"), "is not hexadecimal; plain bytes go into binary")
		}
	}
	j.only(len(b) > maxPayloadBytes, p, "has more than 65536 bytes")
	return b
}

func (j *job) payloads(list []*corev3.HealthCheck_Payload, p *place) [][]byte {
	var out [][]byte
	j.only(len(list) > maxCheckHeaders, p.field("receive"), "has more than 100 entries")
	for i, m := range list {
		out = append(out, j.payload(m, p.item("receive", i)))
	}
	return out
}

// endpointCheck reads health_check_config; nil where it says nothing.
func (j *job) endpointCheck(m *endpointv3.Endpoint_HealthCheckConfig, p *place) *resource.EndpointCheck {
	if m == nil {
		return nil
	}
	e := &resource.EndpointCheck{Hostname: m.GetHostname(), Disabled: m.GetDisableActiveHealthCheck()}
	j.only(m.GetPortValue() > 65535, p.field("port_value"), "is no port")
	e.Port = uint16(m.GetPortValue())
	if a := m.GetAddress(); a != nil {
		at := p.field("address")
		e.Address = j.address(a, at)
		if _, err := netip.ParseAddr(e.Address.Host); err == nil && e.Address.Port == 0 && e.Port == 0 {
			j.fail(at.field("socket_address").field("port_value"), "must not be 0 without port_value")
		}
	}
	j.only(strings.ContainsAny(e.Hostname, " /?#@\r\n"), p.field("hostname"), "is no host")
	if *e == (resource.EndpointCheck{}) {
		return nil
	}
	return e
}
