// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// stateStream is the test's side of a state-of-the-world stream.
type stateStream struct {
	t  *testing.T
	st interface {
		Send(*discoveryv3.DiscoveryRequest) error
		Recv() (*discoveryv3.DiscoveryResponse, error)
	}
	node *corev3.Node
	in   chan *discoveryv3.DiscoveryResponse
}

func (f *fixture) state(id string, single bool) *stateStream {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &stateStream{t: f.t, node: &corev3.Node{Id: id}, in: make(chan *discoveryv3.DiscoveryResponse, 100)}
	var err error
	if single {
		s.st, err = clusterservicev3.NewClusterDiscoveryServiceClient(f.cc).StreamClusters(ctx)
	} else {
		s.st, err = discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).StreamAggregatedResources(ctx)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.st.Recv()
			if err != nil {
				return
			}
			s.in <- m
		}
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *stateStream) send(r *discoveryv3.DiscoveryRequest) {
	s.t.Helper()
	r.Node, s.node = s.node, nil // only the first request has it
	if err := s.st.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stateStream) ack(m *discoveryv3.DiscoveryResponse, names ...string) {
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), VersionInfo: m.GetVersionInfo(), ResourceNames: names})
}

func (s *stateStream) want(typeURL string, count int) *discoveryv3.DiscoveryResponse {
	s.t.Helper()
	select {
	case m := <-s.in:
		if m.GetTypeUrl() != typeURL || len(m.GetResources()) != count {
			s.t.Fatalf("got %s with %d resources, want %s with %d", m.GetTypeUrl(), len(m.GetResources()), typeURL, count)
		}
		return m
	case <-time.After(patience):
		s.t.Fatalf("no response, want %s with %d resources", typeURL, count)
	}
	return nil
}

func (s *stateStream) wantNothing() {
	s.t.Helper()
	select {
	case m := <-s.in:
		s.t.Fatalf("got %v, want nothing", m)
	case <-time.After(quiet):
	}
}

func TestStateOfTheWorldSendsAllClustersOnEveryChange(t *testing.T) {
	for _, single := range []bool{false, true} {
		f := start(t, server.Config{RemovalGrace: -1})
		f.publish(changed(server.TypeCluster, f.cluster("a", 1), f.cluster("b", 1)))
		s := f.state("n", single)
		s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeCluster})
		s.ack(s.want(server.TypeCluster, 2))
		s.wantNothing()
		f.publish(changed(server.TypeCluster, f.cluster("c", 1)))
		s.ack(s.want(server.TypeCluster, 3))
		f.publish(server.Update{Type: server.TypeCluster, Removed: []string{"a", "b", "c"}})
		m := s.want(server.TypeCluster, 0)
		s.ack(m)
		eventually(t, "the version is acknowledged", func() bool {
			return f.typeStatus("n", server.TypeCluster).Acked == m.GetVersionInfo()
		})
		s.wantNothing()
	}
}

func TestStateOfTheWorldSendsOnlyTheEndpointsThatChanged(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 1), f.endpoints("b", 1)))
	s := f.state("n", false)
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeEndpoint, ResourceNames: []string{"a", "b", "later"}})
	s.ack(s.want(server.TypeEndpoint, 2), "a", "b", "later")
	f.publish(changed(server.TypeEndpoint, f.endpoints("b", 2)))
	s.ack(s.want(server.TypeEndpoint, 1), "a", "b", "later")
	f.publish(changed(server.TypeEndpoint, f.endpoints("later", 1)))
	m := s.want(server.TypeEndpoint, 1)
	s.ack(m, "a", "b", "later")
	s.wantNothing()
	s.ack(m, "a", "b", "later") // the same again: the client wants it again
	s.want(server.TypeEndpoint, 3)
}

func TestANameThatIsNotThereIsAnsweredInStateOfTheWorld(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(server.Update{Type: server.TypeEndpoint})
	s := f.state("n", false)
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeEndpoint, ResourceNames: []string{"a"}})
	s.want(server.TypeEndpoint, 0)
}

func TestNamesAddedWhileAResponseIsUnderWayAreAnswered(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 1), f.endpoints("b", 1)))
	s := f.state("n", false)
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeEndpoint, ResourceNames: []string{"a"}})
	s.ack(s.want(server.TypeEndpoint, 1), "a", "b")
	s.ack(s.want(server.TypeEndpoint, 1), "b")
	s.wantNothing()
	f.publish(changed(server.TypeEndpoint, f.endpoints("a", 2)))
	s.wantNothing() // not wanted any more
}

func TestARefusalInStateOfTheWorldMakesNoHotLoop(t *testing.T) {
	const hold = 400 * time.Millisecond
	f := start(t, server.Config{RejectHold: hold})
	f.publish(changed(server.TypeCluster, f.cluster("bad", 1)))
	s := f.state("n", false)
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeCluster})
	m := s.want(server.TypeCluster, 1)
	began := time.Now()
	for range 5 { // some clients say it more than once
		s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeCluster, ResponseNonce: m.GetNonce(), ErrorDetail: &statuspb.Status{Message: "no"}})
	}
	s.wantNothing()
	st := f.typeStatus("n", server.TypeCluster)
	if st.Nack == nil || st.Nack.Reason != "no" || st.Rejected["bad"].Version == "" {
		t.Errorf("got %+v, want the refusal and its reason", st)
	}
	if n, _ := f.xds.NodeStatus("n"); n.Synced() {
		t.Error("got synced, want a node that refused something not to be")
	}
	f.publish(changed(server.TypeCluster, f.cluster("bad", 2)))
	s.ack(s.want(server.TypeCluster, 1))
	if took := time.Since(began); took < hold-50*time.Millisecond {
		t.Errorf("pushed again after %v, want at least %v", took, hold)
	}
	eventually(t, "the refusal is over", func() bool { return f.typeStatus("n", server.TypeCluster).Nack == nil })
	if got := f.xds.Stats().Responses; got != 2 {
		t.Errorf("got %d responses, want 2", got)
	}
}

func TestAStaleNonceIsIgnored(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	s := f.state("n", false)
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeCluster})
	first := s.want(server.TypeCluster, 1)
	s.ack(first)
	f.publish(changed(server.TypeCluster, f.cluster("a", 2)))
	second := s.want(server.TypeCluster, 1)
	s.ack(first) // it crossed the second on the way
	s.wantNothing()
	if got := f.typeStatus("n", server.TypeCluster).Acked; got != first.GetVersionInfo() {
		t.Errorf("got %s acknowledged, want %s", got, first.GetVersionInfo())
	}
	s.ack(second)
	eventually(t, "the second is acknowledged", func() bool {
		return f.typeStatus("n", server.TypeCluster).Acked == second.GetVersionInfo()
	})
}

// poll makes one REST poll.
func poll(t *testing.T, url, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func TestPollsAreAnsweredOnlyWithWhatIsNew(t *testing.T) {
	f := start(t, server.Config{FetchWait: time.Millisecond})
	h := httptest.NewServer(f.xds.RESTHandler())
	defer h.Close()
	defer http.DefaultClient.CloseIdleConnections()
	url := h.URL + "/v3/discovery:clusters"
	if code, body := poll(t, url, `{"node": {"id": "r"}}`); code != http.StatusServiceUnavailable {
		t.Errorf("got %d %s before anything is published, want 503", code, body)
	}
	f.publish(changed(server.TypeCluster, f.cluster("a", 1), f.cluster("b", 1)))
	code, body := poll(t, url, `{"node": {"id": "r"}}`)
	if code != 200 || !strings.Contains(body, `"a"`) || !strings.Contains(body, `"b"`) {
		t.Fatalf("got %d %s, want both clusters", code, body)
	}
	version := f.typeStatus("r", server.TypeCluster).Sent
	if code, body := poll(t, url, `{"node": {"id": "r"}, "version_info": "`+version+`"}`); code != http.StatusNotModified {
		t.Errorf("got %d %s, want 304", code, body)
	}
	if n, _ := f.xds.NodeStatus("r"); !n.Synced() || !slices.Equal(n.Protocol, []string{"rest"}) {
		t.Errorf("got %+v, want a synced REST client", n)
	}
	f.publish(changed(server.TypeCluster, f.cluster("a", 2)))
	if code, _ := poll(t, url, `{"node": {"id": "r"}, "version_info": "`+version+`"}`); code != 200 {
		t.Errorf("got %d after a change, want 200", code)
	}
	code, body = poll(t, url, `{"node": {"id": "r"}, "resource_names": ["b"]}`)
	if code != 200 || strings.Contains(body, `"a"`) {
		t.Errorf("got %d %s, want only b", code, body)
	}
}

func TestBadPollsAreRefused(t *testing.T) {
	f := start(t, server.Config{})
	h := httptest.NewServer(f.xds.RESTHandler())
	defer h.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for _, c := range []struct {
		name, path, body string
		want             int
	}{
		{"a path that is none", "/v3/discovery:nothing", `{}`, 404},
		{"no node", "/v3/discovery:clusters", `{}`, 400},
		{"no JSON", "/v3/discovery:clusters", `{"node`, 400},
		{"a wrong type", "/v3/discovery:clusters", `{"node": {"id": 3}}`, 400},
		{"an id without end", "/v3/discovery:clusters", `{"node": {"id": "` + strings.Repeat("x", 1000) + `"}}`, 400},
		{"a body without end", "/v3/discovery:clusters", `{"node": {"id": "` + strings.Repeat("x", 5<<20) + `"}}`, 413},
	} {
		if got, body := poll(t, h.URL+c.path, c.body); got != c.want {
			t.Errorf("%s: got %d %s, want %d", c.name, got, body, c.want)
		}
	}
	resp, err := http.Get(h.URL + "/v3/discovery:clusters")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d, want 405", resp.StatusCode)
	}
}

func TestAFetchIsOnlyForWhoMayBeTheNode(t *testing.T) {
	f := start(t, server.Config{Authorize: func(ctx context.Context, n server.Node) error {
		if m, _ := metadata.FromIncomingContext(ctx); len(m["caller"]) == 1 && m["caller"][0] == n.ID {
			return nil
		}
		return status.Error(codes.PermissionDenied, "not yours")
	}})
	caller := metadata.AppendToOutgoingContext(context.Background(), "caller", "a")
	unary := func(node string) error {
		_, err := clusterservicev3.NewClusterDiscoveryServiceClient(f.cc).FetchClusters(caller, &discoveryv3.DiscoveryRequest{
			Node: &corev3.Node{Id: node}, ErrorDetail: &statuspb.Status{Message: "a lie"},
		})
		return err
	}
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	if err := unary("a"); err != nil {
		t.Errorf("its own node: %v", err)
	}
	if err := unary("b"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the node of another: got %v, want a refusal", err)
	}
	if n, ok := f.xds.NodeStatus("b"); ok {
		t.Errorf("the node of another is known from a call that was refused: %+v", n)
	}
	h := httptest.NewServer(f.xds.RESTHandler())
	defer h.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if code, body := poll(t, h.URL+"/v3/discovery:clusters", `{"node": {"id": "b"}}`); code != http.StatusForbidden {
		t.Errorf("got %d %s for a poll of a caller who may not be the node, want 403", code, body)
	}
}

func TestANodeIsGivenAllOfItsSets(t *testing.T) {
	f := start(t, server.Config{Groups: func(n server.Node, _ string) []string { return []string{"shared", "own/" + n.ID} }})
	f.xds.Publish("shared", changed(server.TypeCluster, f.cluster("a", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeCluster, "*")
	d.wantNothing() // its own set is not there yet
	f.xds.Publish("own/n", changed(server.TypeCluster, f.cluster("app", 1)))
	d.ack(d.want(server.TypeCluster, "a", "app"))
	f.xds.Publish("shared", changed(server.TypeCluster, f.cluster("a", 2)))
	m := d.want(server.TypeCluster, "a")
	c := &clusterv3.Cluster{}
	if err := m.GetResources()[0].GetResource().UnmarshalTo(c); err != nil || c.GetConnectTimeout().GetSeconds() != 2 {
		t.Errorf("got %v %v, want the second version", c, err)
	}
	d.ack(m)
	s := f.state("m", false)
	f.xds.Publish("own/m", changed(server.TypeCluster, f.cluster("app", 7)))
	s.send(&discoveryv3.DiscoveryRequest{TypeUrl: server.TypeCluster})
	s.want(server.TypeCluster, 2)
	if f.xds.Drop("own/n") != true {
		t.Error("a group with a subscriber was dropped")
	}
}

func TestNodeResourcesTellWhatANodeHas(t *testing.T) {
	f := start(t, server.Config{})
	f.publish(changed(server.TypeEndpoint, f.endpoints("good", 1), f.endpoints("bad", 1), f.endpoints("pending", 1)))
	d := f.delta("n")
	d.subscribe(server.TypeEndpoint, "good", "missing")
	d.ack(d.want(server.TypeEndpoint, "good"))
	d.subscribe(server.TypeEndpoint, "bad")
	d.nack(d.want(server.TypeEndpoint, "bad"), "bad: because")
	d.subscribe(server.TypeEndpoint, "pending")
	d.want(server.TypeEndpoint, "pending")
	want := map[string]string{"good": "accepted", "bad": "rejected", "pending": "sent", "missing": "missing"}
	eventually(t, "the refusal arrived", func() bool { return f.typeStatus("n", server.TypeEndpoint).Nack != nil })
	got := map[string]string{}
	list, ok := f.xds.NodeResources("n")
	for _, r := range list {
		got[r.Name] = r.State
	}
	for name, state := range want {
		if got[name] != state {
			t.Errorf("%s: got %q, want %q (known: %v)", name, got[name], state, ok)
		}
	}
}

// FuzzPoll: whatever is posted, the answer is one of the few that there are.
func FuzzPoll(f *testing.F) {
	f.Add("/v3/discovery:clusters", `{"node": {"id": "n"}}`)
	f.Add("/v3/discovery:endpoints", `{"node": {"id": "n", "metadata": {"a": [1, {}]}}, "resource_names": ["a", "*"], "version_info": "x"}`)
	f.Add("/v3/discovery:routes", `{"node": {"id": "n"}, "error_detail": {"code": 3, "message": "no"}}`)
	xds, err := server.New(server.Config{Groups: func(server.Node, string) []string { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(xds.Close)
	f.Fuzz(func(t *testing.T, path, body string) {
		r := httptest.NewRequest(http.MethodPost, "http://x/", strings.NewReader(body))
		r.URL.Path = path
		w := httptest.NewRecorder()
		xds.RESTHandler().ServeHTTP(w, r)
		if !slices.Contains([]int{200, 304, 400, 404, 413, 503}, w.Code) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}
