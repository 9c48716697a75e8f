// SPDX-License-Identifier: Apache-2.0

package encode

import (
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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
	config, err := pack(&xdstypev3.TypedStruct{TypeUrl: TapType, Value: &structpb.Struct{Fields: map[string]*structpb.Value{"taps": taps(in.Taps)}}})
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{Name: TapName, IsOptional: true, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}}, nil
}

// connectionTap is the same for a chain that passes connections on: in its metadata, as
// network filters cannot be optional (docs/adr/0005).
func connectionTap(in ListenerInput) *corev3.Metadata {
	if in.Flavor != Sidecar || len(in.Taps) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		MetadataNamespace: {Fields: map[string]*structpb.Value{"tap": object(map[string]*structpb.Value{
			"direction": structpb.NewStringValue("inbound"), "taps": taps(in.Taps),
		})}},
	}}
}

func taps(in []*mesh.Tap) *structpb.Value {
	out := make([]*structpb.Value, len(in))
	for i, t := range in {
		out[i] = tap(t)
	}
	return list(out)
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
	for name, values := range map[string][]string{"serverNames": m.ServerNames, "peers": m.Peers, "flags": m.Flags} {
		if len(values) > 0 {
			f[name] = texts(values)
		}
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
