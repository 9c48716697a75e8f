// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// from is a stream of a client at another address of this host.
func (f *fixture) from(address string, node *corev3.Node) *deltaStream {
	f.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	cc, err := grpc.NewClient("passthrough:///"+f.cc.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, target string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp4", target)
		}))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = cc.Close() })
	before, _ := f.xds.NodeStatus(node.GetId())
	d := (&fixture{f.t, f.xds, cc}).stream()
	d.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: "type.googleapis.com/unknown"})
	eventually(f.t, "the server knows the stream", func() bool {
		n, _ := f.xds.NodeStatus(node.GetId())
		return len(n.Remote) > len(before.Remote)
	})
	return d
}

// listening is a node with what it says of itself.
func listening(id, version, inbound string) *corev3.Node {
	meta, _ := structpb.NewStruct(map[string]any{"service": "web", "inbound": inbound}) // of text, it cannot fail
	return &corev3.Node{Id: id, Metadata: meta, UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version}}
}

// sharedEvents yields what is told of shared ids.
func sharedEvents(cfg *server.Config) chan server.Event {
	events := make(chan server.Event, 100)
	cfg.OnEvent = func(e server.Event) {
		if e.Kind == server.EventShared {
			events <- e
		}
	}
	return events
}

func next(t *testing.T, events chan server.Event) server.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		t.Fatal("no event of a shared id")
	}
	return server.Event{}
}

func TestTwoClientsWithOneNodeIDAreToldOfAndServed(t *testing.T) {
	cfg := server.Config{SharedAfter: time.Hour}
	events := sharedEvents(&cfg)
	f := start(t, cfg)
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	one := f.from("127.0.0.1", listening("web~1", "v1", "10.0.0.1:15006"))
	two := f.from("127.0.0.2", listening("web~1", "v1", "10.0.0.1:15006"))
	two.subscribe(server.TypeCluster, "*")
	two.ack(two.want(server.TypeCluster, "a"))
	if n, _ := f.xds.NodeStatus("web~1"); len(n.Shared) > 0 || len(events) > 0 {
		t.Errorf("told of before the first one is heard: %+v", n.Shared)
	}
	one.subscribe(server.TypeCluster, "*")
	one.ack(one.want(server.TypeCluster, "a"))
	e := next(t, events)
	if e.Node != "web~1" || len(e.Names) != 2 || !strings.HasPrefix(e.Names[0], "127.0.0.1:") || !strings.HasPrefix(e.Names[1], "127.0.0.2:") ||
		!strings.Contains(e.Reason, "give every sidecar its own --id") {
		t.Errorf("got %+v", e)
	}
	if n, _ := f.xds.NodeStatus("web~1"); len(n.Shared) != 2 || n.Shared[0].Remote != e.Names[0] || n.Shared[1].Remote != e.Names[1] || n.Shared[0].Service != "web" {
		t.Errorf("the status says %+v", n.Shared)
	}
	f.publish(changed(server.TypeCluster, f.cluster("a", 2)))
	one.ack(one.want(server.TypeCluster, "a"))
	two.ack(two.want(server.TypeCluster, "a"))
	f.from("127.0.0.3", listening("web~1", "v1", "10.0.0.1:15006"))
	one.subscribe(server.TypeCluster, "b")
	two.subscribe(server.TypeCluster, "b")
	for range 2 { // of each of the two with the third, and of the first pair no more
		if e := next(t, events); !strings.HasPrefix(e.Names[1], "127.0.0.3:") {
			t.Errorf("told again of %v", e.Names)
		}
	}
}

func TestASharedNodeIDIsForgottenWhenOneIsLeft(t *testing.T) {
	cfg := server.Config{SharedAfter: time.Nanosecond} // nobody has to say anything
	events := sharedEvents(&cfg)
	f := start(t, cfg)
	one := f.from("127.0.0.1", listening("web~1", "v1", "10.0.0.1:15006"))
	f.from("127.0.0.2", listening("web~1", "v1", "10.0.0.1:15006"))
	next(t, events)
	if err := one.st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one is left", func() bool {
		n, _ := f.xds.NodeStatus("web~1")
		return len(n.Remote) == 1 && len(n.Shared) == 0
	})
}

// The successor of a process has another version, and is at the same place.
func TestStreamsOfOneClientShareNothing(t *testing.T) {
	cfg := server.Config{SharedAfter: time.Nanosecond}
	events := sharedEvents(&cfg)
	f := start(t, cfg)
	f.publish(changed(server.TypeCluster, f.cluster("a", 1)))
	old := f.from("127.0.0.1", listening("web~1", "v1", "10.0.0.1:15006"))
	f.from("127.0.0.1", listening("web~1", "v2", "10.0.0.1:15006"))
	old.subscribe(server.TypeCluster, "*")
	old.want(server.TypeCluster, "a")
	if n, _ := f.xds.NodeStatus("web~1"); len(n.Shared) > 0 {
		t.Errorf("the status says %+v", n.Shared)
	}
	f.from("127.0.0.1", listening("web~1", "v1", "10.0.0.1:15106"))
	n, _ := f.xds.NodeStatus("web~1")
	if e := next(t, events); len(n.Remote) != 3 || e.Names[1] != n.Remote[2] { // the first that is told of
		t.Errorf("got %+v, want it of %v", e, n.Remote)
	}
}
