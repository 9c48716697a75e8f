// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Telemetry says what is traced and logged, for the mesh or for one service.
type Telemetry struct {
	Header
	Spec TelemetrySpec `json:"spec" rule:"required" doc:"Tracing and access logs; what is not said keeps the mesh's defaults."`
}

// TelemetrySpec is the body. A nil part keeps the defaults.
type TelemetrySpec struct {
	TargetRef *TargetRef   `json:"targetRef,omitempty" doc:"The service; the whole mesh when empty."`
	Tracing   *Tracing     `json:"tracing,omitempty" doc:"Traces."`
	AccessLog []AccessLog  `json:"accessLog,omitzero" rule:"maxitems=8" doc:"Access logs; an empty list switches them off."`
	Metrics   *Unsupported `json:"metrics,omitempty"`
}

// Propagation formats.
const (
	PropagationTraceContext = "tracecontext"
	PropagationB3           = "b3"
	PropagationB3Multi      = "b3multi"
)

// Tracing of requests.
type Tracing struct {
	Sampling    *Percent   `json:"sampling,omitempty" doc:"Share of traces that start here and are kept; 1% when empty."`
	Propagation []string   `json:"propagation,omitzero" rule:"maxitems=3,enum=tracecontext|b3|b3multi" doc:"Formats that are read, in this order, and written; tracecontext and b3 when empty."`
	Exporters   []Exporter `json:"exporters,omitzero" rule:"maxitems=4" doc:"Where spans go, beside the control plane's own store."`
}

// Exporter is exactly one of its fields.
type Exporter struct {
	Zipkin *ZipkinExporter `json:"zipkin,omitempty" doc:"Zipkin v2 JSON over HTTP."`
	OTLP   *OTLPExporter   `json:"otlp,omitempty" doc:"OpenTelemetry protocol."`
}

// ZipkinExporter posts Zipkin v2 JSON.
type ZipkinExporter struct {
	URL string `json:"url" rule:"required,maxlen=2048" doc:"Address of the collector, with the path."`
}

// OTLPExporter sends OTLP.
type OTLPExporter struct {
	Endpoint string `json:"endpoint" rule:"required,maxlen=2048" doc:"host:port."`
	Protocol string `json:"protocol,omitempty" rule:"enum=grpc|http" doc:"grpc when empty."`
}

// AccessLog is one log of finished requests.
type AccessLog struct {
	File   string           `json:"file" rule:"required,maxlen=4096" doc:"Absolute path; /dev/stdout and /dev/stderr work."`
	Format *AccessLogFormat `json:"format,omitempty" doc:"text (Envoy's default line) when empty, json, a line of Envoy's command operators, or a map from key to operators."`
	Filter *AccessLogFilter `json:"filter,omitempty" doc:"Which requests are logged; all when empty."`
	GRPC   *Unsupported     `json:"grpc,omitempty"`
	OTLP   *Unsupported     `json:"otlp,omitempty"`
}

// AccessLogFormat is one of: the default line (zero value), the default JSON
// object (JSON without Fields), a custom line, or custom JSON fields.
type AccessLogFormat struct {
	JSON   bool
	Line   string
	Fields map[string]string
}

// AccessLogFilter is exactly one of its fields.
type AccessLogFilter struct {
	And      []AccessLogFilter `json:"and,omitzero" rule:"maxitems=16" doc:"All of these."`
	Or       []AccessLogFilter `json:"or,omitzero" rule:"maxitems=16" doc:"Any of these."`
	Status   *StatusMatch      `json:"status,omitempty" doc:"Response status: '>= 400', 5xx, 404."`
	Duration *DurationMatch    `json:"duration,omitempty" doc:"Duration of the exchange: '> 500ms'."`
}

func (t *Telemetry) check(f *faults) {
	checkObjectName(f, t.Metadata.Name)
	if t.Spec.TargetRef != nil {
		checkServiceName(f, "spec.targetRef.name", t.Spec.TargetRef.Name)
	}
	if t.Spec.Tracing != nil {
		for i, e := range t.Spec.Tracing.Exporters {
			e.check(f, index("spec.tracing.exporters", i))
		}
	}
	for i := range t.Spec.AccessLog {
		l, path := &t.Spec.AccessLog[i], index("spec.accessLog", i)
		if l.File != "" && (!strings.HasPrefix(l.File, "/") || strings.Contains(l.File, "\x00") || strings.Contains(l.File+"/", "/../")) {
			f.add(path+".file", "want an absolute path without .., got %q", clip(l.File))
		}
		if l.Filter != nil {
			l.Filter.check(f, path+".filter")
		}
		if l.Format != nil && len(l.Format.Line) > 4096 {
			f.add(path+".format", "line is %d bytes, the limit is 4096", len(l.Format.Line))
		}
	}
}

func (e *Exporter) check(f *faults, path string) {
	if (e.Zipkin == nil) == (e.OTLP == nil) {
		f.add(path, "want exactly one of zipkin and otlp")
		return
	}
	if e.Zipkin != nil {
		checkCollectorURL(f, path+".zipkin.url", e.Zipkin.URL)
		return
	}
	checkHostPort(f, path+".otlp.endpoint", e.OTLP.Endpoint)
}

func checkCollectorURL(f *faults, path, raw string) {
	if raw == "" {
		return
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" {
		f.add(path, "want an http:// URL with a host, got %q", clip(raw))
		return
	}
	if u.User != nil {
		f.add(path, "credentials in a URL are refused")
	}
	checkCollectorHost(f, path, u.Hostname())
}

func checkHostPort(f *faults, path, hostport string) {
	if hostport == "" {
		return
	}
	host, port, err := net.SplitHostPort(hostport)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || host == "" {
		f.add(path, "want host:port, got %q", clip(hostport))
		return
	}
	checkCollectorHost(f, path, host)
}

// checkCollectorHost keeps span export away from metadata services.
func checkCollectorHost(f *faults, path, host string) {
	if a, err := netip.ParseAddr(host); err == nil && !UsableAddress(a) {
		f.add(path, "%s cannot be a collector: unspecified, multicast and link-local addresses are refused", a)
	}
}

func (x *AccessLogFilter) check(f *faults, path string) {
	set := 0
	for _, s := range []bool{len(x.And) > 0, len(x.Or) > 0, x.Status != nil, x.Duration != nil} {
		if s {
			set++
		}
	}
	if set != 1 {
		f.add(path, "want exactly one of and, or, status and duration")
	}
	for i := range x.And {
		x.And[i].check(f, index(path+".and", i))
	}
	for i := range x.Or {
		x.Or[i].check(f, index(path+".or", i))
	}
}
