// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// reportingFixture is a service that keeps events, at a time that stands still.
func reportingFixture(t *testing.T, options ...grpc.ServerOption) (*fixture, *memoryEvents, *time.Time) {
	t.Helper()
	f, sink, now := start(t, options...), &memoryEvents{}, time.Unix(1000, 0)
	f.service.events, f.service.now = sink, func() time.Time { return now }
	return f, sink, &now
}

// serving is a server on which every caller is c.
func serving(c Caller) grpc.ServerOption {
	return grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		return context.WithValue(ctx, callerKey{}, c), nil
	})
}

type eventUpload struct {
	t      *testing.T
	stream sidecarv1.SidecarService_UploadEventsClient
	sender *sidecarv1.Sender
	last   uint64
}

func (f *fixture) upload(t *testing.T, node string) *eventUpload {
	t.Helper()
	st, err := f.client.UploadEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.CloseSend() })
	return &eventUpload{t: t, stream: st, sender: &sidecarv1.Sender{Node: node, Boot: "b", Service: "web"}}
}

// send returns how many events are refused.
func (u *eventUpload) send(lost uint64, events ...[]byte) int {
	u.t.Helper()
	u.last++
	if err := u.stream.Send(&sidecarv1.EventBatch{Sender: u.sender, Sequence: u.last, Lost: lost, Events: events}); err != nil {
		u.t.Fatal(err)
	}
	ack, err := u.stream.Recv()
	if err != nil {
		u.t.Fatal(err)
	}
	return int(ack.GetRefused())
}

func TestOnlyEventsThatThereAreAreTaken(t *testing.T) {
	f, sink, _ := reportingFixture(t)
	u := f.upload(t, "web~1")
	for _, e := range []*sidecarv1.Event{
		{Kind: "drain", Type: "reset"},
		{Kind: "drain", Type: "x\ndata: {}\n\nevent: reset"},
		{Kind: "drain", Type: "began\x1b[2J"},
		{Kind: "drain\n", Type: "began"},
		{Kind: "drain", Type: "ejected"},
		{Kind: "Service", Type: "delete", Name: "payments"},
		{Kind: "Sidecar", Type: "refused"},
		{Kind: "nack", Type: "refused"},
		{},
	} {
		if u.send(0, encoded(t, e)) != 1 {
			t.Errorf("taken: %q %q", e.GetKind(), e.GetType())
		}
	}
	if n := u.send(0, encoded(t, &sidecarv1.Event{Kind: "drain", Type: "began"})); n != 0 || !slices.Equal(sink.list, []string{"web~1 web 0 drain began"}) {
		t.Errorf("%d refused, reported %q", n, sink.list)
	}
}

func TestACallerCannotInventNodesToReportEventsWithoutEnd(t *testing.T) {
	for _, who := range []Caller{
		certificateOf("web"), {Remote: "192.0.2.9"}, {Means: ByMeshToken, Remote: "192.0.2.9"},
		{Means: ByBootstrapToken, Token: identity.TokenClaims{ID: "t", Services: []string{"web"}}, Remote: "192.0.2.9"},
	} {
		f, sink, _ := reportingFixture(t, serving(who))
		flood := slices.Repeat([][]byte{encoded(t, &sidecarv1.Event{Kind: "drain", Type: "began"})}, 100)
		refused := 0
		for i := range 30 {
			refused += f.upload(t, fmt.Sprintf("web~%d", i)).send(0, flood...)
		}
		if len(sink.list) != callerBurst || refused != 30*100-callerBurst {
			t.Errorf("%+v: %d taken and %d refused", who, len(sink.list), refused)
		}
		// Another has its own, even under a name that is taken.
		if n := f.service.reporting.grant(f.service.now(), certificateOf("orders"), "web~0", 2*eventBurst); n != eventBurst {
			t.Errorf("another gets %d", n)
		}
		if n := len(f.service.reporting.nodes); n > callerBurst/100+2 {
			t.Errorf("%d buckets of nodes", n)
		}
	}
}

func TestLossesCostAsMuchAsEventsAndAreNotForgotten(t *testing.T) {
	f, sink, now := reportingFixture(t)
	u := f.upload(t, "web~1")
	for range 2 * eventBurst {
		u.send(1)
	}
	if sink.told != eventBurst || sink.lost != eventBurst {
		t.Errorf("%d losses are told, of %d", sink.told, sink.lost)
	}
	*now = now.Add(time.Second)
	if n := u.send(0, encoded(t, &sidecarv1.Event{Kind: "drain", Type: "began"})); n != 0 || sink.told != eventBurst+1 || sink.lost != 2*eventBurst || len(sink.list) != 1 {
		t.Errorf("a second later: %d refused, %d told, of %d", n, sink.told, sink.lost)
	}
	if u.send(1 << 63); f.service.Stats().EventsLost != 2*eventBurst+maxLost {
		t.Errorf("%d are counted", f.service.Stats().EventsLost)
	}
}

func TestEventsAreNotDecodedForThoseWhoMayNotReport(t *testing.T) {
	f, sink, _ := reportingFixture(t)
	u := f.upload(t, "web~1")
	if n := u.send(0, slices.Repeat([][]byte{[]byte("\xff")}, eventBurst)...); n != eventBurst {
		t.Errorf("%d are refused", n)
	}
	if n := u.send(0, encoded(t, &sidecarv1.Event{Kind: "drain", Type: "began"})); n != 1 || len(sink.list) != 0 {
		t.Errorf("decoding costs nothing: %d refused, reported %q", n, sink.list)
	}
}

func TestACertificateReportsAsItsOwnNodesOnly(t *testing.T) {
	f, sink, _ := reportingFixture(t, serving(certificateOf("web")))
	h := &handler{Service: f.service}
	for _, node := range []string{"payments", "web", "payments~1", "webx~1"} {
		u := f.upload(t, node)
		if err := u.stream.Send(&sidecarv1.EventBatch{Sender: u.sender, Sequence: 1}); err != nil {
			t.Fatal(err)
		}
		_, err := u.stream.Recv()
		wantStatus(t, err, codes.PermissionDenied, fmt.Sprintf("upload events: sender.node %q: ", node))
		_, err = h.ReportState(as(t, certificateOf("web")), ejecting(node, 1))
		wantStatus(t, err, codes.PermissionDenied, fmt.Sprintf("report state: sender.node %q: ", node))
	}
	if n := f.upload(t, "web~1").send(0, encoded(t, &sidecarv1.Event{Kind: "drain", Type: "began"})); n != 0 || len(sink.list) != 1 {
		t.Errorf("its own: %d refused", n)
	}
	if _, err := h.ReportState(as(t, certificateOf("web")), ejecting("web~1", 1)); err != nil {
		t.Error(err)
	}
}

func ejecting(node string, n int) *sidecarv1.StateReport {
	r := &sidecarv1.StateReport{Sender: &sidecarv1.Sender{Node: node, Service: "web"}, Valid: durationpb.New(time.Minute)}
	for i := range n {
		r.Ejected = append(r.Ejected, &sidecarv1.EjectedEndpoint{Cluster: "outbound|orders", Endpoint: fmt.Sprintf("%03d", n-i)})
	}
	return r
}

func TestOneCallerCannotShutOutTheReportsOfOthers(t *testing.T) {
	f, _, now := reportingFixture(t)
	h := &handler{Service: f.service}
	web := as(t, certificateOf("web"))
	taken := 0
	for i := range 1025 {
		_, err := h.ReportState(web, ejecting(fmt.Sprintf("web~%d", i), maxEjected))
		if err == nil {
			taken++
			continue
		}
		wantStatus(t, err, codes.ResourceExhausted, "of this caller")
	}
	if taken != maxCallerEjected/maxEjected {
		t.Errorf("%d reports are taken", taken)
	}
	other := ejecting("orders~1", 2)
	other.Sender.Service = "orders"
	if _, err := h.ReportState(as(t, certificateOf("orders")), other); err != nil {
		t.Errorf("another caller: %v", err)
	}
	list := f.service.Ejected()
	if len(list) != maxCallerEjected+2 || list[0].Node != "orders~1" || list[0].Endpoint != "001" || list[1].Endpoint != "002" || list[2].Node != "web~0" {
		t.Errorf("%d are shown, the first %+v", len(list), list[:3])
	}
	// In place of the last, and of those that are stale.
	if _, err := h.ReportState(web, ejecting("web~1", maxEjected-1)); err != nil {
		t.Error(err)
	}
	if _, err := h.ReportState(web, ejecting("web~2", 2)); err == nil {
		t.Error("one too many is taken")
	}
	*now = now.Add(2 * time.Minute)
	for i := range maxCallerReporters {
		if _, err := h.ReportState(web, ejecting(fmt.Sprintf("web~a%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.ReportState(web, ejecting("web~b", 1))
	wantStatus(t, err, codes.ResourceExhausted, "of this caller")
	*now = now.Add(2 * time.Minute)
	if e := &f.service.ejections; len(f.service.Ejected()) != 0 || e.all != 0 || len(e.accounts) != 0 {
		t.Errorf("left behind: %d endpoints of %v", e.all, e.accounts)
	}
}
