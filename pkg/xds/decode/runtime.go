// SPDX-License-Identifier: Apache-2.0

package decode

import (
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxRuntimeKeys bounds one layer.
const maxRuntimeKeys = 10_000

func (j *job) runtime(m *runtimev3.Runtime, p *place) *resource.Runtime {
	return j.layer(m.GetLayer(), p.field("layer"))
}

// layer flattens a tree of runtime values: {"a": {"b": 1}} is "a.b" = 1. A
// fractional percentage is an object with numerator and denominator; it counts
// in parts of its own denominator and is kept as a percentage of 100.
func (j *job) layer(s *structpb.Struct, p *place) *resource.Runtime {
	r := &resource.Runtime{Numbers: map[string]float64{}, Texts: map[string]string{}}
	j.flatten(r, "", s, p, 0)
	return r
}

func (j *job) flatten(r *resource.Runtime, prefix string, s *structpb.Struct, p *place, depth int) {
	if depth > 32 {
		j.fail(p, "is nested more than 32 deep")
		return
	}
	for k, v := range s.GetFields() {
		key := k
		if prefix != "" {
			key = prefix + "." + k
		}
		if len(r.Numbers)+len(r.Texts) >= maxRuntimeKeys {
			j.fail(p, "has more than %d keys", maxRuntimeKeys)
			return
		}
		switch x := v.GetKind().(type) {
		case *structpb.Value_NumberValue:
			r.Numbers[key] = x.NumberValue
		case *structpb.Value_BoolValue:
			r.Numbers[key] = 0
			if x.BoolValue {
				r.Numbers[key] = 1
			}
		case *structpb.Value_StringValue:
			r.Texts[key] = x.StringValue
		case *structpb.Value_StructValue:
			if n, ok := fraction(x.StructValue); ok {
				r.Numbers[key] = n
				continue
			}
			j.flatten(r, key, x.StructValue, p.field(k), depth+1)
		default:
			j.fail(p.field(k), "must be a number, boolean, text or object")
		}
	}
}

// fraction reads {"numerator": 5, "denominator": "TEN_THOUSAND"}.
func fraction(s *structpb.Struct) (float64, bool) {
	num, ok := s.GetFields()["numerator"].GetKind().(*structpb.Value_NumberValue)
	if !ok || len(s.GetFields()) > 2 {
		return 0, false
	}
	switch s.GetFields()["denominator"].GetStringValue() {
	case "", "HUNDRED":
		return num.NumberValue, true
	case "TEN_THOUSAND":
		return num.NumberValue / 100, true
	case "MILLION":
		return num.NumberValue / 10_000, true
	}
	return 0, false
}
