// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// LosesFallback reports whether a policy, which may be nil, falls back to a service that
// nobody knows. Sidecars wait for the clusters that they are told of, with all that needs
// them.
func (x *Index) LosesFallback(policy *mesh.TrafficPolicy) bool {
	if policy == nil || policy.Spec.Fallback == nil || policy.Spec.Fallback.Service == "" {
		return false
	}
	return x.Model.Services[policy.Spec.Fallback.Service] == nil
}

// WithoutFallbackService is a copy of a policy whose fallback is without another service:
// what comes next of it stays.
func WithoutFallbackService(policy *mesh.TrafficPolicy) *mesh.TrafficPolicy {
	out, fb := *policy, *policy.Spec.Fallback
	fb.Service = ""
	out.Spec.Fallback = &fb
	if fb.Cached == nil && !policy.Spec.Fallback.Writes() {
		out.Spec.Fallback = nil
	}
	return &out
}

// fallback are the settings of a cluster's fallback in our own metadata.
func fallback(fb *mesh.Fallback) *structpb.Value {
	fields := make(map[string]*structpb.Value)
	if fb.Service != "" {
		fields["cluster"] = structpb.NewStringValue(OutboundCluster(fb.Service))
	}
	if c := fb.Cached; c != nil {
		cached := make(map[string]*structpb.Value)
		if c.MaxAge != nil {
			cached["maxAgeMs"] = number(c.MaxAge.Std().Milliseconds())
		}
		if c.MaxBody != nil {
			cached["maxBodyBytes"] = number(c.MaxBody.Bytes())
		}
		fields["cached"] = structpb.NewStructValue(&structpb.Struct{Fields: cached})
	}
	if fb.Writes() {
		status, contentType := fb.Status, fb.ContentType
		if status == 0 {
			status = 200
		}
		if contentType == "" {
			contentType = "text/plain"
		}
		fields["status"] = number(status)
		fields["body"] = structpb.NewStringValue(fb.Body)
		fields["contentType"] = structpb.NewStringValue(contentType)
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}
