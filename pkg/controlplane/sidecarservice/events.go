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

// How many events one sidecar may report: one that floods must not push out those of
// the others.
const (
	eventBurst     = 1024
	eventPerSecond = 20
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
	of := ""
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
		}
		if err := u.begin(stream.Context(), batch.GetSender(), batch.GetSequence(), len(batch.GetEvents())); err != nil {
			return err
		}
		refused := 0
		if u.fresh(batch.GetSequence()) {
			var list []event.Event
			list, refused = h.readEvents(u.node, batch.GetEvents())
			h.events.Report(u.node, of, list, batch.GetLost())
			u.stored(batch.GetSequence())
			h.counts.events.Add(uint64(len(list)))
			h.counts.eventsRefused.Add(uint64(refused))
			h.counts.eventsLost.Add(batch.GetLost())
		}
		if err := stream.Send(&sidecarv1.EventAck{Sequence: batch.GetSequence(), Refused: uint32(refused)}); err != nil {
			return err
		}
	}
}

// readEvents decodes what is understood, as far as the node may report it.
func (h *handler) readEvents(node string, encoded [][]byte) (list []event.Event, refused int) {
	for _, b := range encoded {
		w := &sidecarv1.Event{}
		if err := proto.Unmarshal(b, w); err != nil || w.GetKind() == "" || w.GetType() == "" || !h.mayReport(node) {
			refused++
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
	return list, refused
}

// mayReport takes from what the node may report.
func (h *handler) mayReport(node string) bool {
	h.reporting.Lock()
	defer h.reporting.Unlock()
	b := h.reporters.of(h.now(), node, eventBurst, eventPerSecond)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
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
	if len(r.GetEjected()) > maxEjected {
		return nil, status.Errorf(codes.InvalidArgument, "report state: ejected: %d endpoints, the limit is %d; more are counted by more_ejected", len(r.GetEjected()), maxEjected)
	}
	if err := h.ejections.put(h.now(), node, service, r); err != nil {
		return nil, status.Error(codes.ResourceExhausted, "report state: "+err.Error())
	}
	return &sidecarv1.StateResponse{}, nil
}
