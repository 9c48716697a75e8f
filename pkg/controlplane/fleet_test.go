// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// simulated is a sidecar as the control plane sees it: one delta ADS stream,
// wildcard clusters and listeners, endpoints and routes by name, every response
// acknowledged.
type simulated struct {
	st    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	ready chan struct{} // closed when it has clusters, listeners, endpoints and routes
	eds   chan edsSeen
}

type edsSeen struct {
	name      string
	endpoints int
	at        time.Time
}

func sidecarNode(service string, i int) *corev3.Node {
	meta, err := structpb.NewStruct(map[string]any{
		"service": service, "inbound": "0.0.0.0:15006", "outbound": "127.0.0.1:15001",
		"app": "127.0.0.1:8080", "outboundPolicy": "registry-only",
	})
	if err != nil {
		panic(err) // the literal above is a valid struct
	}
	return &corev3.Node{Id: fmt.Sprintf("%s~%d", service, i), Cluster: service, UserAgentName: "outrigger-sidecar", Metadata: meta}
}

func simulate(ctx context.Context, cc *grpc.ClientConn, node *corev3.Node) (*simulated, error) {
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	s := &simulated{st: st, ready: make(chan struct{}), eds: make(chan edsSeen, 16)}
	for i, typeURL := range []string{server.TypeCluster, server.TypeListener} {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"*"}}
		if i == 0 {
			r.Node = node
		}
		if err := st.Send(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// run receives until the stream ends.
func (s *simulated) run() error {
	got := map[string]int{}
	var want []string
	isReady := false
	for {
		m, err := s.st.Recv()
		if err != nil {
			return err
		}
		at := time.Now()
		if err := s.st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}); err != nil {
			return err
		}
		got[m.GetTypeUrl()] += len(m.GetResources())
		switch m.GetTypeUrl() {
		case server.TypeCluster:
			first := want == nil
			var names []string
			for _, r := range m.GetResources() {
				if r.GetName() != "inbound|"+"" && len(r.GetName()) > 9 && r.GetName()[:9] == "outbound|" {
					names = append(names, r.GetName())
				}
			}
			want = append(want, names...)
			if err := s.st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeEndpoint, ResourceNamesSubscribe: names}); err != nil {
				return err
			}
			if first {
				if err := s.st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeRoute, ResourceNamesSubscribe: []string{"outbound"}}); err != nil {
					return err
				}
			}
		case server.TypeEndpoint:
			if !isReady {
				break
			}
			for _, r := range m.GetResources() {
				a := &endpointv3.ClusterLoadAssignment{}
				if err := r.GetResource().UnmarshalTo(a); err != nil {
					return err
				}
				n := 0
				for _, l := range a.GetEndpoints() {
					n += len(l.GetLbEndpoints())
				}
				s.eds <- edsSeen{r.GetName(), n, at}
			}
		}
		if !isReady && len(want) > 0 && got[server.TypeEndpoint] >= len(want) && got[server.TypeListener] >= 2 && got[server.TypeRoute] >= 1 {
			isReady = true
			close(s.ready)
		}
	}
}

const (
	fleetServices  = 1000
	fleetInstances = 10
	fleetSidecars  = 200
)

// fleet starts a control plane with the mesh above and its simulated sidecars.
func fleet(t *testing.T) (*plane, []*simulated) {
	t.Helper()
	s := newState()
	var changes []mesh.Change
	for i := range fleetServices {
		for j := range fleetInstances {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j + 1)}), 8080)
			changes = append(changes, instance(fmt.Sprintf("service-%03d", i), fmt.Sprintf("i%02d", j), at))
		}
	}
	s.apply(changes...)
	p := startPlane(t, s, controlplane.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var conns []*grpc.ClientConn
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, cc := range conns {
			_ = cc.Close()
		}
	})
	var sidecars []*simulated
	for i := range fleetSidecars {
		cc, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, cc)
		x, err := simulate(ctx, cc, sidecarNode(fmt.Sprintf("service-%03d", i%fleetServices), i))
		if err != nil {
			t.Fatal(err)
		}
		sidecars = append(sidecars, x)
		running.Go(func() { _ = x.run() }) // it ends with the context
	}
	deadline := time.After(60 * time.Second)
	for i, x := range sidecars {
		select {
		case <-x.ready:
		case <-deadline:
			t.Fatalf("sidecar %d has no complete configuration: %+v", i, p.Server().Stats())
		}
	}
	return p, sidecars
}

func TestOneEndpointChangeReachesTheWholeFleetAndIsMarshalledOnce(t *testing.T) {
	began := time.Now()
	p, sidecars := fleet(t)
	t.Logf("%d sidecars have %d services × %d instances after %v", fleetSidecars, fleetServices, fleetInstances, time.Since(began).Round(time.Millisecond))
	eventually(t, "all is acknowledged", func() bool {
		return !slices.ContainsFunc(p.Server().Status(), func(n server.NodeStatus) bool { return !n.Synced() })
	})
	var worst []time.Duration
	for round := range 5 {
		name := fmt.Sprintf("service-%03d", 500+round)
		before := p.Server().Stats().Marshals
		changed := time.Now()
		p.state.apply(instance(name, "new", netip.MustParseAddrPort("10.9.9.9:8080")))
		var slowest time.Duration
		for i, x := range sidecars {
			select {
			case seen := <-x.eds:
				if seen.name != "outbound|"+name || seen.endpoints != fleetInstances+1 {
					t.Fatalf("sidecar %d: got %+v, want %d endpoints of %s", i, seen, fleetInstances+1, name)
				}
				slowest = max(slowest, seen.at.Sub(changed))
			case <-time.After(patience):
				t.Fatalf("sidecar %d did not get the change", i)
			}
		}
		if got := p.Server().Stats().Marshals - before; got != 1 {
			t.Errorf("round %d: got %d marshals, want 1", round, got)
		}
		worst = append(worst, slowest)
	}
	slices.Sort(worst)
	t.Logf("one endpoint change reached all %d sidecars after %v (median of %d rounds; best %v, worst %v); build took %v",
		fleetSidecars, worst[len(worst)/2].Round(time.Millisecond), len(worst), worst[0].Round(time.Millisecond),
		worst[len(worst)-1].Round(time.Millisecond), p.BuildStatus().Took)
}
