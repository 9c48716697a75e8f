// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 10 * time.Second       // for what must happen
	quiet    = 150 * time.Millisecond // for what must not
)

// fixture is a server behind a real gRPC listener.
type fixture struct {
	t   *testing.T
	xds *server.Server
	cc  *grpc.ClientConn
}

func start(t *testing.T, cfg server.Config) *fixture {
	t.Helper()
	if cfg.Groups == nil {
		cfg.Groups = func(server.Node, string) []string { return []string{"all"} }
	}
	xds, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.GRPCOptions()...)
	xds.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		g.Stop()
		xds.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &fixture{t, xds, cc}
}

func (f *fixture) resource(name string, m proto.Message) *server.Resource {
	f.t.Helper()
	r, err := f.xds.NewResource(name, m)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// cluster makes a cluster whose content depends on n.
func (f *fixture) cluster(name string, n int) *server.Resource {
	return f.resource(name, &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(n) * time.Second)})
}

func (f *fixture) endpoints(name string, n int) *server.Resource {
	return f.resource(name, &endpointv3.ClusterLoadAssignment{ClusterName: name, Policy: &endpointv3.ClusterLoadAssignment_Policy{
		EndpointStaleAfter: durationpb.New(time.Duration(n) * time.Second),
	}})
}

func (f *fixture) publish(updates ...server.Update) { f.xds.Publish("all", updates...) }

func changed(typeURL string, rs ...*server.Resource) server.Update {
	return server.Update{Type: typeURL, Changed: rs}
}

// deltaStream is the test's side of a delta stream. Responses come by channel
// so that their absence can be waited for.
type deltaStream struct {
	t  *testing.T
	st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in chan *discoveryv3.DeltaDiscoveryResponse
}

func (f *fixture) delta(id string) *deltaStream {
	f.t.Helper()
	d := f.stream()
	d.send(hello(id))
	return d
}

func hello(id string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id}, TypeUrl: "type.googleapis.com/unknown"}
}

// stream opens a stream on which nothing is said yet.
func (f *fixture) stream() *deltaStream {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).DeltaAggregatedResources(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	d := &deltaStream{f.t, st, make(chan *discoveryv3.DeltaDiscoveryResponse, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(d.in)
		for {
			m, err := st.Recv()
			if err != nil {
				return
			}
			d.in <- m
		}
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	return d
}

func (d *deltaStream) send(r *discoveryv3.DeltaDiscoveryRequest) {
	d.t.Helper()
	if err := d.st.Send(r); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deltaStream) subscribe(typeURL string, names ...string) {
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (d *deltaStream) ack(m *discoveryv3.DeltaDiscoveryResponse) {
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
}

func (d *deltaStream) nack(m *discoveryv3.DeltaDiscoveryResponse, why string) {
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), ErrorDetail: &statuspb.Status{Code: 3, Message: why}})
}

// want waits for a response with exactly these resources and removals ("-name").
func (d *deltaStream) want(typeURL string, items ...string) *discoveryv3.DeltaDiscoveryResponse {
	d.t.Helper()
	select {
	case m, ok := <-d.in:
		if !ok {
			d.t.Fatalf("stream ended, want %v", items)
		}
		var got []string
		for _, r := range m.GetResources() {
			got = append(got, r.GetName())
		}
		for _, name := range m.GetRemovedResources() {
			got = append(got, "-"+name)
		}
		if m.GetTypeUrl() != typeURL || !slices.Equal(got, items) {
			d.t.Fatalf("got %s %v, want %s %v", m.GetTypeUrl(), got, typeURL, items)
		}
		return m
	case <-time.After(patience):
		d.t.Fatalf("no response, want %s %v", typeURL, items)
	}
	return nil
}

func (d *deltaStream) wantNothing() {
	d.t.Helper()
	select {
	case m, ok := <-d.in:
		d.t.Fatalf("got %v (open: %v), want nothing", m, ok)
	case <-time.After(quiet):
	}
}

func (d *deltaStream) wantEnd() {
	d.t.Helper()
	select {
	case m, ok := <-d.in:
		if ok {
			d.t.Fatalf("got %v, want the stream to end", m)
		}
	case <-time.After(patience):
		d.t.Fatal("the stream did not end")
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		<-tick.C
	}
}

func TestAResourceIsMarshalledOnceForAllStreams(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1), f.cluster("b", 1)))
	var streams []*deltaStream
	for i := range 20 {
		d := f.delta(fmt.Sprint("n", i))
		d.subscribe(server.TypeCluster, "*")
		d.ack(d.want(server.TypeCluster, "a", "b"))
		streams = append(streams, d)
	}
	before := f.xds.Stats().Marshals
	f.publish(changed(server.TypeCluster, f.cluster("b", 2)))
	for _, d := range streams {
		d.want(server.TypeCluster, "b")
	}
	if got := f.xds.Stats().Marshals - before; got != 1 {
		t.Errorf("got %d marshals, want 1", got)
	}
}

func TestChangesBetweenResponseAndAckAreCoalescedToTheLatest(t *testing.T) {
	f := start(t, server.Config{RemovalGrace: -1})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	first := d.want(server.TypeCluster, "a")
	for i := 2; i < 10; i++ {
		f.publish(changed(server.TypeCluster, f.cluster("a", i), f.cluster("b", i)))
	}
	f.publish(server.Update{Type: server.TypeCluster, Removed: []string{"b"}})
	d.wantNothing()
	d.ack(first)
	last := d.want(server.TypeCluster, "a")
	if got, want := last.GetResources()[0].GetVersion(), f.xds.Resources("all", server.TypeCluster)[0].Version(); got != want {
		t.Errorf("got version %s, want the latest %s", got, want)
	}
}

func TestAnUnchangedResourceIsNotPushed(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	d.ack(d.want(server.TypeCluster, "a"))
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	d.wantNothing()
}

func TestAReconnectedDeltaClientGetsOnlyWhatItMisses(t *testing.T) {
	f := start(t, server.Config{})
	a, b := f.cluster("a", 1), f.cluster("b", 1)
	f.publish(changed(server.TypeCluster, a, b))
	d := f.delta("n")
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeCluster, ResourceNamesSubscribe: []string{"*"},
		InitialResourceVersions: map[string]string{"a": a.Version(), "b": "old", "gone": "old"}})
	d.want(server.TypeCluster, "b", "-gone")
}

func TestAnEmptyWildcardIsAnsweredAtOnce(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(server.Update{Type: server.TypeListener})
	d := f.delta("n")
	d.subscribe(server.TypeListener)
	d.want(server.TypeListener)
}

func TestAnUnknownNameIsSaidToBeAbsentAfterAGraceAndSentWhenItComes(t *testing.T) {
	f := start(t, server.Config{UnknownGrace: 50 * time.Millisecond})
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeEndpoint, "a", "b")
	d.ack(d.want(server.TypeEndpoint, "a"))
	d.ack(d.want(server.TypeEndpoint, "-b"))
	if got := f.typeStatus("n", server.TypeEndpoint).Missing; !slices.Equal(got, []string{"b"}) {
		t.Errorf("got missing %v, want [b]", got)
	}
	f.publish(changed(server.TypeEndpoint, f.endpoints("b", 1)))
	d.want(server.TypeEndpoint, "b")
}

func (f *fixture) typeStatus(node, typeURL string) server.TypeStatus {
	f.t.Helper()
	n, ok := f.xds.NodeStatus(node)
	if !ok {
		f.t.Fatalf("node %q is not known", node)
	}
	for _, x := range n.Types {
		if x.Type == typeURL {
			return x
		}
	}
	f.t.Fatalf("node %q has no subscription to %s", node, typeURL)
	return server.TypeStatus{}
}

func TestANameSubscribedAgainIsAnsweredAgain(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 1), f.endpoints("b", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeEndpoint, "a", "b")
	d.ack(d.want(server.TypeEndpoint, "a", "b"))
	d.subscribe(server.TypeEndpoint, "b")
	d.want(server.TypeEndpoint, "b")
}

func TestAnUnsubscribedNameIsNotPushed(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 1), f.endpoints("b", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeEndpoint, "a", "b")
	d.ack(d.want(server.TypeEndpoint, "a", "b"))
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeEndpoint, ResourceNamesUnsubscribe: []string{"a"}})
	d.wantNothing()
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 2)))
	d.wantNothing()
	f.publish(changed(server.TypeEndpoint, f.endpoints("b", 2)))
	d.want(server.TypeEndpoint, "b")
}

func TestTypesAreAnsweredInOrderAndRoutesWaitForClusters(t *testing.T) {
	f := start(t, server.Config{})
	route := func(n int) *server.Resource {
		return f.resource("r", &routev3.RouteConfiguration{Name: "r", InternalOnlyHeaders: []string{fmt.Sprint(n)}})
	}
	f.publish(changed(server.TypeRoute, route(1)), changed(server.TypeCluster, f.cluster("a", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	cds := d.want(server.TypeCluster, "a")
	d.subscribe(server.TypeRoute, "r")
	d.ack(d.want(server.TypeRoute, "r"))
	// The clusters' response is not acknowledged: new clusters cannot be sent,
	// so the routes that may name them are not.
	f.publish(changed(server.TypeCluster, f.cluster("b", 1)), changed(server.TypeRoute, route(2)))
	d.wantNothing()
	d.ack(cds)
	d.ack(d.want(server.TypeCluster, "b"))
	d.ack(d.want(server.TypeRoute, "r"))
	// Both at once: clusters come first.
	f.publish(changed(server.TypeRoute, route(3)), changed(server.TypeCluster, f.cluster("c", 1)))
	d.want(server.TypeCluster, "c")
	d.want(server.TypeRoute, "r")
}

func TestRemovedClustersLingerUntilRoutesAreGone(t *testing.T) {
	f := start(t, server.Config{RemovalGrace: 300 * time.Millisecond})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1), f.cluster("b", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	d.ack(d.want(server.TypeCluster, "a", "b"))
	removed := time.Now()
	f.publish(server.Update{Type: server.TypeCluster, Removed: []string{"a", "b"}})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1))) // it is back in time
	d.want(server.TypeCluster, "-b")
	if took := time.Since(removed); took < 300*time.Millisecond {
		t.Errorf("removed after %v, want at least the grace", took)
	}
}

func TestARefusedResourceIsShownAndHeldBackWhileOthersGoOn(t *testing.T) {
	const hold = 400 * time.Millisecond
	f := start(t, server.Config{RejectHold: hold})
	f.publish(changed(server.TypeCluster, f.cluster("good", 1), f.cluster("bad", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	sent := time.Now()
	d.nack(d.want(server.TypeCluster, "bad", "good"), `cluster "bad": lb_policy: no`)
	eventually(t, "the refusal is shown", func() bool {
		return f.typeStatus("n", server.TypeCluster).Rejected["bad"].Reason != ""
	})
	st := f.typeStatus("n", server.TypeCluster)
	if len(st.Rejected) != 1 || st.Nack == nil || !strings.Contains(st.Nack.Reason, "lb_policy: no") {
		t.Errorf("got %+v, want one rejected resource and the reason", st)
	}
	for i := 2; i < 6; i++ { // a hot loop of changes
		f.publish(changed(server.TypeCluster, f.cluster("bad", i)))
	}
	f.publish(changed(server.TypeCluster, f.cluster("good", 2)))
	d.ack(d.want(server.TypeCluster, "good"))
	m := d.want(server.TypeCluster, "bad")
	if took := time.Since(sent); took < hold {
		t.Errorf("the rejected resource came again after %v, want at least %v", took, hold)
	}
	d.ack(m)
	eventually(t, "the node is synced", func() bool {
		n, _ := f.xds.NodeStatus("n")
		return n.Synced()
	})
}

func TestALargeAnswerIsSplitByAcknowledgements(t *testing.T) {
	f := start(t, server.Config{ResponseBytes: 1000})
	var all []*server.Resource
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("c%02d-%s", i, strings.Repeat("x", 100))
		all = append(all, f.cluster(name, 1))
		want = append(want, name)
	}
	f.publish(changed(server.TypeCluster, all...))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	var got []string
	parts := 0
	for len(got) < len(want) {
		select {
		case m := <-d.in:
			for _, r := range m.GetResources() {
				got = append(got, r.GetName())
			}
			parts++
			d.ack(m)
		case <-time.After(patience):
			t.Fatalf("got %d of %d resources", len(got), len(want))
		}
	}
	if !slices.Equal(got, want) || parts < 5 {
		t.Errorf("got %d resources in %d parts, want %d in at least 5", len(got), parts, len(want))
	}
}

func TestAStreamWithoutNodeIDIsRefused(t *testing.T) {
	f := start(t, server.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); err == nil || !strings.Contains(err.Error(), "node.id") {
		t.Errorf("got %v, want an error that names node.id", err)
	}
}

func TestTooManyNamesAreRefused(t *testing.T) {
	f := start(t, server.Config{MaxNames: 2})
	d := f.delta("n")
	d.subscribe(server.TypeEndpoint, "a", "b", "c")
	d.wantEnd()
}

func TestUnknownTypesAreLeftUnanswered(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	d := f.delta("n") // its first request is for an unknown type
	for i := range 50 {
		d.subscribe(fmt.Sprint("type.googleapis.com/none", i), "*")
	}
	d.subscribe(server.TypeCluster, "*")
	d.want(server.TypeCluster, "a")
}

func TestNewStreamsAreAdmittedAtARate(t *testing.T) {
	f := start(t, server.Config{ConnectRate: 50, ConnectBurst: 1, MaxConnectWait: 70 * time.Millisecond})
	f.publish(server.Update{Type: server.TypeCluster})
	f.delta("first")
	eventually(t, "a stream is refused", func() bool {
		if err := f.stream().st.Send(hello("crowd")); err != nil && !errors.Is(err, io.EOF) { // refused before it has said that
			t.Fatal(err)
		}
		return f.xds.Stats().Refused > 0
	})
	eventually(t, "the crowd is in", func() bool { return f.xds.Stats().Streams >= 3 })
}

func TestANodeThatLeavesIsRememberedForAWhile(t *testing.T) {
	events := make(chan server.Event, 10)
	f := start(t, server.Config{OnEvent: func(e server.Event) { events <- e }})
	ctx, cancel := context.WithCancel(context.Background())
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: server.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Kind != server.EventConnected || e.Node != "n" {
		t.Errorf("got %+v, want that n connected", e)
	}
	cancel()
	if e := <-events; e.Kind != server.EventDisconnected {
		t.Errorf("got %+v, want that n left", e)
	}
	n, ok := f.xds.NodeStatus("n")
	if !ok || n.Connected || n.LeftAt.IsZero() {
		t.Errorf("got %+v %v, want a node that left", n, ok)
	}
}

func TestAChangedClusterIsFollowedByItsEndpoints(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1), f.cluster("b", 1)), changed(server.TypeEndpoint, f.endpoints("a", 1), f.endpoints("b", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	d.ack(d.want(server.TypeCluster, "a", "b"))
	d.subscribe(server.TypeEndpoint, "a", "b")
	d.ack(d.want(server.TypeEndpoint, "a", "b"))
	f.publish(changed(server.TypeCluster, f.cluster("a", 2)))
	d.ack(d.want(server.TypeCluster, "a"))
	d.ack(d.want(server.TypeEndpoint, "a")) // the client warms the cluster with it
	d.wantNothing()
}

func TestAThousandSidecarsThatReconnectAtOnceAreServedInTurn(t *testing.T) {
	const fleet = 1000
	f := start(t, server.Config{ConnectRate: 1000, ConnectBurst: 100})
	var all []*server.Resource
	for i := range 50 {
		all = append(all, f.cluster(fmt.Sprint("c", i), 1))
	}
	f.publish(changed(server.TypeCluster, all...))
	before := f.xds.Stats().Marshals
	began := time.Now()
	took := make(chan time.Duration, fleet)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc)
	var crowd sync.WaitGroup
	for i := range fleet {
		crowd.Go(func() {
			st, err := client.DeltaAggregatedResources(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: fmt.Sprint("n", i)}, TypeUrl: server.TypeCluster}); err != nil {
				t.Error(err)
				return
			}
			m, err := st.Recv()
			if err != nil || len(m.GetResources()) != len(all) {
				t.Errorf("sidecar %d: got %d resources, %v", i, len(m.GetResources()), err)
			}
			took <- time.Since(began)
		})
	}
	crowd.Wait()
	close(took)
	sorted := slices.Sorted(func(yield func(time.Duration) bool) {
		for d := range took {
			if !yield(d) {
				return
			}
		}
	})
	if len(sorted) != fleet {
		t.Fatalf("got %d sidecars served, want %d", len(sorted), fleet)
	}
	p99 := sorted[fleet*99/100]
	t.Logf("first configuration: median %v, p99 %v", sorted[fleet/2].Round(time.Millisecond), p99.Round(time.Millisecond))
	if p99 > 10*time.Second {
		t.Errorf("got p99 %v, want at most 10s", p99)
	}
	if got := f.xds.Stats().Marshals - before; got != 0 {
		t.Errorf("got %d marshals for reconnections, want none", got)
	}
}
