// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// clusters makes one for each service, and a sidecar's application. Those for
// sidecars with an identity are made by secureClusters.
func clusters(in input) []recipe {
	switch in.group.Kind {
	case KindMesh:
		return serviceClusters(in, encode.Sidecar)
	case KindGRPC:
		return serviceClusters(in, encode.GRPC)
	case KindSidecar:
		if in.group.Inbound == "" || in.group.App == "" {
			return nil
		}
		http2 := in.index.Model.Services[in.group.Service].SpeaksHTTP2()
		policy := in.index.Policy(in.group.Service)
		return []recipe{{encode.InboundCluster(in.group.Service), []any{http2, policy}, func() (proto.Message, []encode.Problem, error) {
			c, err := encode.AppCluster(in.group.Service, in.group.App, http2, policy)
			if err == nil || policy == nil {
				return c, nil, err
			}
			problem := encode.Problem{Object: policy.Key(), Reason: err.Error()}
			c, err = encode.AppCluster(in.group.Service, in.group.App, http2, nil)
			return c, []encode.Problem{problem}, err
		}}}
	}
	return nil
}

// serviceClusters: a policy that cannot be expressed is left out, and its
// service keeps the mesh's defaults.
func serviceClusters(in input, f encode.Flavor) []recipe {
	out := make([]recipe, 0, len(in.index.Services))
	for _, service := range in.index.Services {
		policy := in.index.Policy(service)
		subsets := in.index.SubsetKeys(service)
		lost := in.index.LosesFallback(policy)
		out = append(out, recipe{encode.OutboundCluster(service), []any{policy, subsets, lost}, func() (proto.Message, []encode.Problem, error) {
			policy := policy
			if lost {
				policy = encode.WithoutFallbackService(policy)
			}
			c, err := encode.ServiceCluster(service, policy, subsets, f)
			if err == nil || policy == nil {
				return c, nil, err
			}
			problem := encode.Problem{Object: policy.Key(), Reason: err.Error()}
			c, err = encode.ServiceCluster(service, nil, subsets, f)
			return c, []encode.Problem{problem}, err
		}})
	}
	return out
}
