// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

func namedCluster(host string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: "named", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}, ConnectTimeout: durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "named", Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80},
				}}},
			}}}},
		}}},
	}
}

// What names a cluster of DNS is held until its names were looked up; a change of names
// waits likewise, and what was found for others is dropped.
func TestDNSClustersWaitForWhatIsFound(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	p := good("ads", "7")
	p[resourcev3.ClusterType] = append(p[resourcev3.ClusterType], namedCluster("x.test"))
	s.Set(t, nodeID, snapshot(t, "7", p))
	lookUp := make(chan []*resource.Cluster, 10)
	c := start(t, bootstrapFor(t, "ads", s), settings{lookUp: func(list []*resource.Cluster) { lookUp <- list }})
	wanted := func(n int) []*resource.Cluster {
		t.Helper()
		for {
			select {
			case list := <-lookUp:
				if len(list) == n {
					return list
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%d clusters were never to be looked up", n)
			}
		}
	}
	found := func(cl *resource.Cluster, ip string) map[string]*resource.Assignment {
		return map[string]*resource.Assignment{cl.DNS.Key: {Cluster: cl.Name, Localities: []resource.Locality{{
			Endpoints: []resource.Endpoint{{Address: resource.Address{Host: ip, Port: 80}, Hostname: "x.test", Weight: 1}},
		}}}}
	}
	first := wanted(1)[0]
	s.Wait(t, "acceptance of routes", func(e xdstest.Exchange) bool {
		return e.Request && e.Type == resourcev3.RouteType && e.Version == "7"
	})
	if c.client.Status().Held == 0 || len(c.snapshots()) > 0 {
		t.Errorf("%d resources are held, %d snapshots", c.client.Status().Held, len(c.snapshots()))
	}
	c.client.Assign(found(first, "10.0.0.1"))
	at := func(ip string) func(s *resource.Snapshot) bool {
		return func(s *resource.Snapshot) bool {
			a := s.Assignments["named"]
			return a != nil && len(a.Localities) == 1 && a.Localities[0].Endpoints[0].Address.Host == ip
		}
	}
	c.wait(t, "the endpoints that were found", at("10.0.0.1"))
	if text, err := c.client.Dump(true); err != nil || !bytes.Contains(text, []byte("10.0.0.1")) || !bytes.Contains(text, []byte("x.test")) {
		t.Errorf("the dump does not show what was found (%v)", err)
	}

	p[resourcev3.ClusterType][2] = namedCluster("y.test")
	s.Set(t, nodeID, snapshot(t, "8", p))
	both := wanted(2) // the one in use, and the one that waits
	second := both[0]
	if second.DNS.Key == first.DNS.Key {
		second = both[1]
	}
	c.client.Assign(found(first, "10.0.0.2"))
	c.wait(t, "what the name in use leads to", at("10.0.0.2"))
	c.client.Assign(found(second, "10.0.0.3"))
	c.wait(t, "what the new name leads to", at("10.0.0.3"))
	if left := wanted(1)[0]; left.DNS.Key != second.DNS.Key {
		t.Errorf("%q is looked up still", left.DNS.Key)
	}
	c.client.Assign(found(first, "10.0.0.4")) // nobody wants it
	p[resourcev3.ClusterType] = p[resourcev3.ClusterType][:2]
	s.Set(t, nodeID, snapshot(t, "9", p))
	wanted(0)
}
