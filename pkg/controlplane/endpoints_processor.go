// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// endpoints makes one assignment for each service, an empty one where there is
// no instance: a cluster that is not answered would keep its users waiting.
func endpoints(in input) []recipe {
	if in.group.Kind != KindMesh {
		return nil
	}
	out := make([]recipe, 0, len(in.index.Services))
	for _, service := range in.index.Services {
		instances := in.index.Model.Instances[service]
		http2 := in.index.Model.Services[service].SpeaksHTTP2()
		policy := in.index.Policy(service)
		checked := policy != nil && policy.Spec.HealthCheck != nil
		labels := in.index.LabelKeys(service)
		out = append(out, recipe{encode.OutboundCluster(service), []any{instances, labels, http2, checked}, func() (proto.Message, []encode.Problem, error) {
			a, err := encode.Assignment(service, instances, labels, http2, checked)
			return a, nil, err
		}})
	}
	return out
}
