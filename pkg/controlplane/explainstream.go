// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// stream follows a connection: tcp://SERVICE:PORT, or tls://NAME:PORT where NAME is the
// server name that the client asks for.
func (x *Explanation) stream(index *encode.Index, tls handshake, q Query) {
	name := strings.ToLower(q.URL.Hostname())
	service := strings.TrimSuffix(name, "."+encode.MeshDomain)
	port, err := strconv.ParseUint(q.URL.Port(), 10, 16)
	if err != nil {
		x.end(ResultNotFound, "nowhere: a connection needs a port, such as %s://%s:5432", q.URL.Scheme, name)
		return
	}
	st, why, d := encode.Stream{}, "", encode.Destination{}
	if s, ok := index.Stream(service, uint16(port)); ok {
		st, d, why = s, s.Other, "the service lists the port with protocol "+s.Protocol
	}
	if q.URL.Scheme == mesh.ProtocolTLS && why == "" {
		st, why, d = byServerName(index, name, uint16(port))
	}
	if why == "" {
		x.end(ResultNotFound, "nowhere: no service %q lists port %d with protocol tcp or tls, and no TLSRoute has that name there", service, port)
		return
	}
	x.step("filter chain", st.Service+":"+strconv.Itoa(int(st.Port)), why, d.Route)
	hit := encode.Hit{}
	total := 0.0
	for _, b := range d.Backends {
		total += float64(b.Weight)
	}
	for _, b := range d.Backends {
		hit.Clusters = append(hit.Clusters, encode.Share{Cluster: encode.OutboundCluster(b.Service), Percent: 100 * float64(b.Weight) / total})
	}
	x.clusters(index, tls, "", hit)
}

// byServerName finds what a TLSRoute says of a name: exactly, or by the longest wildcard.
func byServerName(index *encode.Index, name string, port uint16) (st encode.Stream, why string, d encode.Destination) {
	best := -1
	for _, s := range index.Streams() {
		if s.Port != port {
			continue
		}
		for _, n := range s.Named {
			for _, h := range n.ServerNames {
				rank := -1
				if suffix, wild := strings.CutPrefix(h, "*"); wild && strings.HasSuffix(name, suffix) {
					rank = len(suffix)
				} else if h == name {
					rank = 1 << 16
				}
				if rank > best {
					best, st, d, why = rank, s, n.Destination, "the server name "+name+" is "+h
				}
			}
		}
	}
	return st, why, d
}
