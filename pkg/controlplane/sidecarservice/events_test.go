// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// memoryEvents keeps what is reported.
type memoryEvents struct {
	mu   sync.Mutex
	list []string
	last event.Event
	lost uint64
	told int // losses: each is an event of its own
}

func (m *memoryEvents) Report(node, service string, list []event.Event, lost uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range list {
		m.list = append(m.list, fmt.Sprintf("%s %s %d %s %s", node, service, e.ID, e.Kind, e.Type))
		m.last = e
	}
	if m.lost += lost; lost > 0 {
		m.told++
	}
}

func encoded(t *testing.T, e *sidecarv1.Event) []byte {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEventsAreTakenOnceAndBrokenOnesRefused(t *testing.T) {
	f := start(t)
	sink := &memoryEvents{}
	f.service.events = sink
	good := encoded(t, &sidecarv1.Event{
		Id: 7, Time: timestamppb.New(time.Unix(5, 0)), Kind: "ejection", Type: "ejected", Cluster: "c", Message: strings.Repeat("x", 1<<16),
		Numbers: []*sidecarv1.Number{{Name: "threshold", Value: 5}},
	})
	newer := protowire.AppendBytes(protowire.AppendTag(slices.Clone(good), 99, protowire.BytesType), []byte("of a later version"))
	send := func(b *sidecarv1.EventBatch) uint32 {
		t.Helper()
		st, err := f.client.UploadEvents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(b); err != nil {
			t.Fatal(err)
		}
		ack, err := st.Recv()
		if err != nil || ack.GetSequence() != b.GetSequence() {
			t.Fatalf("%v %v", ack, err)
		}
		_ = st.CloseSend()
		return ack.GetRefused()
	}
	batch := &sidecarv1.EventBatch{
		Sender: &sidecarv1.Sender{Node: "web~1", Boot: "b", Service: "web"}, Sequence: 9, Lost: 3,
		Events: [][]byte{good, []byte("\xff"), encoded(t, &sidecarv1.Event{Id: 8}), newer},
	}
	if n := send(batch); n != 2 {
		t.Errorf("%d are refused", n)
	}
	if n := send(batch); n != 0 {
		t.Errorf("%d are refused of a batch that was stored before", n)
	}
	want := []string{"web~1 web 7 ejection ejected", "web~1 web 7 ejection ejected"}
	if !slices.Equal(sink.list, want) || sink.lost != 3 || len(sink.last.Message) != event.MaxMessage || !sink.last.Time.Equal(time.Unix(5, 0)) || sink.last.Numbers[0].Value != 5 {
		t.Errorf("got %v lost %d, the last %+v", sink.list, sink.lost, sink.last)
	}
	// One that floods is cut off, and others are not.
	flood := &sidecarv1.EventBatch{Sender: batch.Sender, Sequence: 10}
	for range 2 * eventBurst {
		flood.Events = append(flood.Events, encoded(t, &sidecarv1.Event{Kind: "health", Type: "failed"}))
	}
	if n := send(flood); n < eventBurst/2 {
		t.Errorf("%d of a flood are refused", n)
	}
	if n := send(&sidecarv1.EventBatch{Sender: &sidecarv1.Sender{Node: "web~2", Boot: "b", Service: "web"}, Sequence: 1, Events: [][]byte{good}}); n != 0 {
		t.Error("another is refused")
	}
	if s := f.service.Stats(); s.EventsLost != 3 || s.Events < eventBurst-4 || s.EventsRefused < eventBurst/2 {
		t.Errorf("%+v", s)
	}
}

func TestAControlPlaneWithoutEventsSaysSo(t *testing.T) {
	f := start(t)
	st, err := f.client.UploadEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = st.Recv()
	wantStatus(t, err, codes.Unimplemented, "keeps no events")
}

func TestEjectionsHoldUntilTheyAreStale(t *testing.T) {
	f := start(t)
	now := time.Unix(1000, 0)
	f.service.now = func() time.Time { return now }
	h := &handler{Service: f.service}
	report := func(node string, valid time.Duration, endpoints ...string) error {
		r := &sidecarv1.StateReport{Sender: &sidecarv1.Sender{Node: node, Service: "web"}}
		if valid > 0 {
			r.Valid = durationpb.New(valid)
		}
		for _, e := range endpoints {
			r.Ejected = append(r.Ejected, &sidecarv1.EjectedEndpoint{Cluster: "outbound|orders", Endpoint: e, Since: timestamppb.New(now), Detector: "SUCCESS_RATE"})
		}
		_, err := h.ReportState(t.Context(), r)
		return err
	}
	shown := func() string {
		var out []string
		for _, x := range f.service.Ejected() {
			out = append(out, x.Node+" "+x.Endpoint)
		}
		return strings.Join(out, ", ")
	}
	for _, err := range []error{report("web~2", 0, "b"), report("web~1", time.Minute, "b", "a"), report("web~3", 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := shown(), "web~1 a, web~1 b, web~2 b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := report("web~1", time.Minute, "a"); err != nil {
		t.Fatal(err)
	}
	if now = now.Add(31 * time.Second); shown() != "web~1 a" {
		t.Errorf("when one is stale: %s", shown())
	}
	if err := report("web~1", 0); err != nil || shown() != "" || f.service.ejections.all != 0 {
		t.Errorf("when none is left: %v %s, %d counted", err, shown(), f.service.ejections.all)
	}
	wantStatus(t, report("", 0, "a"), codes.InvalidArgument, "sender")
	wantStatus(t, report("web~1", 0, make([]string, maxEjected+1)...), codes.InvalidArgument, "the limit is 256")
	_, err := h.ReportState(as(t, certificateOf("orders")), &sidecarv1.StateReport{Sender: &sidecarv1.Sender{Node: "web~1", Service: "web"}})
	wantStatus(t, err, codes.PermissionDenied, "service")
}
