// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultOverprovisioning = 140
	maxPriority             = 128
	// maxTotalWeight is Envoy's bound of the sum of weights of a locality.
	maxTotalWeight = 1<<32 - 1
)

// oneLocality is an assignment of one locality, which nearly all are, in one
// allocation.
type oneLocality struct {
	resource.Assignment
	locality [1]resource.Locality
}

func (j *job) assignment(m *endpointv3.ClusterLoadAssignment, p *place) *resource.Assignment {
	one := new(oneLocality)
	a := &one.Assignment
	*a = resource.Assignment{
		Cluster:          j.intern(m.GetClusterName()),
		Overprovisioning: uint32Or(m.GetPolicy().GetOverprovisioningFactor(), defaultOverprovisioning),
		WeightedPriority: m.GetPolicy().GetWeightedPriorityHealth(),
	}
	for i, d := range m.GetPolicy().GetDropOverloads() {
		at := p.field("policy").item("drop_overloads", i)
		pm, _ := j.perMillion(d.GetDropPercentage(), at.field("drop_percentage"))
		a.DropPerMillion = min(a.DropPerMillion+pm, 1_000_000)
		if a.DropCategory == "" {
			a.DropCategory = d.GetCategory()
		}
	}
	seen := make(map[resource.Address]bool, 8*len(m.GetEndpoints()))
	used := map[uint32]bool{}
	switch n := len(m.GetEndpoints()); n {
	case 0:
	case 1:
		a.Localities = one.locality[:0]
	default:
		a.Localities = make([]resource.Locality, 0, n)
	}
	for i, l := range m.GetEndpoints() {
		at := p.item("endpoints", i)
		used[l.GetPriority()] = true
		a.Localities = append(a.Localities, j.locality(l, seen, at))
	}
	for n := uint32(0); n < uint32(len(used)); n++ {
		if !used[n] {
			j.fail(p.field("endpoints"), "priorities must be contiguous from 0: there is none of priority %d", n)
			break
		}
	}
	return a
}

func (j *job) locality(l *endpointv3.LocalityLbEndpoints, seen map[resource.Address]bool, p *place) resource.Locality {
	out := resource.Locality{
		Region: j.intern(l.GetLocality().GetRegion()), Zone: j.intern(l.GetLocality().GetZone()), SubZone: j.intern(l.GetLocality().GetSubZone()),
		Priority: l.GetPriority(), Weight: l.GetLoadBalancingWeight().GetValue(),
		Endpoints: make([]resource.Endpoint, 0, len(l.GetLbEndpoints())),
	}
	j.only(out.Priority > maxPriority, p.field("priority"), "must be at most 128")
	total := uint64(0)
	for i, e := range l.GetLbEndpoints() {
		at := p.item("lb_endpoints", i)
		ep := j.endpoint(e, at)
		if seen[ep.Address] && ep.Address != (resource.Address{}) {
			j.fail(at.field("endpoint").field("address"), "is listed twice")
		}
		seen[ep.Address] = true
		total += uint64(ep.Weight)
		out.Endpoints = append(out.Endpoints, ep)
	}
	j.only(total > maxTotalWeight, p, "the weights of its endpoints add up to more than 4294967295")
	joinHosts(out.Endpoints)
	return out
}

// joinHosts puts the addresses' texts into one allocation.
func joinHosts(list []resource.Endpoint) {
	var b strings.Builder
	n := 0
	for i := range list {
		n += len(list[i].Address.Host)
	}
	b.Grow(n)
	for i := range list {
		b.WriteString(list[i].Address.Host)
	}
	rest := b.String()
	for i := range list {
		host := &list[i].Address.Host
		*host, rest = rest[:len(*host)], rest[len(*host):]
	}
}

func (j *job) endpoint(e *endpointv3.LbEndpoint, p *place) resource.Endpoint {
	ep := e.GetEndpoint()
	if ep == nil {
		j.fail(p.field("endpoint"), "is missing")
		return resource.Endpoint{}
	}
	out := resource.Endpoint{
		Address:     j.address(ep.GetAddress(), p.field("endpoint").field("address")),
		Hostname:    ep.GetHostname(),
		Weight:      uint32Or(e.GetLoadBalancingWeight(), 1),
		Metadata:    j.metadata(e.GetMetadata()),
		Health:      health(e.GetHealthStatus()),
		OtherLabels: otherLabels(e.GetMetadata().GetFilterMetadata()[resource.LBNamespace].GetFields()),
		Canary:      e.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["canary"].GetBoolValue(),
		Check:       j.endpointCheck(ep.GetHealthCheckConfig(), p.field("endpoint").field("health_check_config")),
	}
	if own := e.GetMetadata().GetFilterMetadata()[ownMetadata].GetFields()["http2"]; own != nil {
		out.HTTP2Calls = true
		j.only(own.GetStringValue() != http2Calls, p.field("metadata").entry("filter_metadata", ownMetadata).field("http2"), wantHTTP2Calls)
	}
	if out.Address.Path == "" && out.Address.Port == 0 && out.Address.Host != "" {
		j.fail(p.field("endpoint").field("address").field("socket_address").field("port_value"), "must not be 0")
	}
	return out
}

func health(h corev3.HealthStatus) resource.HealthStatus {
	switch h {
	case corev3.HealthStatus_HEALTHY:
		return resource.Healthy
	case corev3.HealthStatus_UNHEALTHY:
		return resource.Unhealthy
	case corev3.HealthStatus_DRAINING:
		return resource.Draining
	case corev3.HealthStatus_TIMEOUT:
		return resource.HealthTimeout
	case corev3.HealthStatus_DEGRADED:
		return resource.Degraded
	}
	return resource.HealthUnknown
}
