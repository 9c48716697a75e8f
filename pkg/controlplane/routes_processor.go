// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// routes makes the one route configuration of all services.
func routes(in input) []recipe {
	f := encode.Sidecar
	switch in.group.Kind {
	case KindMesh:
	case KindGRPC:
		f = encode.GRPC
	case KindEnvoy:
		f = encode.Envoy
	default:
		return nil
	}
	m := in.index.Model
	inputs := []any{m.Services, m.Objects[mesh.KindHTTPRoute], m.Objects[mesh.KindGRPCRoute], m.Objects[mesh.KindTLSRoute], m.Objects[mesh.KindTCPRoute], m.Objects[mesh.KindTrafficPolicy]}
	return []recipe{{encode.OutboundRoutes, inputs, func() (proto.Message, []encode.Problem, error) {
		rc, problems := encode.Routes(in.index, f)
		return rc, problems, encode.Validate(rc)
	}}}
}
