// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// userAgent is how the sidecar calls itself to management servers.
const userAgent = "outrigger-sidecar"

// features are the client features of xDS that are supported.
var features = []string{"xds.config.resource-in-sotw"}

// nodeProto makes the node that goes with requests.
func nodeProto(n decode.Node, version string, extensions []Extension) (*corev3.Node, error) {
	out := &corev3.Node{
		Id: n.ID, Cluster: n.Cluster, UserAgentName: userAgent, ClientFeatures: features,
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version},
	}
	if n.Region != "" || n.Zone != "" || n.SubZone != "" {
		out.Locality = &corev3.Locality{Region: n.Region, Zone: n.Zone, SubZone: n.SubZone}
	}
	if n.Metadata != nil {
		s, err := structpb.NewStruct(n.Metadata)
		if err != nil {
			return nil, fmt.Errorf("node metadata: %w", err)
		}
		out.Metadata = s
	}
	for _, e := range extensions {
		out.Extensions = append(out.Extensions, &corev3.Extension{Name: e.Name, Category: e.Category, TypeUrls: []string{e.TypeURL}})
	}
	return out, nil
}

// Extension is one that the node announces.
type Extension struct{ Name, Category, TypeURL string }
