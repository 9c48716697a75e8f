// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	manyClusters  = 2000
	endpointsEach = 10
)

// What clusters take once they are in service, whatever brought them: memory
// that decoding left behind in them (messages, their buffers) would show.
func TestClustersInServiceTakeLittleMemory(t *testing.T) {
	for name, c := range map[string]struct {
		load  func(t *testing.T) (*resource.Snapshot, any)
		limit int64 // bytes of a cluster with ten endpoints
	}{
		"static":   {staticSnapshot, 4400},
		"from xDS": {xdsSnapshot, 4450},
	} {
		t.Run(name, func(t *testing.T) {
			c.load(t) // descriptors and tables of types are made once
			p, err := proxy.New(proxy.Options{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			before := liveBytes()
			s, kept := c.load(t)
			if err := p.Apply(s); err != nil {
				t.Fatal(err)
			}
			each := (liveBytes() - before) / manyClusters
			runtime.KeepAlive(kept)
			runtime.KeepAlive(p)
			t.Logf("%d bytes per cluster", each)
			if each > c.limit || each < 1000 {
				t.Errorf("%d bytes per cluster of %d endpoints, want 1000 to %d", each, endpointsEach, c.limit)
			}
		})
	}
}

func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // what pools hold is free only now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func endpointAddress(cluster, endpoint int) string {
	n := cluster*endpointsEach + endpoint
	return fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)
}

func newSnapshot() *resource.Snapshot {
	return &resource.Snapshot{Version: 1, Clusters: map[string]*resource.Cluster{}, Assignments: map[string]*resource.Assignment{}}
}

// staticSnapshot reads a bootstrap of static clusters, as the process does.
func staticSnapshot(t *testing.T) (*resource.Snapshot, any) {
	var text strings.Builder
	text.WriteString(`{"static_resources":{"clusters":[`)
	for i := range manyClusters {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"name":"c-%05d","connect_timeout":"1s","load_assignment":{"cluster_name":"c-%05d","endpoints":[{"lb_endpoints":[`, i, i)
		for k := range endpointsEach {
			if k > 0 {
				text.WriteByte(',')
			}
			fmt.Fprintf(&text, `{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":8080}}}}`, endpointAddress(i, k))
		}
		text.WriteString(`]}]}}`)
	}
	text.WriteString(`]}}`)
	boot, err := decode.Bootstrap([]byte(text.String()), "test.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshot()
	for _, r := range boot.Clusters {
		s.Clusters[r.Name] = r.Value.(*resource.Cluster)
	}
	return s, boot
}

// xdsSnapshot decodes clusters and their endpoints as a stream brings them.
func xdsSnapshot(t *testing.T) (*resource.Snapshot, any) {
	d := decode.NewDecoder(nil)
	s := newSnapshot()
	kept := make([]*decode.Resource, 0, 2*manyClusters)
	add := func(kind decode.Kind, a *anypb.Any, err error) any {
		if err != nil {
			t.Fatal(err)
		}
		r, err := d.Decode(kind, "", a)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, r)
		return r.Value
	}
	for i := range manyClusters {
		name := fmt.Sprintf("c-%05d", i)
		c, err := anypb.New(&clusterv3.Cluster{
			Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
				ResourceApiVersion:    corev3.ApiVersion_V3,
			}},
		})
		s.Clusters[name] = add(decode.Cluster, c, err).(*resource.Cluster)
		list := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Region: "eu-west-1", Zone: "eu-west-1a"}}
		for k := range endpointsEach {
			list.LbEndpoints = append(list.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: endpointAddress(i, k), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 8080},
				}}}},
			}})
		}
		e, err := anypb.New(&endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{list}})
		s.Assignments[name] = add(decode.Endpoints, e, err).(*resource.Assignment)
	}
	return s, kept
}
