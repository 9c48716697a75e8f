// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// Ejected is an endpoint that outlier detection leaves out now.
type Ejected struct {
	Cluster, Endpoint string
	Detector          string // Envoy's name
	Ejections         uint32 // of the endpoint so far
	Since, Until      time.Time
}

// uploadEvents is the name of that upload.
const uploadEvents = "events"

// eventBatch bounds the events of a batch.
const eventBatch = 256

// eventSource reads the log of events for an upload. It keeps nothing: what the log no
// longer has when it comes for it is lost, and counted.
type eventSource struct {
	log *event.Log

	mu sync.Mutex
	// Guarded by mu.
	given, acked uint64            // ids
	lost         map[uint64]uint64 // by batch that is under way
	total        uint64            // lost so far
}

func newEventSource(l *event.Log) *eventSource {
	return &eventSource{log: l, lost: map[uint64]uint64{}}
}

// Next implements Source. A batch's sequence is the id of its last event. Refusals of
// configuration are left out: the control plane has heard of them by xDS.
func (s *eventSource) Next(ctx context.Context) (records [][]byte, sequence uint64, err error) {
	for {
		s.mu.Lock()
		after := s.given
		s.mu.Unlock()
		list, _, more := s.log.After(after, event.Filter{}, eventBatch)
		if len(list) == 0 {
			select {
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			case <-more:
			}
			continue
		}
		last := list[len(list)-1].ID
		lost := last - after - uint64(len(list)) // ids grow by one
		for i := range list {
			if list[i].Kind == event.KindNACK {
				continue
			}
			b, err := proto.Marshal(wireEvent(&list[i]))
			if err != nil {
				lost++ // text that is not UTF-8
				continue
			}
			records = append(records, b)
		}
		s.mu.Lock()
		s.given, s.total = last, s.total+lost
		switch {
		case len(records) == 0:
			if s.acked == after { // nothing is under way, and there is nothing to send
				s.acked = last
			}
		case lost > 0:
			s.lost[last] = lost
		}
		s.mu.Unlock()
		if len(records) > 0 {
			return records, last, nil
		}
	}
}

// Ack implements Source.
func (s *eventSource) Ack(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = max(s.acked, sequence)
	for id := range s.lost {
		if id <= sequence {
			delete(s.lost, id)
		}
	}
}

// Pending implements Pender, as far as events are to be handed over.
func (s *eventSource) Pending() int {
	s.mu.Lock()
	acked := s.acked
	s.mu.Unlock()
	list, _, _ := s.log.After(acked, event.Filter{}, len(event.Kinds)*event.DefaultPerKind)
	return len(slices.DeleteFunc(list, func(e event.Event) bool { return e.Kind == event.KindNACK }))
}

func (s *eventSource) lostBefore(sequence uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[sequence]
}

func (s *eventSource) lostSoFar() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func wireEvent(e *event.Event) *sidecarv1.Event {
	w := &sidecarv1.Event{
		Id: e.ID, Time: timestamppb.New(e.Time), Kind: e.Kind, Type: e.Type, Cluster: e.Cluster, Endpoint: e.Endpoint, Name: e.Name, Message: e.Message,
	}
	if !e.Until.IsZero() {
		w.Until = timestamppb.New(e.Until)
	}
	for _, n := range e.Numbers {
		w.Numbers = append(w.Numbers, &sidecarv1.Number{Name: n.Name, Value: n.Value})
	}
	return w
}

type eventUpload struct {
	grpc.BidiStreamingClient[sidecarv1.EventBatch, sidecarv1.EventAck]
	source *eventSource
}

func eventStream(c sidecarv1.SidecarServiceClient, s *eventSource) openStream {
	return func(ctx context.Context) (stream, error) {
		st, err := c.UploadEvents(ctx, grpc.WaitForReady(true))
		return eventUpload{st, s}, err
	}
}

func (s eventUpload) send(from *sidecarv1.Sender, sequence uint64, records [][]byte) error {
	return s.Send(&sidecarv1.EventBatch{Sender: from, Sequence: sequence, Events: records, Lost: s.source.lostBefore(sequence)})
}

func (s eventUpload) recv() (uint64, uint32, error) {
	ack, err := s.Recv()
	return ack.GetSequence(), ack.GetRefused(), err
}

// What a report of the state says, and how often.
const (
	maxReported   = 256
	reportValid   = 30 * time.Second
	reportAgain   = reportValid / 3
	reportLook    = time.Second // how soon a change is told
	reportTimeout = 5 * time.Second
)

// reporter tells the control plane which endpoints are left out, while any are.
type reporter struct {
	// Set once.
	client  sidecarv1.SidecarServiceClient
	sender  *sidecarv1.Sender
	ejected func() []Ejected
	log     *slog.Logger

	// Owned by run.
	told  []Ejected
	at    time.Time // of the last report that was taken; zero: none is wanted
	quiet bool      // the last one failed, and that was logged
}

// run looks until ctx ends.
func (r *reporter) run(ctx context.Context) {
	tick := time.NewTicker(reportLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wait := r.look(ctx, time.Now())
		if wait > 0 && !pause(ctx, wait) {
			return
		}
	}
}

// look reports what has changed, or what would be stale soon. It returns how long not to
// look again.
func (r *reporter) look(ctx context.Context, now time.Time) time.Duration {
	list := r.ejected()
	changed := !slices.EqualFunc(list, r.told, func(a, b Ejected) bool {
		return a.Cluster == b.Cluster && a.Endpoint == b.Endpoint && a.Since.Equal(b.Since)
	})
	if !changed && (len(list) == 0 || now.Sub(r.at) < reportAgain) {
		return 0
	}
	report := &sidecarv1.StateReport{Sender: r.sender, Valid: durationpb.New(reportValid), MoreEjected: uint32(max(len(list)-maxReported, 0))}
	for _, x := range list[:min(len(list), maxReported)] {
		report.Ejected = append(report.Ejected, &sidecarv1.EjectedEndpoint{
			Cluster: x.Cluster, Endpoint: x.Endpoint, Detector: x.Detector, Ejections: x.Ejections, Since: timestamppb.New(x.Since), Until: timestamppb.New(x.Until),
		})
	}
	limited, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := r.client.ReportState(limited, report)
	switch {
	case err == nil:
		r.told, r.at, r.quiet = list, now, false
		return 0
	case ctx.Err() != nil:
		return 0
	case status.Code(err) == codes.Unimplemented:
		return unimplementedWait
	}
	if !r.quiet {
		r.quiet = true
		r.log.Warn("the control plane was not told which endpoints are ejected; tried again", "ejected", len(list), "error", err)
	}
	return 0
}

var (
	_ Source = (*eventSource)(nil)
	_ Pender = (*eventSource)(nil)
)
