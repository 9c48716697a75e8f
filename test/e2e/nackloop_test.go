// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestAClientThatRefusesEverythingIsGivenAllTheLess lets a client refuse every
// response at once, while routes change ten times a second.
func TestAClientThatRefusesEverythingIsGivenAllTheLess(t *testing.T) {
	t.Parallel()
	long := 11 * time.Second
	if testing.Short() {
		long = 6 * time.Second
	}
	m := mesh.New(t)
	cp := m.ControlPlane
	cp.PutYAML("HTTPRoute", orders, route(0))
	conn, err := grpc.NewClient(cp.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written any more
	ctx, cancel := context.WithCancel(t.Context())
	ads := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	clients := map[string]*refuser{"world": refuseWorld(t, ctx, ads), "delta": refuseDelta(t, ctx, ads)}
	defer func() {
		cancel()
		for _, c := range clients {
			<-c.done
		}
	}()
	for name, c := range clients {
		mesh.Await(t, 10*time.Second, "a first response to "+name, func() error {
			if c.responses.Load() == 0 {
				return fmt.Errorf("none")
			}
			return nil
		})
	}
	// First nothing changes: a refusal alone must not bring the same again.
	share := cp.CPUShare(3 * time.Second)
	if share >= 0.05 {
		t.Errorf("the control plane uses %.1f %% of a core", 100*share)
	}
	for name, c := range clients {
		if n := c.responses.Load(); n > 2 {
			t.Errorf("%s: %d responses in three seconds without a change", name, n)
		}
		c.responses.Store(0)
	}
	began, changes := time.Now(), 0
	for ticker := time.NewTicker(100 * time.Millisecond); time.Since(began) < long; <-ticker.C {
		changes++
		cp.PutYAML("HTTPRoute", orders, route(changes))
	}
	// One response in five seconds, and one more for where the time begins.
	most := int64(long/(5*time.Second)) + 1
	var got []int64
	for name, c := range clients {
		n := c.responses.Load()
		got = append(got, n)
		if n > most {
			t.Errorf("%s: %d responses in %v, at most %d are wanted", name, n, long, most)
		}
	}
	for _, node := range []string{"refuser-world", "refuser-delta"} {
		s, err := cp.Sidecar(node)
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Of("RouteConfiguration").Rejected; len(r) == 0 || r[0].Reason != reason {
			t.Errorf("%s: the refusal is not shown: %+v", node, s)
		}
	}
	mesh.Conformance(t, "C5", "two clients that refuse everything: %v responses in %v with %d changes; %.1f %% of a core while nothing changes",
		got, long, changes, 100*share)
}

const reason = "I like none of it"

// refuser is a client that refuses each response as soon as it comes.
type refuser struct {
	responses atomic.Int64
	done      chan struct{}
}

func refuserNode(t *testing.T, id string) *corev3.Node {
	t.Helper()
	metadata, err := structpb.NewStruct(map[string]any{"service": "web", "outbound": "127.0.0.1:15001", "outboundPolicy": "registry-only"})
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Node{
		Id: id, Cluster: "web", Metadata: metadata, UserAgentName: "outrigger-sidecar",
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "test"},
	}
}

func refuseWorld(t *testing.T, ctx context.Context, ads discoveryv3.AggregatedDiscoveryServiceClient) *refuser {
	t.Helper()
	stream, err := ads.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := &discoveryv3.DiscoveryRequest{Node: refuserNode(t, "refuser-world"), TypeUrl: resourcev3.RouteType, ResourceNames: []string{"outbound"}}
	return refuse(t, stream, ask, func(a *discoveryv3.DiscoveryResponse) *discoveryv3.DiscoveryRequest {
		return &discoveryv3.DiscoveryRequest{TypeUrl: a.GetTypeUrl(), ResourceNames: ask.GetResourceNames(), ResponseNonce: a.GetNonce(), ErrorDetail: refusal()}
	})
}

func refuseDelta(t *testing.T, ctx context.Context, ads discoveryv3.AggregatedDiscoveryServiceClient) *refuser {
	t.Helper()
	stream, err := ads.DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := &discoveryv3.DeltaDiscoveryRequest{Node: refuserNode(t, "refuser-delta"), TypeUrl: resourcev3.RouteType, ResourceNamesSubscribe: []string{"outbound"}}
	return refuse(t, stream, ask, func(a *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
		return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.GetTypeUrl(), ResponseNonce: a.GetNonce(), ErrorDetail: refusal()}
	})
}

func refusal() *status.Status { return &status.Status{Code: 3, Message: reason} }

// refuse asks, and answers each response with what no makes of it, until the stream
// ends with its context.
func refuse[Ask, Answer any](t *testing.T, stream grpc.BidiStreamingClient[Ask, Answer], ask *Ask, no func(*Answer) *Ask) *refuser {
	t.Helper()
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	r := &refuser{done: make(chan struct{})}
	go func() { // ends with the stream's context
		defer close(r.done)
		for {
			a, err := stream.Recv()
			if err != nil {
				return
			}
			r.responses.Add(1)
			if stream.Send(no(a)) != nil {
				return
			}
		}
	}()
	return r
}
