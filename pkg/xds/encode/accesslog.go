// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const fileLogger = "envoy.access_loggers.file"

// defaultJSON are the fields of the format "json", with the command operators
// that fill them.
var defaultJSON = map[string]string{
	"start_time":            "%START_TIME%",
	"method":                "%REQ(:METHOD)%",
	"path":                  "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"protocol":              "%PROTOCOL%",
	"authority":             "%REQ(:AUTHORITY)%",
	"response_code":         "%RESPONSE_CODE%",
	"response_flags":        "%RESPONSE_FLAGS%",
	"response_code_details": "%RESPONSE_CODE_DETAILS%",
	"bytes_received":        "%BYTES_RECEIVED%",
	"bytes_sent":            "%BYTES_SENT%",
	"duration":              "%DURATION%",
	"upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
	"upstream_host":         "%UPSTREAM_HOST%",
	"upstream_cluster":      "%UPSTREAM_CLUSTER%",
	"route_name":            "%ROUTE_NAME%",
	"user_agent":            "%REQ(USER-AGENT)%",
	"x_forwarded_for":       "%REQ(X-FORWARDED-FOR)%",
	"request_id":            "%REQ(X-REQUEST-ID)%",
	"traceparent":           "%REQ(TRACEPARENT)%",
	"downstream_remote":     "%DOWNSTREAM_REMOTE_ADDRESS%",
	"downstream_peer":       "%DOWNSTREAM_PEER_URI_SAN%",
}

func accessLogs(logs []mesh.AccessLog) ([]*accesslogv3.AccessLog, error) {
	var out []*accesslogv3.AccessLog
	for i, l := range logs {
		file := &filev3.FileAccessLog{Path: l.File}
		if f := logFormat(l.Format); f != nil {
			file.AccessLogFormat = &filev3.FileAccessLog_LogFormat{LogFormat: f}
		}
		packed, err := pack(file)
		if err != nil {
			return nil, fmt.Errorf("spec.accessLog[%d]: %w", i, err)
		}
		x := &accesslogv3.AccessLog{Name: fileLogger, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed}}
		if l.Filter != nil {
			if x.Filter, err = logFilter(l.Filter); err != nil {
				return nil, fmt.Errorf("spec.accessLog[%d].filter: %w", i, err)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// logFormat is nil for Envoy's default line.
func logFormat(f *mesh.AccessLogFormat) *corev3.SubstitutionFormatString {
	switch {
	case f == nil:
		return nil
	case f.JSON:
		fields := f.Fields
		if len(fields) == 0 {
			fields = defaultJSON
		}
		s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(fields))}
		for name, operator := range fields {
			s.Fields[name] = structpb.NewStringValue(operator)
		}
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: s}}
	case f.Line != "":
		line := f.Line
		if !strings.HasSuffix(line, "\n") {
			line += "\n"
		}
		return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: line}},
		}}
	}
	return nil
}

func logFilter(x *mesh.AccessLogFilter) (*accesslogv3.AccessLogFilter, error) {
	switch {
	case len(x.And) > 0:
		all, err := logFilters(x.And)
		return allOf(all), err
	case len(x.Or) > 0:
		either, err := logFilters(x.Or)
		return anyOf(either), err
	case x.Status != nil:
		return statusFilter(*x.Status), nil
	case x.Duration != nil:
		return durationFilter(*x.Duration)
	}
	return nil, fmt.Errorf("want one of and, or, status and duration")
}

func logFilters(list []mesh.AccessLogFilter) ([]*accesslogv3.AccessLogFilter, error) {
	out := make([]*accesslogv3.AccessLogFilter, len(list))
	for i := range list {
		var err error
		if out[i], err = logFilter(&list[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// allOf and anyOf: Envoy wants at least two under and, or.
func allOf(list []*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	if len(list) == 1 {
		return list[0]
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: list}}}
}

func anyOf(list []*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	if len(list) == 1 {
		return list[0]
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{Filters: list}}}
}

func statusFilter(m mesh.StatusMatch) *accesslogv3.AccessLogFilter {
	at := func(op accesslogv3.ComparisonFilter_Op, v uint32) *accesslogv3.AccessLogFilter {
		return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
			StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: comparison(op, v, "status")},
		}}
	}
	switch {
	case m.Min == m.Max:
		return at(accesslogv3.ComparisonFilter_EQ, m.Min)
	case m.Max >= 599:
		return at(accesslogv3.ComparisonFilter_GE, m.Min)
	case m.Min <= 100:
		return at(accesslogv3.ComparisonFilter_LE, m.Max)
	}
	return allOf([]*accesslogv3.AccessLogFilter{at(accesslogv3.ComparisonFilter_GE, m.Min), at(accesslogv3.ComparisonFilter_LE, m.Max)})
}

// durationFilter compares whole milliseconds: more than 500ms is at least 501.
func durationFilter(m mesh.DurationMatch) (*accesslogv3.AccessLogFilter, error) {
	ms := m.Value.Milliseconds()
	exact := m.Value%time.Millisecond == 0
	op := accesslogv3.ComparisonFilter_EQ
	switch m.Op {
	case ">":
		op, ms = accesslogv3.ComparisonFilter_GE, ms+1
	case ">=":
		op = accesslogv3.ComparisonFilter_GE
		if !exact {
			ms++
		}
	case "<":
		op = accesslogv3.ComparisonFilter_LE
		if exact {
			ms--
		}
	case "<=":
		op = accesslogv3.ComparisonFilter_LE
	}
	if ms < 0 || ms > 1<<31 {
		return nil, fmt.Errorf("duration %s %s: no duration is like that", m.Op, m.Value)
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_DurationFilter{
		DurationFilter: &accesslogv3.DurationFilter{Comparison: comparison(op, uint32(ms), "duration")},
	}}, nil
}

// comparison has a runtime key because the API requires one; nothing sets it.
func comparison(op accesslogv3.ComparisonFilter_Op, v uint32, what string) *accesslogv3.ComparisonFilter {
	return &accesslogv3.ComparisonFilter{Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: v, RuntimeKey: "outrigger.access_log." + what}}
}
