// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"sort"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	logPrefix        = typeURLPrefix + "envoy.extensions.access_loggers."
	defaultALSBuffer = 16 << 10
	maxALSBuffer     = 16 << 20
	maxLogNesting    = 16
)

func (j *job) accessLogs(list []*accesslogv3.AccessLog, p *place, name string) []*resource.AccessLog {
	var out []*resource.AccessLog
	for i, m := range list {
		at := p.item(name, i)
		l := &resource.AccessLog{Name: m.GetName()}
		if m.GetFilter() != nil {
			l.Filter = j.logFilter(m.GetFilter(), at.field("filter"), 0)
		}
		j.destination(m, l, at.field("typed_config"))
		out = append(out, l)
	}
	return out
}

func (j *job) destination(m *accesslogv3.AccessLog, l *resource.AccessLog, p *place) {
	a := m.GetTypedConfig()
	switch a.GetTypeUrl() {
	case logPrefix + "file.v3.FileAccessLog":
		var f filelogv3.FileAccessLog
		if j.unpack(a, &f, p) {
			l.File = j.fileLog(&f, p)
		}
	case logPrefix + "stream.v3.StdoutAccessLog":
		var s streamlogv3.StdoutAccessLog
		if j.unpack(a, &s, p) {
			l.File = &resource.FileLog{Path: "/dev/stdout", Format: j.logFormat(s.GetLogFormat(), p.field("log_format"))}
		}
	case logPrefix + "stream.v3.StderrAccessLog":
		var s streamlogv3.StderrAccessLog
		if j.unpack(a, &s, p) {
			l.File = &resource.FileLog{Path: "/dev/stderr", Format: j.logFormat(s.GetLogFormat(), p.field("log_format"))}
		}
	case logPrefix + "grpc.v3.HttpGrpcAccessLogConfig":
		var g grpclogv3.HttpGrpcAccessLogConfig
		if j.unpack(a, &g, p) {
			l.GRPC = j.grpcLog(g.GetCommonConfig(), p.field("common_config"))
			l.GRPC.ReqHeaders = lowerAll(g.GetAdditionalRequestHeadersToLog())
			l.GRPC.RespHeaders = lowerAll(g.GetAdditionalResponseHeadersToLog())
		}
	case logPrefix + "grpc.v3.TcpGrpcAccessLogConfig":
		var g grpclogv3.TcpGrpcAccessLogConfig
		if j.unpack(a, &g, p) {
			l.GRPC = j.grpcLog(g.GetCommonConfig(), p.field("common_config"))
			l.GRPC.TCP = true
		}
	default:
		j.fail(p, "unsupported access log %q", clip(a.GetTypeUrl(), 200))
	}
}

func lowerAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, lower(s))
	}
	return out
}

//nolint:staticcheck // format, json_format and typed_json_format are deprecated and still in use
func (j *job) fileLog(m *filelogv3.FileAccessLog, p *place) *resource.FileLog {
	f := &resource.FileLog{Path: m.GetPath()}
	switch v := m.GetAccessLogFormat().(type) {
	case *filelogv3.FileAccessLog_Format:
		f.Format = &resource.LogFormat{Text: j.format(v.Format, p.field("format"))}
	case *filelogv3.FileAccessLog_JsonFormat:
		f.Format = &resource.LogFormat{JSON: j.logFields(v.JsonFormat, p.field("json_format"), 0)}
	case *filelogv3.FileAccessLog_TypedJsonFormat:
		f.Format = &resource.LogFormat{JSON: j.logFields(v.TypedJsonFormat, p.field("typed_json_format"), 0)}
	case *filelogv3.FileAccessLog_LogFormat:
		f.Format = j.logFormat(v.LogFormat, p.field("log_format"))
	}
	return f
}

func (j *job) grpcLog(m *grpclogv3.CommonGrpcAccessLogConfig, p *place) *resource.GRPCLog {
	j.apiVersion(m.GetTransportApiVersion(), p.field("transport_api_version"))
	s := j.service(m.GetGrpcService(), p.field("grpc_service"))
	j.only(s.Cluster == "", p.field("grpc_service"), "needs envoy_grpc")
	g := &resource.GRPCLog{
		Cluster: j.intern(s.Cluster), LogName: m.GetLogName(), BufferBytes: defaultALSBuffer,
		FlushMillis: int(j.duration(m.GetBufferFlushInterval(), time.Second, p.field("buffer_flush_interval")) / time.Millisecond),
	}
	if v := m.GetBufferSizeBytes(); v != nil {
		g.BufferBytes = j.within(v.GetValue(), 0, maxALSBuffer, p.field("buffer_size_bytes"))
	}
	return g
}

// logFormat reads a SubstitutionFormatString.
//
//nolint:staticcheck // text_format is deprecated and still in use
func (j *job) logFormat(m *corev3.SubstitutionFormatString, p *place) *resource.LogFormat {
	if m == nil {
		return nil
	}
	f := &resource.LogFormat{OmitEmpty: m.GetOmitEmptyValues(), ContentType: m.GetContentType()}
	j.only(!validHeaderValue(f.ContentType), p.field("content_type"), "has control characters")
	switch v := m.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		f.Text = j.format(v.TextFormat, p.field("text_format"))
	case *corev3.SubstitutionFormatString_TextFormatSource:
		f.Text = j.format(string(j.data(v.TextFormatSource, p.field("text_format_source"))), p.field("text_format_source"))
	case *corev3.SubstitutionFormatString_JsonFormat:
		f.JSON = j.logFields(v.JsonFormat, p.field("json_format"), 0)
	default:
		j.fail(p, "has no format")
	}
	return f
}

// logFields reads the fields of a JSON format, in order of their names.
func (j *job) logFields(s *structpb.Struct, p *place, depth int) []resource.LogField {
	if depth > maxLogNesting {
		j.fail(p, "is nested more than %d deep", maxLogNesting)
		return nil
	}
	names := make([]string, 0, len(s.GetFields()))
	for name := range s.GetFields() {
		names = append(names, name)
	}
	sort.Strings(names)
	out := make([]resource.LogField, 0, len(names))
	for _, name := range names {
		f := j.logField(s.GetFields()[name], p.field(name), depth)
		f.Name = name
		out = append(out, f)
	}
	return out
}

func (j *job) logField(v *structpb.Value, p *place, depth int) resource.LogField {
	switch x := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		f := j.format(x.StringValue, p)
		return resource.LogField{Format: &f}
	case *structpb.Value_StructValue:
		return resource.LogField{Object: j.logFields(x.StructValue, p, depth+1)}
	case *structpb.Value_ListValue:
		if depth > maxLogNesting {
			j.fail(p, "is nested more than %d deep", maxLogNesting)
			return resource.LogField{}
		}
		f := resource.LogField{List: []resource.LogField{}}
		for _, e := range x.ListValue.GetValues() {
			f.List = append(f.List, j.logField(e, p, depth+1))
		}
		return f
	default:
		text, err := v.MarshalJSON()
		if err != nil {
			j.fail(p, "%s", cleanError(err))
		}
		return resource.LogField{Literal: string(text)}
	}
}

// logFilter reads which records are kept.
func (j *job) logFilter(m *accesslogv3.AccessLogFilter, p *place, depth int) *resource.LogFilter {
	if depth > maxLogNesting {
		j.fail(p, "is nested more than %d deep", maxLogNesting)
		return nil
	}
	out := &resource.LogFilter{}
	switch v := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		out.Kind = resource.FilterStatus
		j.comparison(v.StatusCodeFilter.GetComparison(), out, p.field("status_code_filter").field("comparison"))
	case *accesslogv3.AccessLogFilter_DurationFilter:
		out.Kind = resource.FilterDuration
		j.comparison(v.DurationFilter.GetComparison(), out, p.field("duration_filter").field("comparison"))
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		out.Kind = resource.FilterNotHealthCheck
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		out.Kind = resource.FilterTraceable
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		out.Kind, out.Runtime = resource.FilterRuntime, v.RuntimeFilter.GetRuntimeKey()
		pm, den := j.perMillion(v.RuntimeFilter.GetPercentSampled(), p.field("runtime_filter").field("percent_sampled"))
		out.Percent = resource.Percent{RuntimeKey: out.Runtime, PerMillion: pm, Denominator: den}
	case *accesslogv3.AccessLogFilter_AndFilter:
		out.Kind = resource.FilterAnd
		for i, f := range v.AndFilter.GetFilters() {
			out.Sub = append(out.Sub, j.logFilter(f, p.field("and_filter").item("filters", i), depth+1))
		}
	case *accesslogv3.AccessLogFilter_OrFilter:
		out.Kind = resource.FilterOr
		for i, f := range v.OrFilter.GetFilters() {
			out.Sub = append(out.Sub, j.logFilter(f, p.field("or_filter").item("filters", i), depth+1))
		}
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h := j.headerMatch(v.HeaderFilter.GetHeader(), p.field("header_filter").field("header"))
		out.Kind, out.Header = resource.FilterHeader, &h
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		out.Kind, out.Flags = resource.FilterResponseFlag, v.ResponseFlagFilter.GetFlags()
	default:
		j.fail(p, "has no filter that is supported")
	}
	return out
}

func (j *job) comparison(m *accesslogv3.ComparisonFilter, out *resource.LogFilter, p *place) {
	switch m.GetOp() {
	case accesslogv3.ComparisonFilter_EQ:
		out.Op = resource.OpEQ
	case accesslogv3.ComparisonFilter_GE:
		out.Op = resource.OpGE
	case accesslogv3.ComparisonFilter_LE:
		out.Op = resource.OpLE
	default:
		if !strings.EqualFold(m.GetOp().String(), "NE") {
			j.fail(p.field("op"), "unsupported %s", m.GetOp())
		}
		out.Op = resource.OpNE
	}
	out.Value, out.Runtime = m.GetValue().GetDefaultValue(), m.GetValue().GetRuntimeKey()
}
