// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// EventSink keeps what sidecars report; *store.State is one.
type EventSink interface {
	// Report takes events that a sidecar of a service has reported. lost are those that
	// it had no more.
	Report(node, service string, list []event.Event, lost uint64)
}

// UploadEvents implements the wire's method.
func (h *handler) UploadEvents(stream grpc.BidiStreamingServer[sidecarv1.EventBatch, sidecarv1.EventAck]) error {
	if h.events == nil {
		return status.Error(codes.Unimplemented, "upload events: this control plane keeps no events")
	}
	u := upload{service: h.Service, what: uploadEvents}
	defer u.end()
	of, lost := "", uint64(0) // lost are not told yet
	for {
		batch, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if u.last == 0 {
			of = batch.GetSender().GetService()
			if len(of) > maxTextBytes {
				return status.Errorf(codes.InvalidArgument, "upload events: sender.service: longer than %d bytes", maxTextBytes)
			}
			if err := reportsAs(stream.Context(), "upload events", batch.GetSender().GetNode()); err != nil {
				return err
			}
		}
		if err := u.begin(stream.Context(), batch.GetSender(), batch.GetSequence(), len(batch.GetEvents())); err != nil {
			return err
		}
		refused := 0
		if u.fresh(batch.GetSequence()) {
			gone := min(batch.GetLost(), maxLost)
			var list []event.Event
			list, lost = h.takeEvents(CallerOf(stream.Context()), u.node, of, batch.GetEvents(), lost+gone)
			refused = len(batch.GetEvents()) - len(list)
			u.stored(batch.GetSequence())
			h.counts.events.Add(uint64(len(list)))
			h.counts.eventsRefused.Add(uint64(refused))
			h.counts.eventsLost.Add(gone)
		}
		if err := stream.Send(&sidecarv1.EventAck{Sequence: batch.GetSequence(), Refused: uint32(refused)}); err != nil {
			return err
		}
	}
}

// maxLost is what a batch may say to be lost, so that no number makes a counter wrap.
const maxLost = 1 << 32

// takeEvents hands on as many events as the caller may report, and before them how many
// were lost, which costs as much as an event: it is one in the ring. It returns what
// was taken, and the losses that are still to be told.
func (h *handler) takeEvents(c Caller, node, service string, encoded [][]byte, lost uint64) (list []event.Event, untold uint64) {
	want := len(encoded)
	if lost > 0 {
		want++
	}
	granted := h.reporting.grant(h.now(), c, node, want)
	untold = lost
	if lost > 0 && granted > 0 {
		granted, untold = granted-1, 0
	}
	list = readEvents(encoded[:granted])
	if told := lost - untold; len(list) > 0 || told > 0 {
		h.events.Report(node, service, list, told)
	}
	return list, untold
}

// readEvents decodes what is understood: of the kinds and types that there are, without
// refusals of configuration, of which the control plane hears by xDS.
func readEvents(encoded [][]byte) (list []event.Event) {
	for _, b := range encoded {
		w := &sidecarv1.Event{}
		if err := proto.Unmarshal(b, w); err != nil || w.GetKind() == event.KindNACK || !event.Known(w.GetKind(), w.GetType()) {
			continue
		}
		e := event.Event{
			ID: w.GetId(), Kind: w.GetKind(), Type: w.GetType(), Cluster: w.GetCluster(), Endpoint: w.GetEndpoint(), Name: w.GetName(), Message: w.GetMessage(),
		}
		if t := w.GetTime(); t.IsValid() {
			e.Time = t.AsTime()
		}
		if t := w.GetUntil(); t != nil && t.IsValid() {
			e.Until = t.AsTime()
		}
		for _, n := range w.GetNumbers()[:min(len(w.GetNumbers()), event.MaxNumbers)] {
			e.Numbers = append(e.Numbers, event.Number{Name: clipText(n.GetName()), Value: n.GetValue()})
		}
		e.Clip()
		list = append(list, e)
	}
	return list
}

// ReportState implements the wire's method.
func (h *handler) ReportState(ctx context.Context, r *sidecarv1.StateReport) (*sidecarv1.StateResponse, error) {
	node, service := r.GetSender().GetNode(), r.GetSender().GetService()
	if node == "" || len(node) > maxTextBytes || len(service) > maxTextBytes {
		return nil, status.Errorf(codes.InvalidArgument, "report state: sender: want a node of 1 to %d bytes, and a service of no more", maxTextBytes)
	}
	if err := allowed(ctx, "report state", service, node); err != nil {
		return nil, err
	}
	if err := reportsAs(ctx, "report state", node); err != nil {
		return nil, err
	}
	if len(r.GetEjected()) > maxEjected {
		return nil, status.Errorf(codes.InvalidArgument, "report state: ejected: %d endpoints, the limit is %d; more are counted by more_ejected", len(r.GetEjected()), maxEjected)
	}
	if err := h.ejections.put(h.now(), CallerOf(ctx).account(), node, service, r); err != nil {
		return nil, status.Error(codes.ResourceExhausted, "report state: "+err.Error())
	}
	return &sidecarv1.StateResponse{}, nil
}
