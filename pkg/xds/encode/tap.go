// SPDX-License-Identifier: Apache-2.0

package encode

import (
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const defaultTapRate = 100 // copies per second

// tapFilter is nil where there is nothing to copy, or nobody who could.
func tapFilter(in ListenerInput) (*hcmv3.HttpFilter, error) {
	if in.Flavor != Sidecar || len(in.Taps) == 0 {
		return nil, nil
	}
	taps := make([]*structpb.Value, len(in.Taps))
	for i, t := range in.Taps {
		taps[i] = tap(t)
	}
	config, err := pack(&xdstypev3.TypedStruct{TypeUrl: TapType, Value: &structpb.Struct{Fields: map[string]*structpb.Value{"taps": list(taps)}}})
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{Name: TapName, IsOptional: true, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}, nil
}

func tap(t *mesh.Tap) *structpb.Value {
	f := map[string]*structpb.Value{
		"name":    structpb.NewStringValue(t.Metadata.Name),
		"match":   tapMatch(t.Spec.Match),
		"capture": tapCapture(t.Spec.Capture),
		"sink":    structpb.NewStringValue("lake"),
	}
	if r := t.Spec.Redact; r != nil {
		f["redact"] = object(map[string]*structpb.Value{
			"headers": texts(r.Headers), "jsonPaths": texts(r.JSONPaths), "patterns": texts(r.Patterns),
		})
	}
	if end := t.ExpiresAt(); !end.IsZero() {
		f["expiresUnixMs"] = number(end.UnixMilli())
	}
	if s := t.Spec.Sink; s != nil && s.File != "" {
		f["sink"] = object(map[string]*structpb.Value{"file": object(map[string]*structpb.Value{"path": structpb.NewStringValue(s.File)})})
	}
	return object(f)
}

func tapMatch(m *mesh.TapMatch) *structpb.Value {
	if m == nil {
		m = &mesh.TapMatch{}
	}
	rate := m.MaxPerSecond
	if rate == 0 {
		rate = defaultTapRate
	}
	f := map[string]*structpb.Value{
		"samplePercent": number(float64(or(m.Sample, 100))),
		"maxPerSecond":  number(rate),
	}
	if m.Status != nil {
		f["status"] = structpb.NewStringValue(m.Status.String())
	}
	if m.Method != "" {
		f["method"] = structpb.NewStringValue(m.Method)
	}
	if m.PathPrefix != "" {
		f["pathPrefix"] = structpb.NewStringValue(m.PathPrefix)
	}
	if len(m.Headers) > 0 {
		headers := make([]*structpb.Value, len(m.Headers))
		for i, h := range m.Headers {
			headers[i] = object(map[string]*structpb.Value{"name": structpb.NewStringValue(h.Name), "value": structpb.NewStringValue(h.Value)})
		}
		f["headers"] = list(headers)
	}
	return object(f)
}

func tapCapture(c *mesh.TapCapture) *structpb.Value {
	if c == nil {
		c = &mesh.TapCapture{}
	}
	return object(map[string]*structpb.Value{
		"requestBodyBytes": number(c.RequestBody.Bytes()), "responseBodyBytes": number(c.ResponseBody.Bytes()),
	})
}
