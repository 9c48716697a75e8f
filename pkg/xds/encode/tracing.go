// SPDX-License-Identifier: Apache-2.0

package encode

import (
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const defaultSampling = 1 // percent

// tracing samples where traces begin, and always sends spans to the control
// plane's own store, beside the collectors that are named.
func tracing(service string, t *mesh.Tracing) (*hcmv3.HttpConnectionManager_Tracing, error) {
	if t == nil {
		t = &mesh.Tracing{}
	}
	propagation := t.Propagation
	if len(propagation) == 0 {
		propagation = []string{mesh.PropagationTraceContext, mesh.PropagationB3}
	}
	var exporters []*structpb.Value
	for _, e := range t.Exporters {
		switch {
		case e.Zipkin != nil:
			exporters = append(exporters, exporter("zipkin", map[string]*structpb.Value{"url": structpb.NewStringValue(e.Zipkin.URL)}))
		case e.OTLP != nil:
			protocol := e.OTLP.Protocol
			if protocol == "" {
				protocol = "grpc"
			}
			exporters = append(exporters, exporter("otlp", map[string]*structpb.Value{
				"endpoint": structpb.NewStringValue(e.OTLP.Endpoint),
				"protocol": structpb.NewStringValue(protocol),
			}))
		}
	}
	exporters = append(exporters, exporter("controlplane", map[string]*structpb.Value{}))
	provider, err := pack(&xdstypev3.TypedStruct{TypeUrl: TracerType, Value: &structpb.Struct{Fields: map[string]*structpb.Value{
		"serviceName": structpb.NewStringValue(service),
		"propagation": texts(propagation),
		"exporters":   list(exporters),
	}}})
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpConnectionManager_Tracing{
		RandomSampling: &typev3.Percent{Value: float64(or(t.Sampling, defaultSampling))},
		Provider:       &tracev3.Tracing_Http{Name: TracerName, ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: provider}},
	}, nil
}

func exporter(kind string, fields map[string]*structpb.Value) *structpb.Value {
	return object(map[string]*structpb.Value{kind: object(fields)})
}
