// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

func TestSecretsAreGivenToThoseWhoMayHaveThemAndShownToNobody(t *testing.T) {
	f := start(t, server.Config{Secrets: func(ctx context.Context) bool {
		m, _ := metadata.FromIncomingContext(ctx)
		return len(m["caller"]) == 1
	}})
	f.publish(changed(server.TypeSecret, f.resource("keys", &tlsv3.Secret{Name: "keys", Type: &tlsv3.Secret_GenericSecret{
		GenericSecret: &tlsv3.GenericSecret{Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "hush"}}},
	}})))
	request := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "known"}, TypeUrl: server.TypeSecret, ResourceNames: []string{"keys"}}
	known, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).StreamAggregatedResources(
		metadata.AppendToOutgoingContext(t.Context(), "caller", "a"))
	if err == nil {
		err = known.Send(request)
	}
	if err != nil {
		t.Fatal(err)
	}
	if m, err := known.Recv(); err != nil || len(m.GetResources()) != 1 || !strings.Contains(m.String(), "hush") {
		t.Errorf("who may have it is given %v, %v", m, err)
	}
	list, _ := f.xds.NodeResources("known")
	if len(list) != 1 || list[0].Name != "keys" || list[0].Content != nil {
		t.Errorf("it is shown as %+v", list)
	}
	stranger := f.delta("stranger")
	stranger.subscribe(server.TypeSecret, "keys")
	m := stranger.want(server.TypeSecret, "-keys")
	if strings.Contains(m.String(), "hush") {
		t.Errorf("a stranger is given %v", m)
	}
	h := httptest.NewServer(f.xds.RESTHandler())
	defer h.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for _, node := range []string{"known", "poller"} {
		if code, body := poll(t, h.URL+"/v3/discovery:secrets", `{"node": {"id": "`+node+`"}, "resource_names": ["keys"]}`); strings.Contains(body, "keys") {
			t.Errorf("a poll as %s is answered %d %s", node, code, body)
		}
	}
}

func TestASubscriptionToNothingIsNotPending(t *testing.T) {
	f := start(t, server.Config{UnknownGrace: time.Millisecond})
	f.publish(server.Update{Type: server.TypeSecret, Full: true})
	// A client that comes back, with a secret that is gone by now, and leaves what
	// was under way to it unanswered when it unsubscribes.
	d := f.delta("n")
	d.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: server.TypeSecret, ResourceNamesSubscribe: []string{"keys"},
		InitialResourceVersions: map[string]string{"keys": "1"},
	})
	d.want(server.TypeSecret, "-keys")
	if st := f.typeStatus("n", server.TypeSecret); !st.Pending {
		t.Errorf("before an answer: %+v", st)
	}
	d.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: server.TypeSecret, ResourceNamesUnsubscribe: []string{"keys"}})
	eventually(t, "nothing is pending", func() bool {
		n, _ := f.xds.NodeStatus("n")
		return n.Synced()
	})
	// What it wants next is waited for again, and one ACK settles both.
	d.subscribe(server.TypeSecret, "other")
	eventually(t, "the next answer is pending", func() bool { return f.typeStatus("n", server.TypeSecret).Pending })
	d.ack(d.want(server.TypeSecret, "-other"))
	eventually(t, "it is acknowledged", func() bool { return !f.typeStatus("n", server.TypeSecret).Pending })
}
