// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

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
