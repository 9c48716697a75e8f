// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/pkg/trace"
)

// otlp uploads batches through an OpenTelemetry client.
type otlp struct {
	*batcher[*tracepb.Span]
	client   otlptrace.Client
	resource *resourcepb.Resource
}

// newOTLP makes an exporter for a receiver; protocol is "grpc" (also when empty)
// or "http", endpoint HOST:PORT. Where says at each dial where to, nil: to the
// endpoint.
func newOTLP(endpoint, protocol, service, node string, where func() (string, error)) (*otlp, error) {
	if where == nil {
		if err := checkHostPort(endpoint); err != nil {
			return nil, fmt.Errorf("otlp.endpoint: %w", err)
		}
	}
	o := &otlp{resource: serviceResource(service, node)}
	var clean func()
	switch protocol {
	case "", "grpc":
		conn, err := grpc.NewClient("passthrough:///"+endpoint,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if where != nil {
					var err error
					if addr, err = where(); err != nil {
						return nil, err
					}
				}
				return dial(ctx, "tcp", addr)
			}))
		if err != nil {
			return nil, fmt.Errorf("otlp.endpoint: %w", err)
		}
		o.client = otlptracegrpc.NewClient(otlptracegrpc.WithGRPCConn(conn), otlptracegrpc.WithTimeout(sendTimeout),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: false}))
		clean = func() { conn.Close() }
	case "http":
		client := httpClient(where)
		o.client = otlptracehttp.NewClient(otlptracehttp.WithEndpoint(endpoint), otlptracehttp.WithInsecure(),
			otlptracehttp.WithHTTPClient(client), otlptracehttp.WithTimeout(sendTimeout),
			otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
		clean = client.CloseIdleConnections
	default:
		return nil, fmt.Errorf("otlp.protocol: %q is not supported (known: grpc, http)", protocol)
	}
	// Neither client connects here: the first upload does.
	if err := o.client.Start(context.Background()); err != nil {
		clean()
		return nil, fmt.Errorf("otlp: %w", err)
	}
	o.batcher = newBatcher("otlp "+endpoint, o.upload, func() {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		defer cancel()
		o.client.Stop(ctx) // nothing waits in it
		clean()
	})
	return o, nil
}

func serviceResource(service, node string) *resourcepb.Resource {
	r := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		attribute("service.name", service),
		attribute("telemetry.sdk.name", "outrigger"),
	}}
	if node != "" {
		r.Attributes = append(r.Attributes, attribute("service.instance.id", node))
	}
	return r
}

// Export implements trace.Exporter.
func (o *otlp) Export(s *trace.Span) {
	if !o.full() {
		o.put(toOTLP(s))
	}
}

func (o *otlp) upload(ctx context.Context, spans []*tracepb.Span) error {
	err := o.client.UploadTraces(ctx, []*tracepb.ResourceSpans{{
		Resource: o.resource,
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "github.com/outrigger-mesh/outrigger"},
			Spans: spans,
		}},
	}})
	if err == nil {
		return nil
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated, codes.NotFound:
		return fmt.Errorf("%w: %w", errPermanent, err)
	}
	return err
}

// toOTLP copies a span. Tags become attributes under the same names, so that one
// trace reads alike in every backend; numbers are numbers.
func toOTLP(s *trace.Span) *tracepb.Span {
	out := &tracepb.Span{
		TraceId: append([]byte(nil), s.TraceID[:]...), SpanId: append([]byte(nil), s.SpanID[:]...),
		Name: strings.ToValidUTF8(string(s.Name), "\uFFFD"), Kind: tracepb.Span_SPAN_KIND_SERVER,
		StartTimeUnixNano: uint64(s.Start), EndTimeUnixNano: uint64(s.Start + s.Duration),
		Flags:  uint32(0x100), // SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK: known, set below
		Status: &tracepb.Status{},
	}
	if s.Sampled {
		out.Flags |= 1
	}
	if s.Client {
		out.Kind = tracepb.Span_SPAN_KIND_CLIENT
	}
	if s.ParentID != [8]byte{} {
		out.ParentSpanId = append([]byte(nil), s.ParentID[:]...)
		out.Flags |= 0x200 // the parent is in another process
	}
	if s.Error {
		out.Status.Code = tracepb.Status_STATUS_CODE_ERROR
	}
	out.Attributes = make([]*commonpb.KeyValue, 0, len(s.Tags)+2)
	for _, t := range s.Tags {
		if t.Key == "http.status_code" {
			out.Attributes = append(out.Attributes, &commonpb.KeyValue{
				Key: t.Key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(s.Status)}}})
			continue
		}
		out.Attributes = append(out.Attributes, attribute(t.Key, string(t.Value)))
	}
	out.Attributes = appendPeer(out.Attributes, s.RemoteService, s.Remote)
	return out
}

func appendPeer(dst []*commonpb.KeyValue, service string, a netip.AddrPort) []*commonpb.KeyValue {
	if service != "" {
		dst = append(dst, attribute("peer.service", service))
	}
	if a.IsValid() {
		dst = append(dst, attribute("network.peer.address", a.Addr().String()))
	}
	return dst
}

func attribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: strings.ToValidUTF8(key, "\uFFFD"), Value: &commonpb.AnyValue{
		Value: &commonpb.AnyValue_StringValue{StringValue: strings.ToValidUTF8(value, "\uFFFD")}}}
}
