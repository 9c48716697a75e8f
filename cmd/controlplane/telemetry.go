// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
)

// telemetry is the control plane's own tracing; the zero value traces nothing.
type telemetry struct {
	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// startTelemetry follows the OTEL_* variables of the OpenTelemetry specification.
// Without an endpoint or an exporter in them it does nothing.
func startTelemetry(ctx context.Context, log *slog.Logger) (telemetry, error) {
	wanted := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	switch kind := os.Getenv("OTEL_TRACES_EXPORTER"); kind {
	case "":
	case "none":
		wanted = false
	case "otlp":
		wanted = true
	default:
		return telemetry{}, exitWith(exitUsage, "OTEL_TRACES_EXPORTER: want otlp or none, got %q", kind)
	}
	if !wanted || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return telemetry{}, nil
	}
	var exporter *otlptrace.Exporter
	var err error
	switch protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf"); protocol {
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	case "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	default:
		return telemetry{}, exitWith(exitUsage, "OTEL_EXPORTER_OTLP_PROTOCOL: want grpc or http/protobuf, got %q", protocol)
	}
	if err != nil {
		return telemetry{}, exitWith(exitUsage, "OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "outrigger-controlplane")), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		log.Warn("OTEL_RESOURCE_ATTRIBUTES", "error", err)
	}
	return telemetry{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res)), log}, nil
}

func (t telemetry) http(h http.Handler) http.Handler {
	if t.provider == nil {
		return h
	}
	return otelhttp.NewHandler(h, "rest", otelhttp.WithTracerProvider(t.provider), otelhttp.WithPropagators(propagation.TraceContext{}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method }))
}

func (t telemetry) grpc() []grpc.ServerOption {
	if t.provider == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(propagation.TraceContext{})))}
}

// stop sends what is left, for a few seconds at most.
func (t telemetry) stop() error {
	if t.provider == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("spans of the control plane were not sent", "error", err)
	}
	return nil
}
