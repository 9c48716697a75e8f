// SPDX-License-Identifier: Apache-2.0

package client

import (
	"maps"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Assign brings endpoints that were looked up, by DNSLookup.Key. What needs them has
// been held until then. They must not change any more. Any goroutine may call it at
// any time, but not from Publish or LookUp.
func (c *Client) Assign(found map[string]*resource.Assignment) {
	c.mu.Lock()
	for key, a := range found {
		if c.lookedUp[key] == nil {
			continue // nobody wants it any more
		}
		c.store.put(&entry{
			kind: decode.Endpoints, name: key, updated: time.Now(), static: true,
			res: &decode.Resource{Kind: decode.Endpoints, Name: key, Value: a},
		})
	}
	c.mu.Unlock()
	select {
	case c.given <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// lookUp tells of the clusters with names, and drops what was found for others.
func (c *Client) lookUp() {
	if c.cfg.LookUp == nil {
		return
	}
	wanted := map[string]*resource.Cluster{}
	for _, set := range []map[string]*entry{c.store.latest[decode.Cluster], c.asm.active[decode.Cluster]} {
		for _, e := range set {
			if cl := e.res.Value.(*resource.Cluster); cl.IsDNS() {
				wanted[cl.DNS.Key] = cl
			}
		}
	}
	for key := range c.lookedUp {
		if wanted[key] == nil {
			c.store.drop(decode.Endpoints, key)
		}
	}
	if maps.EqualFunc(wanted, c.lookedUp, func(a, b *resource.Cluster) bool { return a.DNS.Key == b.DNS.Key }) {
		return
	}
	c.lookedUp = wanted
	c.cfg.LookUp(slices.SortedFunc(maps.Values(wanted), func(a, b *resource.Cluster) int { return strings.Compare(a.DNS.Key, b.DNS.Key) }))
}

// foundByDNS shows the endpoints in use that were looked up, in the order of their keys.
func foundByDNS(all map[string]*entry) (out []*adminv3.EndpointsConfigDump_StaticEndpointConfig) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if e := all[name]; e.static {
			out = append(out, &adminv3.EndpointsConfigDump_StaticEndpointConfig{
				EndpointConfig: foundEndpoints(e), LastUpdated: timestamppb.New(e.updated),
			})
		}
	}
	return out
}

// foundEndpoints shows endpoints that were looked up as a resource of EDS would.
func foundEndpoints(e *entry) *anypb.Any {
	a := e.res.Value.(*resource.Assignment)
	m := &endpointv3.ClusterLoadAssignment{ClusterName: a.Cluster}
	for _, l := range a.Localities {
		out := &endpointv3.LocalityLbEndpoints{Priority: l.Priority}
		for i := range l.Endpoints {
			ep := &l.Endpoints[i]
			out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{
				LoadBalancingWeight: wrapperspb.UInt32(ep.Weight),
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
					Hostname: ep.Hostname,
					Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
						Address: ep.Address.Host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ep.Address.Port)},
					}}},
				}},
			})
		}
		m.Endpoints = append(m.Endpoints, out)
	}
	return static(m)
}
