// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
)

// maxBatchRecords bounds the elements of one batch; its bytes are bounded by the
// server's message limit.
const maxBatchRecords = 16_384

// TapSink stores tapped traffic; *lake.Lake is one.
type TapSink interface {
	// Append returns when the records, each in the encoding of pkg/tap, survive a
	// crash. They belong to the caller again when it has returned. A batch that was
	// stored before, by node, boot and sequence, is not stored again. An error that
	// wraps lake.ErrInvalid makes the sidecar drop the batch; after any other it
	// comes again.
	Append(ctx context.Context, node, boot string, sequence uint64, records [][]byte) error
}

var _ TapSink = (*lake.Lake)(nil)

// SpanSink keeps spans, each a Zipkin version 2 JSON object, and says how many it
// did not understand. *spans.Store is one.
type SpanSink interface {
	AddEncoded(spans [][]byte) (refused int)
}

// UploadTap implements the wire's method.
func (h *handler) UploadTap(stream grpc.BidiStreamingServer[sidecarv1.TapBatch, sidecarv1.TapAck]) error {
	if h.tap == nil {
		return status.Error(codes.Unimplemented, "upload tap: this control plane keeps no lake")
	}
	u := upload{service: h.Service, what: uploadTap}
	defer u.end()
	for {
		batch, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if err := u.begin(stream.Context(), batch.GetSender(), batch.GetSequence(), len(batch.GetRecords())); err != nil {
			return err
		}
		if u.fresh(batch.GetSequence()) {
			err := h.tap.Append(stream.Context(), u.node, u.boot, batch.GetSequence(), batch.GetRecords())
			if err != nil {
				return h.toStatus("upload tap", err)
			}
			u.stored(batch.GetSequence())
			h.counts.tapBatches.Add(1)
			h.counts.tapRecords.Add(uint64(len(batch.GetRecords())))
		}
		if err := stream.Send(&sidecarv1.TapAck{Sequence: batch.GetSequence()}); err != nil {
			return err
		}
	}
}

// UploadSpans implements the wire's method.
func (h *handler) UploadSpans(stream grpc.BidiStreamingServer[sidecarv1.SpanBatch, sidecarv1.SpanAck]) error {
	if h.spans == nil {
		return status.Error(codes.Unimplemented, "upload spans: this control plane keeps no spans")
	}
	u := upload{service: h.Service, what: uploadSpans}
	defer u.end()
	for {
		batch, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if err := u.begin(stream.Context(), batch.GetSender(), batch.GetSequence(), len(batch.GetSpans())); err != nil {
			return err
		}
		refused := 0
		if u.fresh(batch.GetSequence()) {
			refused = h.spans.AddEncoded(batch.GetSpans())
			u.stored(batch.GetSequence())
			h.counts.spanBatches.Add(1)
			h.counts.spans.Add(uint64(len(batch.GetSpans())))
		}
		ack := &sidecarv1.SpanAck{Sequence: batch.GetSequence(), Refused: uint32(refused)}
		if err := stream.Send(ack); err != nil {
			return err
		}
	}
}

// upload is the state of one stream.
type upload struct {
	service    *Service
	what       string
	node, boot string
	last       uint64
	counted    bool  // among the open streams
	place      place // if counted
}

// begin checks one batch, and on the first of a stream who sends it.
func (u *upload) begin(ctx context.Context, s *sidecarv1.Sender, sequence uint64, records int) error {
	if u.last == 0 {
		u.node, u.boot = s.GetNode(), s.GetBoot()
		for _, field := range []struct{ name, value string }{{"node", u.node}, {"boot", u.boot}} {
			if len(field.value) > maxTextBytes || field.value == "" {
				return status.Errorf(codes.InvalidArgument, "upload %s: sender.%s: want 1 to %d bytes on the first message",
					u.what, field.name, maxTextBytes)
			}
		}
	}
	if !u.counted {
		if err := allowed(ctx, "upload "+u.what, s.GetService(), u.node); err != nil {
			return err
		}
		at := placeOf(u.what, CallerOf(ctx), u.node)
		if err := u.service.streams.enter(at); err != nil {
			return status.Errorf(codes.ResourceExhausted, "upload %s: %v", u.what, err)
		}
		u.place, u.counted = at, true
	}
	if sequence <= u.last {
		return status.Errorf(codes.InvalidArgument, "upload %s: sequence: %d after %d, want a growing number", u.what, sequence, u.last)
	}
	if records > maxBatchRecords {
		return status.Errorf(codes.InvalidArgument, "upload %s: %d records in a batch, the limit is %d", u.what, records, maxBatchRecords)
	}
	u.last = sequence
	return nil
}

// end gives the stream's place back.
func (u *upload) end() {
	if u.counted {
		u.service.streams.leave(u.place)
	}
}

func (u *upload) key() senderKey { return senderKey{u.what, u.node, u.boot} }

func (u *upload) fresh(sequence uint64) bool {
	if u.service.sequences.last(u.key()) < sequence {
		return true
	}
	u.service.counts.duplicates.Add(1)
	return false
}

func (u *upload) stored(sequence uint64) { u.service.sequences.advance(u.key(), sequence) }

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
