// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"bytes"
	"encoding/json"
	"net"
	"net/url"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	zipkinURL      = typeURLPrefix + "envoy.config.trace.v3.ZipkinConfig"
	otelURL        = typeURLPrefix + "envoy.config.trace.v3.OpenTelemetryConfig"
	ownTracerURL   = typeURLPrefix + "io.outrigger.v1.Tracer"
	defaultPathTag = 256
)

func (j *job) tracing(m *hcmv3.HttpConnectionManager_Tracing, p *place) *resource.Tracing {
	if m == nil {
		return nil
	}
	t := &resource.Tracing{
		ClientSampling:  j.sampling(m.GetClientSampling(), p.field("client_sampling")),
		RandomSampling:  j.sampling(m.GetRandomSampling(), p.field("random_sampling")),
		OverallSampling: j.sampling(m.GetOverallSampling(), p.field("overall_sampling")),
		Verbose:         m.GetVerbose(),
		MaxPathTag:      defaultPathTag,
		Tags:            j.tags(m.GetCustomTags(), p),
	}
	if v := m.GetMaxPathTagLength(); v != nil {
		t.MaxPathTag = j.within(v.GetValue(), 0, 64<<10, p.field("max_path_tag_length"))
	}
	if m.GetProvider() != nil {
		t.Provider = j.tracer(m.GetProvider(), p.field("provider"))
	}
	return t
}

// sampling is a percentage that defaults to all.
func (j *job) sampling(v *typev3.Percent, p *place) resource.Percent {
	return resource.Percent{PerMillion: uint32(j.percent(v, 100, p) * 10_000), Denominator: 100}
}

func (j *job) routeTracing(m *routev3.Tracing, p *place) *resource.Tracing {
	if m == nil {
		return nil
	}
	fraction := func(f *typev3.FractionalPercent, p *place) resource.Percent {
		if f == nil {
			return resource.Percent{PerMillion: 1_000_000, Denominator: 100}
		}
		pm, den := j.perMillion(f, p)
		return resource.Percent{PerMillion: pm, Denominator: den}
	}
	return &resource.Tracing{
		ClientSampling:  fraction(m.GetClientSampling(), p.field("client_sampling")),
		RandomSampling:  fraction(m.GetRandomSampling(), p.field("random_sampling")),
		OverallSampling: fraction(m.GetOverallSampling(), p.field("overall_sampling")),
		MaxPathTag:      defaultPathTag,
		Tags:            j.tags(m.GetCustomTags(), p),
	}
}

func (j *job) tags(list []*tagv3.CustomTag, p *place) []resource.TracingTag {
	var out []resource.TracingTag
	for i, m := range list {
		at := p.item("custom_tags", i)
		t := resource.TracingTag{Name: m.GetTag()}
		switch v := m.GetType().(type) {
		case *tagv3.CustomTag_Literal_:
			t.Literal = v.Literal.GetValue()
		case *tagv3.CustomTag_RequestHeader:
			t.Header, t.Default = j.matchedName(v.RequestHeader.GetName(), at.field("request_header").field("name")), v.RequestHeader.GetDefaultValue()
		default:
			j.fail(at, "only literal and request_header are supported by this version")
		}
		out = append(out, t)
	}
	return out
}

func (j *job) tracer(m *tracev3.Tracing_Http, p *place) *resource.Tracer {
	at := p.field("typed_config")
	a := m.GetTypedConfig()
	switch a.GetTypeUrl() {
	case zipkinURL:
		var z tracev3.ZipkinConfig
		if j.unpack(a, &z, at) {
			return j.zipkin(&z, at)
		}
	case otelURL:
		var o tracev3.OpenTelemetryConfig
		if j.unpack(a, &o, at) {
			return j.otel(&o, at)
		}
	default:
		if inner, text, ok := typedStruct(a); ok && inner == ownTracerURL {
			return j.ownTracer(text, at.field("value"))
		}
		j.fail(at, "unsupported tracer %q", clip(a.GetTypeUrl(), 200))
	}
	return nil
}

//nolint:staticcheck // collector_cluster and the others are deprecated in favour of collector_service and still in use
func (j *job) zipkin(m *tracev3.ZipkinConfig, p *place) *resource.Tracer {
	t := &resource.Tracer{
		TraceID128: m.GetTraceId_128Bit(), SharedSpan: boolOr(m.GetSharedSpanContext(), true),
		Propagation: []string{"b3", "b3multi"}, Echo: []string{"b3"}, // as Envoy, which writes b3multi
		Exporters: []resource.TraceExporter{{
			ZipkinCluster: m.GetCollectorCluster(), ZipkinPath: m.GetCollectorEndpoint(), ZipkinHost: m.GetCollectorHostname(),
		}},
	}
	if m.GetTraceContextOption() == tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION {
		t.Propagation = append(t.Propagation, "tracecontext")
	}
	j.only(m.GetCollectorEndpointVersion() != tracev3.ZipkinConfig_HTTP_JSON, p.field("collector_endpoint_version"), "only HTTP_JSON is supported by this version")
	if m.GetCollectorCluster() == "" {
		j.fail(p.field("collector_cluster"), "is empty")
	}
	if m.GetCollectorEndpoint() == "" {
		j.fail(p.field("collector_endpoint"), "is empty")
	}
	return t
}

func (j *job) otel(m *tracev3.OpenTelemetryConfig, p *place) *resource.Tracer {
	t := &resource.Tracer{ServiceName: m.GetServiceName(), Propagation: []string{"tracecontext"}, TraceID128: true}
	switch {
	case m.GetGrpcService() != nil && m.GetHttpService() != nil:
		j.fail(p.field("http_service"), "must not be given together with grpc_service")
	case m.GetGrpcService() != nil:
		s := j.service(m.GetGrpcService(), p.field("grpc_service"))
		t.Exporters = []resource.TraceExporter{{OTLPCluster: s.Cluster, OTLPEndpoint: s.Target, OTLPProtocol: "grpc"}}
	case m.GetHttpService() != nil:
		uri := m.GetHttpService().GetHttpUri()
		at := p.field("http_service").field("http_uri")
		u, err := url.Parse(uri.GetUri())
		if err != nil || u.Scheme != "http" || u.Host == "" {
			j.fail(at.field("uri"), "%q is no http URL", clip(uri.GetUri(), 200))
			return t
		}
		t.Exporters = []resource.TraceExporter{{OTLPCluster: uri.GetCluster(), OTLPEndpoint: u.Host, OTLPProtocol: "http"}}
	}
	return t
}

type ownTracer struct {
	ServiceName string   `json:"serviceName"`
	Propagation []string `json:"propagation"`
	Exporters   []struct {
		Zipkin *struct {
			URL string `json:"url"`
		} `json:"zipkin"`
		OTLP *struct {
			Endpoint string `json:"endpoint"`
			Protocol string `json:"protocol"`
		} `json:"otlp"`
		ControlPlane *struct{} `json:"controlplane"`
	} `json:"exporters"`
}

// ownTracer reads io.outrigger.v1.Tracer, which our own control plane sends.
func (j *job) ownTracer(text []byte, p *place) *resource.Tracer {
	var m ownTracer
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		j.fail(p, "%s", clip(err.Error(), 300))
		return nil
	}
	t := &resource.Tracer{ServiceName: m.ServiceName, Propagation: m.Propagation, TraceID128: true}
	if len(t.Propagation) == 0 {
		t.Propagation = []string{"tracecontext", "b3"}
	}
	for i, f := range t.Propagation {
		j.only(f != "tracecontext" && f != "b3" && f != "b3multi", p.item("propagation", i), "must be tracecontext, b3 or b3multi")
	}
	for i, e := range m.Exporters {
		at := p.item("exporters", i)
		var x resource.TraceExporter
		n := 0
		if e.Zipkin != nil {
			n++
			x.ZipkinURL = e.Zipkin.URL
			u, err := url.Parse(x.ZipkinURL)
			j.only(err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "", at.field("zipkin").field("url"), "is no http URL")
		}
		if e.OTLP != nil {
			n++
			x.OTLPEndpoint, x.OTLPProtocol = e.OTLP.Endpoint, e.OTLP.Protocol
			if x.OTLPProtocol == "" {
				x.OTLPProtocol = "grpc"
			}
			_, _, err := net.SplitHostPort(x.OTLPEndpoint)
			j.only(err != nil, at.field("otlp").field("endpoint"), "must be host:port")
			j.only(x.OTLPProtocol != "grpc" && x.OTLPProtocol != "http", at.field("otlp").field("protocol"), "must be grpc or http")
		}
		if e.ControlPlane != nil {
			n++
			x.ToControlPlane = true
		}
		j.only(n != 1, at, "must have exactly one of zipkin, otlp and controlplane")
		t.Exporters = append(t.Exporters, x)
	}
	return t
}
