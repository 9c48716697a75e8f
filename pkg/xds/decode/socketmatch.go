// SPDX-License-Identifier: Apache-2.0

package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxSocketMatches bounds what is compared for each connection that is dialled.
const maxSocketMatches = 64

// socketMatches reads transport_socket_matches.
func (j *job) socketMatches(list []*clusterv3.Cluster_TransportSocketMatch, c *resource.Cluster, p *place) {
	if len(list) == 0 {
		return
	}
	j.only(len(list) > maxSocketMatches, p.field("transport_socket_matches"), "has more than 64 entries")
	j.only(c.ProxyProtocol != 0, p.field("transport_socket_matches"), "must not be set together with a transport_socket of the PROXY protocol")
	for i, m := range list {
		at := p.item("transport_socket_matches", i)
		s := resource.SocketMatch{Name: m.GetName()}
		for key, v := range m.GetMatch().GetFields() {
			text, ok := v.GetKind().(*structpb.Value_StringValue)
			if !ok {
				j.fail(at.entry("match", key), "only strings are supported by this version")
				continue
			}
			if s.Match == nil {
				s.Match = map[string]string{}
			}
			s.Match[j.intern(key)] = j.intern(text.StringValue)
		}
		s.TLS = j.upstreamTLS(m.GetTransportSocket(), at.field("transport_socket"))
		c.SocketMatches = append(c.SocketMatches, s)
	}
}
