// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Assignment is the endpoints of a service's cluster. Every locality has a
// name, even if an empty one, a weight of at least 1, and priority 0: gRPC
// ignores localities without weight and refuses those without a name.
// Instances must be sorted by ID. http2: the service is declared to speak HTTP/2, so
// that its instances are spoken to by what their callers use; see followsCaller. checked:
// its policy has a health check. labels are the keys by which instances are divided.
func Assignment(service string, instances []*mesh.Instance, labels []string, http2, checked bool) (*endpointv3.ClusterLoadAssignment, error) {
	type place struct{ region, zone string }
	byPlace := map[place]*endpointv3.LocalityLbEndpoints{}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: OutboundCluster(service)}
	for _, in := range distinct(instances) {
		p := place{in.Region, in.Zone}
		l := byPlace[p]
		if l == nil {
			l = &endpointv3.LocalityLbEndpoints{
				Locality:            &corev3.Locality{Region: p.region, Zone: p.zone},
				LoadBalancingWeight: u32(0),
			}
			byPlace[p] = l
			out.Endpoints = append(out.Endpoints, l)
		}
		weight := in.EffectiveWeight()
		if l.LoadBalancingWeight.Value > math.MaxUint32-weight {
			return nil, fmt.Errorf("endpoints of service %q: weights add up to more than %d", service, uint32(math.MaxUint32))
		}
		l.LoadBalancingWeight.Value += weight
		e := lbEndpoint(in, weight, http2 || followsCaller(in))
		label(e, in, labels)
		if checked {
			checkedBySidecar(e, in)
		}
		l.LbEndpoints = append(l.LbEndpoints, e)
	}
	slices.SortFunc(out.Endpoints, func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.Locality.Region, b.Locality.Region), cmp.Compare(a.Locality.Zone, b.Locality.Zone))
	})
	if err := Validate(out); err != nil {
		return nil, fmt.Errorf("endpoints of service %q: %w", service, err)
	}
	return out, nil
}

// distinct leaves out instances whose address another one has: clients refuse
// an assignment that names an address twice. One with an identity stays before one
// without, which must not turn the address into one that is spoken to in the clear;
// of two alike the newest registration stays: the other is what a process left that
// went without a goodbye, until its lease ends.
func distinct(instances []*mesh.Instance) []*mesh.Instance {
	kept := make(map[netip.AddrPort]*mesh.Instance, len(instances))
	for _, in := range instances {
		at := addressOf(in)
		if old := kept[at]; old == nil || goesBefore(in, old) {
			kept[at] = in
		}
	}
	if len(kept) == len(instances) {
		return instances
	}
	out := make([]*mesh.Instance, 0, len(kept))
	for _, in := range instances {
		if kept[addressOf(in)] == in {
			out = append(out, in)
		}
	}
	return out
}

func goesBefore(a, b *mesh.Instance) bool {
	if a.MutualTLS != b.MutualTLS {
		return a.MutualTLS
	}
	return a.Revision >= b.Revision
}

// addressOf is the zero address for one that does not parse, which validation
// refuses by name.
func addressOf(in *mesh.Instance) netip.AddrPort {
	a, err := netip.ParseAddr(in.Address)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), in.Port)
}

// followsCaller reports whether an instance takes any request by the protocol of its
// caller: a sidecar does, and what has registered as a server of HTTP/2. Any other may
// know HTTP/1.1 alone, as most servers in the clear do.
func followsCaller(in *mesh.Instance) bool {
	return in.Node != "" || in.MutualTLS || mesh.SpeaksHTTP2(in.Protocol)
}

func lbEndpoint(in *mesh.Instance, weight uint32, follows bool) *endpointv3.LbEndpoint {
	about := map[string]*structpb.Value{"instance": structpb.NewStringValue(in.ID)}
	if in.Version != "" {
		about["version"] = structpb.NewStringValue(in.Version)
	}
	if !follows {
		about[http2Key] = structpb.NewStringValue(http2Calls)
	}
	e := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress(in.Address, uint32(in.Port)),
		}},
		HealthStatus:        healthOf(in.Health),
		LoadBalancingWeight: u32(weight),
		Metadata:            &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{MetadataNamespace: {Fields: about}}},
	}
	if in.MutualTLS {
		markMutualTLS(e)
	}
	return e
}

func healthOf(h mesh.Health) corev3.HealthStatus {
	switch h {
	case mesh.HealthHealthy:
		return corev3.HealthStatus_HEALTHY
	case mesh.HealthUnhealthy:
		return corev3.HealthStatus_UNHEALTHY
	case mesh.HealthDraining:
		return corev3.HealthStatus_DRAINING
	}
	return corev3.HealthStatus_UNKNOWN
}
