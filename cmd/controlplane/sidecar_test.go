// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

const clusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

func (d *daemon) dial() *grpc.ClientConn {
	d.t.Helper()
	cc, err := grpc.NewClient(d.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = cc.Close() }) // the server may be gone
	return cc
}

func (d *daemon) register(ctx context.Context, client sidecarv1.SidecarServiceClient, service, id string) {
	d.t.Helper()
	_, err := client.Register(ctx, &sidecarv1.RegisterRequest{
		Sender:   &sidecarv1.Sender{Node: service + "~" + id, Boot: "1", Service: service},
		Instance: &sidecarv1.Instance{Service: service, Id: id, Address: "127.0.0.1", Port: 15006},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// TestWhatASidecarRefusesIsShown is a sidecar that registers, subscribes, and
// refuses one of the clusters that it is given.
func TestWhatASidecarRefusesIsShown(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cc := d.dial()
	d.register(ctx, sidecarv1.NewSidecarServiceClient(cc), "payments", "p-1")
	d.want(d.run("", "get", "instances", "payments", "-o", "wide"), 0, "127.0.0.1:15006", "payments~p-1")

	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := structpb.NewStruct(map[string]any{"service": "orders", "inbound": "127.0.0.1:15006", "outbound": "127.0.0.1:15001", "app": "127.0.0.1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node:    &corev3.Node{Id: "orders~o-1", Cluster: "orders", UserAgentName: "outrigger-sidecar", Metadata: meta},
		TypeUrl: clusterType,
	}); err != nil {
		t.Fatal(err)
	}
	nonce := ""
	for nonce == "" {
		resp, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(resp.Resources, func(r *discoveryv3.Resource) bool { return r.Name == "outbound|payments" }) {
			nonce = resp.Nonce
		}
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: clusterType, ResponseNonce: nonce,
		ErrorDetail: &status.Status{Code: 3, Message: `cluster "outbound|payments": lb_policy: not today`},
	}); err != nil {
		t.Fatal(err)
	}
	d.eventually("lb_policy: not today", "status")
	d.want(d.run("", "status"), 0, "orders~o-1", "1 refused")
	d.eventually("refused     Sidecar    orders~o-1", "get", "events")
	d.want(d.run("", "status", "orders~o-1", "-o", "json"), 0, `"connected": true`, `"synced": false`)
	d.want(d.run("", "explain", "GET", "http://payments/", "--node", "orders~o-1"), 0, "outbound|payments", "127.0.0.1:15006")
}

func TestTappedTrafficIsInTheLakeAfterwards(t *testing.T) {
	data := t.TempDir()
	d := serveDaemon(t, data)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	up, err := sidecarv1.NewSidecarServiceClient(d.dial()).UploadTap(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rec := tap.Record{Service: "orders", Node: "orders~o-1", Start: time.Now().UnixNano(), Method: []byte("GET"), Path: []byte("/tapped"), Status: 503}
	if err := up.Send(&sidecarv1.TapBatch{Sender: &sidecarv1.Sender{Node: "orders~o-1", Boot: "1", Service: "orders"}, Sequence: 1, Records: [][]byte{rec.Append(nil)}}); err != nil {
		t.Fatal(err)
	}
	if ack, err := up.Recv(); err != nil || ack.Sequence != 1 {
		t.Fatalf("ack: %v %v", ack, err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	r := d.want(run(t, "", "lake", "ls", "--lake", data+"/lake"), 0, "raw/service=orders/date=")
	if strings.Count(r.out, "\n") != 2 {
		t.Errorf("files:\n%s", r.out)
	}
	d.want(run(t, "", "lake", "cat", "--lake", data+"/lake"), 0, `"path":"/tapped"`, `"status":503`)
	d.want(run(t, "", "lake", "cat", "raw/service=orders", "--lake", data+"/lake", "-o", "text"), 0, "/tapped")
}
