// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
	"github.com/outrigger-mesh/outrigger/pkg/spans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal keeps nothing: these tests end with the process.
type journal struct{ revision uint64 }

func (j *journal) NextRevision() uint64                   { j.revision++; return j.revision }
func (*journal) CommitInstances(_ []registry.Write) error { return nil }

// memoryLake is a tap sink in memory that can be told to fail.
type memoryLake struct {
	mu      sync.Mutex
	batches []string
	fail    error
}

func (l *memoryLake) Append(_ context.Context, node, boot string, sequence uint64, records [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.batches = append(l.batches, fmt.Sprintf("%s/%s #%d %q", node, boot, sequence, records))
	return nil
}

func (l *memoryLake) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *memoryLake) stored() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.batches...)
}

type fixture struct {
	client  sidecarv1.SidecarServiceClient
	service *Service
	lake    *memoryLake
	spans   *spans.Store

	mu        sync.Mutex
	published []mesh.Change
}

func (f *fixture) changes() []mesh.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]mesh.Change(nil), f.published...)
}

// last is the instance as the registry published it last, nil when it was taken out.
func (f *fixture) last(t *testing.T) *mesh.Instance {
	t.Helper()
	list := f.changes()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].PutInstance != nil {
			return list[i].PutInstance
		}
		if list[i].DeleteInstance != (mesh.InstanceKey{}) {
			return nil
		}
	}
	return nil
}

// start runs a real server and client over loopback.
func start(t *testing.T, options ...grpc.ServerOption) *fixture {
	t.Helper()
	f := &fixture{lake: &memoryLake{}}
	reg, err := registry.New(registry.Config{Journal: &journal{}, Publish: func(c []mesh.Change) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.published = append(f.published, c...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	if f.spans, err = spans.NewStore(spans.Config{}); err != nil {
		t.Fatal(err)
	}
	service, err := New(Config{Registry: reg, Tap: f.lake, Spans: f.spans})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(MaxMessageBytes))...)
	f.service = service
	service.Attach(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
	})
	f.client = sidecarv1.NewSidecarServiceClient(conn)
	return f
}

func registration() *sidecarv1.RegisterRequest {
	return &sidecarv1.RegisterRequest{
		Sender: &sidecarv1.Sender{Node: "orders~1", Boot: "b", Service: "orders"},
		Instance: &sidecarv1.Instance{
			Service: "orders", Id: "1", Address: "127.0.0.1", Port: 15006, Zone: "z", Version: "v2", Weight: 3,
			Metadata: map[string]string{"team": "shop"},
		},
		Health: sidecarv1.Health_HEALTH_HEALTHY,
		Lease:  durationpb.New(5 * time.Second),
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, code, text)
	}
}

func TestAnInstanceLivesFromRegistrationToDeregistration(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	granted, err := f.client.Register(ctx, registration())
	if err != nil {
		t.Fatal(err)
	}
	if granted.GetRevision() == 0 || granted.GetLease().AsDuration() != 5*time.Second {
		t.Errorf("got %v, want a revision and the lease that was asked for", granted)
	}
	got := f.last(t)
	if got == nil || got.Service != "orders" || got.ID != "1" || got.Address != "127.0.0.1" || got.Port != 15006 ||
		got.Zone != "z" || got.Version != "v2" || got.Weight != 3 || got.Metadata["team"] != "shop" ||
		got.Node != "orders~1" || got.Health != mesh.HealthHealthy {
		t.Errorf("published %+v", got)
	}
	key := &sidecarv1.InstanceKey{Service: "orders", Id: "1"}
	renewed, err := f.client.Renew(ctx, &sidecarv1.RenewRequest{Instance: key})
	if err != nil || renewed.GetLease().AsDuration() != 5*time.Second {
		t.Errorf("renew: got %v, %v", renewed, err)
	}
	_, err = f.client.SetHealth(ctx, &sidecarv1.SetHealthRequest{
		Instance: key, Health: sidecarv1.Health_HEALTH_UNHEALTHY, Reason: strings.Repeat("r", 10_000),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.last(t); got == nil || got.Health != mesh.HealthUnhealthy {
		t.Errorf("after SetHealth: published %+v, want unhealthy", got)
	}
	for range 2 { // taking out what is not there succeeds
		if _, err := f.client.Deregister(ctx, &sidecarv1.DeregisterRequest{Instance: key}); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.last(t); got != nil {
		t.Errorf("after Deregister: still published as %+v", got)
	}
	_, err = f.client.Renew(ctx, &sidecarv1.RenewRequest{Instance: key})
	wantStatus(t, err, codes.NotFound, "renew orders/1")
}

func TestWhatALaterSidecarSaysIsTolerated(t *testing.T) {
	f := start(t)
	r := registration()
	unknown := protowire.AppendTag(nil, 1000, protowire.BytesType)
	unknown = protowire.AppendString(unknown, "from the future")
	r.ProtoReflect().SetUnknown(unknown)
	r.GetInstance().ProtoReflect().SetUnknown(unknown)
	r.Health = 99
	if _, err := f.client.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := f.last(t); got == nil || got.Health != mesh.HealthUnknown {
		t.Errorf("published %+v, want the unknown health to count as not said", got)
	}
}

func TestABadRegistrationIsRefusedWithItsFields(t *testing.T) {
	f := start(t)
	for _, tc := range []struct {
		name   string
		change func(*sidecarv1.RegisterRequest)
		want   []string
	}{
		{"nothing", func(r *sidecarv1.RegisterRequest) { r.Instance = nil }, []string{"instance: required"}},
		{"several at once", func(r *sidecarv1.RegisterRequest) { r.Instance = &sidecarv1.Instance{Port: 70_000} },
			[]string{"instance.service: required", "instance.id: required", "instance.address: required", "instance.port: want 1 to 65535, not 70000"}},
		{"long text", func(r *sidecarv1.RegisterRequest) { r.Instance.Zone = strings.Repeat("z", 254) }, []string{"instance.zone: 254 bytes"}},
		{"long metadata", func(r *sidecarv1.RegisterRequest) {
			r.Instance.Metadata = map[string]string{"k": strings.Repeat("v", maxMetadataBytes)}
		}, []string{"instance.metadata: 16385 bytes"}},
		{"negative lease", func(r *sidecarv1.RegisterRequest) { r.Lease = durationpb.New(-1) }, []string{"lease: want more than 0"}},
		{"lease out of range", func(r *sidecarv1.RegisterRequest) { r.Lease = &durationpb.Duration{Seconds: 1 << 60} }, []string{"lease: "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := registration()
			tc.change(r)
			_, err := f.client.Register(t.Context(), r)
			for _, want := range tc.want {
				wantStatus(t, err, codes.InvalidArgument, want)
			}
		})
	}
	if got := f.changes(); len(got) != 0 {
		t.Errorf("published %v, want nothing", got)
	}
	_, err := f.client.Renew(t.Context(), &sidecarv1.RenewRequest{})
	wantStatus(t, err, codes.InvalidArgument, "renew: instance.service")
	_, err = f.client.SetHealth(t.Context(), &sidecarv1.SetHealthRequest{Instance: &sidecarv1.InstanceKey{Service: "a", Id: "b"}})
	wantStatus(t, err, codes.InvalidArgument, "set health: health: want")
}

func TestLeasesAreGrantedWithinBounds(t *testing.T) {
	f := start(t)
	for _, tc := range []struct {
		asked *durationpb.Duration
		want  time.Duration
	}{
		{nil, DefaultLease},
		{durationpb.New(time.Millisecond), MinLease},
		{durationpb.New(24 * time.Hour), MaxLease},
	} {
		r := registration()
		r.Lease = tc.asked
		got, err := f.client.Register(t.Context(), r)
		if err != nil || got.GetLease().AsDuration() != tc.want {
			t.Errorf("asked for %v: got %v, %v, want %v", tc.asked.AsDuration(), got, err, tc.want)
		}
	}
}

func tapBatch(sequence uint64, records ...string) *sidecarv1.TapBatch {
	b := &sidecarv1.TapBatch{Sender: &sidecarv1.Sender{Node: "n", Boot: "b", Service: "s"}, Sequence: sequence}
	for _, r := range records {
		b.Records = append(b.Records, []byte(r))
	}
	return b
}

// exchange opens a stream, sends the batches and returns what was acknowledged
// and how the stream ended.
func (f *fixture) exchange(t *testing.T, batches ...*sidecarv1.TapBatch) (acked []uint64, err error) {
	t.Helper()
	stream, err := f.client.UploadTap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := stream.Send(b); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for {
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetSequence())
	}
}

func TestTapBatchesAreStoredOnceAndAcknowledgedEachTime(t *testing.T) {
	f := start(t)
	if acked, err := f.exchange(t, tapBatch(1, "a", "b"), tapBatch(5, "c")); err != nil || fmt.Sprint(acked) != "[1 5]" {
		t.Fatalf("got %v, %v, want 1 and 5 acknowledged", acked, err)
	}
	// The acknowledgement was lost: the sidecar sends again on a new stream.
	if acked, err := f.exchange(t, tapBatch(5, "c"), tapBatch(6, "d")); err != nil || fmt.Sprint(acked) != "[5 6]" {
		t.Fatalf("got %v, %v, want 5 and 6 acknowledged", acked, err)
	}
	// A restarted sidecar counts anew.
	again := tapBatch(1, "e")
	again.Sender.Boot = "c"
	if acked, err := f.exchange(t, again); err != nil || fmt.Sprint(acked) != "[1]" {
		t.Fatalf("got %v, %v, want 1 acknowledged", acked, err)
	}
	want := `n/b #1 ["a" "b"]; n/b #5 ["c"]; n/b #6 ["d"]; n/c #1 ["e"]`
	if got := strings.Join(f.lake.stored(), "; "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestABatchThatWasNotStoredIsNotAcknowledged(t *testing.T) {
	f := start(t)
	f.lake.setFail(errors.New("disk full"))
	acked, err := f.exchange(t, tapBatch(1, "a"))
	wantStatus(t, err, codes.Unavailable, "disk full")
	if len(acked) != 0 {
		t.Errorf("acknowledged %v", acked)
	}
	f.lake.setFail(fmt.Errorf("%w: not a record", lake.ErrInvalid))
	_, err = f.exchange(t, tapBatch(1, "a"))
	wantStatus(t, err, codes.InvalidArgument, "not a record")
	f.lake.setFail(nil)
	if acked, err := f.exchange(t, tapBatch(1, "a")); err != nil || len(acked) != 1 || len(f.lake.stored()) != 1 {
		t.Errorf("got %v, %v and %v, want the batch stored when the sink works again", acked, err, f.lake.stored())
	}
}

func TestAnUploadThatBreaksTheRulesIsRefused(t *testing.T) {
	f := start(t)
	anonymous := tapBatch(1, "a")
	anonymous.Sender = nil
	_, err := f.exchange(t, anonymous)
	wantStatus(t, err, codes.InvalidArgument, "sender.node")
	_, err = f.exchange(t, tapBatch(0, "a"))
	wantStatus(t, err, codes.InvalidArgument, "sequence: 0 after 0")
	_, err = f.exchange(t, tapBatch(2, "a"), tapBatch(2, "b"))
	wantStatus(t, err, codes.InvalidArgument, "sequence: 2 after 2")
	_, err = f.exchange(t, tapBatch(9, make([]string, maxBatchRecords+1)...))
	wantStatus(t, err, codes.InvalidArgument, "records in a batch")
	_, err = f.exchange(t, tapBatch(9, strings.Repeat("x", MaxMessageBytes)))
	wantStatus(t, err, codes.ResourceExhausted, "larger than max")
}

func TestSpansAreKeptAndBadOnesAreCountedInTheAcknowledgement(t *testing.T) {
	f := start(t)
	stream, err := f.client.UploadSpans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&sidecarv1.SpanBatch{
		Sender: &sidecarv1.Sender{Node: "n", Boot: "b"}, Sequence: 1,
		Spans: [][]byte{[]byte(`{"traceId":"a","id":"1","name":"get"}`), []byte(`nonsense`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ack, err := stream.Recv()
	if err != nil || ack.GetSequence() != 1 || ack.GetRefused() != 1 {
		t.Errorf("got %v, %v, want 1 acknowledged with one refused", ack, err)
	}
	if got := f.spans.Trace("000000000000000a"); len(got) != 1 || got[0].Name != "get" {
		t.Errorf("the store holds %v", got)
	}
}

func TestAControlPlaneWithoutALakeSaysSo(t *testing.T) {
	reg, err := registry.New(registry.Config{Journal: &journal{}, Publish: func([]mesh.Change) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	s, err := New(Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, (&handler{Service: s}).UploadTap(nil), codes.Unimplemented, "keeps no lake")
	wantStatus(t, (&handler{Service: s}).UploadSpans(nil), codes.Unimplemented, "keeps no spans")
	if _, err := New(Config{}); err == nil {
		t.Error("a service without a registry was made")
	}
}

func TestOnlyCallersWithTheTokenAreLetIn(t *testing.T) {
	option, err := RequireToken("s3cret")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, option)
	for _, tc := range []struct {
		name   string
		header []string
		ok     bool
	}{
		{"none", nil, false},
		{"wrong", []string{"authorization", "Bearer other"}, false},
		{"prefix of it", []string{"authorization", "Bearer s3cre"}, false},
		{"other scheme", []string{"authorization", "Basic s3cret"}, false},
		{"two", []string{"authorization", "Bearer s3cret", "authorization", "Bearer other"}, false},
		{"right", []string{"authorization", "Bearer s3cret"}, true},
		{"right, scheme in lower case", []string{"authorization", "bearer s3cret"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), tc.header...)
			_, err := f.client.Register(ctx, registration())
			stream, streamErr := f.client.UploadTap(ctx)
			if streamErr == nil {
				if streamErr = stream.CloseSend(); streamErr == nil {
					_, streamErr = stream.Recv()
				}
			}
			if tc.ok {
				if err != nil || !errors.Is(streamErr, io.EOF) {
					t.Errorf("got %v and %v, want both let in", err, streamErr)
				}
				return
			}
			wantStatus(t, err, codes.Unauthenticated, "bearer token")
			wantStatus(t, streamErr, codes.Unauthenticated, "bearer token")
		})
	}
	if _, err := RequireToken(""); err == nil {
		t.Error("an empty token was taken")
	}
}

func TestTheLongestSilentSenderIsForgottenFirst(t *testing.T) {
	s := newSequences(2)
	a, b, c := senderKey{"tap", "a", ""}, senderKey{"tap", "b", ""}, senderKey{"tap", "c", ""}
	s.advance(a, 5)
	s.advance(b, 6)
	s.advance(a, 4) // late; does not go back
	s.advance(c, 7)
	if s.last(a) != 5 || s.last(b) != 0 || s.last(c) != 7 {
		t.Errorf("got a=%d b=%d c=%d, want 5, 0 and 7", s.last(a), s.last(b), s.last(c))
	}
	if len(s.entries) != 2 || s.order.Len() != 2 {
		t.Errorf("remembers %d and %d, want 2", len(s.entries), s.order.Len())
	}
}

func TestANodeHasAFewStreamsOnly(t *testing.T) {
	f := start(t)
	open := func() (grpc.BidiStreamingClient[sidecarv1.TapBatch, sidecarv1.TapAck], error) {
		stream, err := f.client.UploadTap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(tapBatch(1, "a")); err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return stream, err
	}
	var last grpc.BidiStreamingClient[sidecarv1.TapBatch, sidecarv1.TapAck]
	for range maxNodeStreams {
		var err error
		if last, err = open(); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.service.Stats().TapStreams; got != maxNodeStreams {
		t.Errorf("%d streams are open, want %d", got, maxNodeStreams)
	}
	_, err := open()
	wantStatus(t, err, codes.ResourceExhausted, "that is the limit")
	if err := last.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	// A place is free again.
	if _, err := open(); err != nil {
		t.Error(err)
	}
}

func TestWhatSidecarsAskForIsCounted(t *testing.T) {
	f := start(t)
	ctx := t.Context()
	key := &sidecarv1.InstanceKey{Service: "orders", Id: "1"}
	_, _ = f.client.Renew(ctx, &sidecarv1.RenewRequest{Instance: key})
	_, _ = f.client.Register(ctx, registration())
	_, _ = f.client.Renew(ctx, &sidecarv1.RenewRequest{Instance: key})
	_, _ = f.client.SetHealth(ctx, &sidecarv1.SetHealthRequest{Instance: key, Health: sidecarv1.Health_HEALTH_DRAINING})
	_, _ = f.client.Deregister(ctx, &sidecarv1.DeregisterRequest{Instance: key})
	_, _ = f.exchange(t, tapBatch(1, "a", "b"))
	_, _ = f.exchange(t, tapBatch(1, "a", "b"))
	want := Stats{
		Registrations: 1, Renewals: 1, HealthChanges: 1, Deregistrations: 1, Unknown: 1,
		TapBatches: 1, TapRecords: 2, Duplicates: 1, Failed: 1,
	}
	if got := f.service.Stats(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
