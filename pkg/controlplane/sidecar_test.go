// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	filters "github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// sidecar is the xDS client of our own sidecar; it keeps the newest snapshot.
type sidecar struct {
	client *client.Client
	mu     sync.Mutex
	newest *resource.Snapshot
}

func (s *sidecar) snapshot() *resource.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

func startSidecar(t *testing.T, xds, api string) *sidecar {
	t.Helper()
	host, port, err := net.SplitHostPort(xds)
	if err != nil {
		t.Fatal(err)
	}
	registry := filter.NewRegistry(filters.Specs(nil)...)
	b, err := decode.Bootstrap(fmt.Appendf(nil, `
node:
  id: orders~1
  cluster: orders
  metadata: {service: orders, inbound: "127.0.0.1:15006", outbound: "127.0.0.1:15001", app: "127.0.0.1:8080", outboundPolicy: registry-only}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - {name: xds, type: STATIC, connect_timeout: 1s, http2_protocol_options: {}, load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}}
`, api, host, port), "bootstrap.yaml", registry)
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{}
	s.client, err = client.New(client.Config{
		Bootstrap: b, Registry: registry, Version: "test",
		Dial: func(context.Context, client.Target) (*grpc.ClientConn, error) {
			return grpc.NewClient(xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		Publish: func(n *resource.Snapshot) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.newest = n
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("client: %v", err)
		}
	})
	return s
}

func TestOurOwnSidecarFollowsTheMesh(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			s := newState()
			s.apply(instance("orders", "a", anywhere), instance("payments", "p", anywhere))
			p := startPlane(t, s, controlplane.Config{})
			own := startSidecar(t, p.addr, api)
			wait := func(what string, ok func(*resource.Snapshot) bool) {
				t.Helper()
				began := time.Now()
				defer func() {
					if t.Failed() {
						n, _ := p.Server().NodeStatus("orders~1")
						t.Logf("server: %+v", n.Types)
						t.Logf("client: %+v", own.client.Status())
					}
				}()
				eventually(t, what, func() bool { n := own.snapshot(); return n != nil && ok(n) })
				t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
			}
			endpoints := func(n *resource.Snapshot, cluster string) int {
				total := 0
				if a := n.Assignments[cluster]; a != nil {
					for _, l := range a.Localities {
						total += len(l.Endpoints)
					}
				}
				return total
			}
			wait("a complete snapshot", func(n *resource.Snapshot) bool {
				return len(n.Listeners) == 2 && len(n.Routes) == 1 && len(n.Clusters) >= 3 && endpoints(n, "outbound|payments") == 1
			})
			s.apply(instance("payments", "q", netip.MustParseAddrPort("10.0.0.2:80")))
			wait("an endpoint change", func(n *resource.Snapshot) bool { return endpoints(n, "outbound|payments") == 2 })
			s.apply(instance("stock", "s", anywhere))
			wait("a new service", func(n *resource.Snapshot) bool { return endpoints(n, "outbound|stock") == 1 })
			s.put(t, explained)
			wait("a route", func(n *resource.Snapshot) bool {
				for _, v := range n.Routes["outbound"].VirtualHosts {
					if v.Name == "payments" {
						return len(v.Routes) == 5
					}
				}
				return false
			})
			s.put(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: payments}, spec: {targetRef: {kind: Service, name: payments}, circuitBreaker: {errorThresholdPercent: 7}}}`)
			wait("a policy", func(n *resource.Snapshot) bool {
				c := n.Clusters["outbound|payments"]
				return c != nil && c.Breaker != nil && c.Breaker.ErrorThresholdPercent == 7
			})
			s.put(t, strings.ReplaceAll(`{apiVersion: outrigger.io/v1, kind: Tap, metadata: {name: t}, spec: {targetRef: {kind: Service, name: orders}}}`, "\n", ""))
			wait("a tap", func(n *resource.Snapshot) bool {
				l := n.Listeners["inbound"]
				return l != nil && len(l.FilterChains) == 1 && len(l.FilterChains[0].HTTP.Filters) == 2
			})
			s.apply(mesh.Change{DeleteInstance: mesh.InstanceKey{Service: "stock", ID: "s"}}, mesh.Change{DropService: "stock"})
			wait("a service that goes", func(n *resource.Snapshot) bool { return n.Clusters["outbound|stock"] == nil })
			eventually(t, "the control plane knows that all is accepted", func() bool {
				n, _ := p.Server().NodeStatus("orders~1")
				return n.Synced()
			})
		})
	}
}
