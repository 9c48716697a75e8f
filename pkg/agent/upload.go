// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
)

// What may be under way without an acknowledgement.
const (
	windowBatches = 16
	windowBytes   = 4 << 20
)

// ackTimeout ends a stream on which acknowledgements have stopped.
const ackTimeout = 30 * time.Second

// unimplementedWait is how long a control plane is left alone that does not take
// an upload; it may be replaced by one that does.
const unimplementedWait = time.Minute

var (
	errAckTimeout = fmt.Errorf("no acknowledgement for %v", ackTimeout)
	errSourceDone = errors.New("source has ended")
)

// stream is one upload stream, of tap or of spans.
type stream interface {
	send(from *sidecarv1.Sender, sequence uint64, records [][]byte) error
	recv() (sequence uint64, refused uint32, err error)
}

// openStream begins one; it ends with ctx.
type openStream func(ctx context.Context) (stream, error)

type batch struct {
	sequence uint64
	records  [][]byte
	bytes    int
}

// uploader hands the batches of one source over, in order and at least once.
type uploader struct {
	// Set once.
	name   string
	source Source
	open   openStream
	sender *sidecarv1.Sender
	log    *slog.Logger

	// Owned by run's goroutine.
	backoff grpcdial.Backoff

	mu sync.Mutex
	// Guarded by mu.
	unacked []batch
	bytes   int // of unacked
	s       UploadStatus
	// watchdog runs while batches are under way on a stream; nil without a stream.
	watchdog *time.Timer

	// room is signalled when unacked has become shorter.
	room chan struct{}
}

func newUploader(name string, src Source, open openStream, sender *sidecarv1.Sender, b grpcdial.Backoff, log *slog.Logger) *uploader {
	return &uploader{
		name: name, source: src, open: open, sender: sender, backoff: b, log: log.With("upload", name),
		s: UploadStatus{Name: name}, room: make(chan struct{}, 1),
	}
}

// run uploads until ctx or the source ends.
func (u *uploader) run(ctx context.Context) {
	for {
		// A stream is opened only when there is something to send.
		if u.underWay() == 0 {
			if err := u.next(ctx); err != nil {
				return
			}
		}
		before := u.status().AckedBatches
		err := u.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if u.status().AckedBatches > before {
			u.backoff.Reset()
		}
		if errors.Is(err, errSourceDone) && u.underWay() == 0 {
			return
		}
		if !pause(ctx, u.afterFailure(err)) {
			return
		}
	}
}

// afterFailure decides what to do about the end of a stream and returns how long
// to wait.
func (u *uploader) afterFailure(err error) time.Duration {
	wait := u.backoff.Next()
	switch status.Code(err) {
	case codes.Unimplemented:
		wait = unimplementedWait
	case codes.InvalidArgument:
		// The oldest batch is what the control plane was looking at. Sending it again
		// is no use, and it must not block the others.
		u.dropOldest()
	}
	u.mu.Lock()
	u.s.LastError = err.Error()
	u.mu.Unlock()
	u.log.Warn("upload interrupted", "error", err, "retry", wait)
	return wait
}

// session runs one stream until it fails. The receiving half has a goroutine of
// its own, which has ended when session returns.
func (u *uploader) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := u.open(ctx)
	if err != nil {
		return err
	}
	u.watch(time.AfterFunc(ackTimeout, func() { cancel(errAckTimeout) }))
	defer u.watch(nil)
	var receiving sync.WaitGroup
	receiving.Go(func() { cancel(u.receive(st)) })

	err = u.sendAll(ctx, st)
	if err != nil && ctx.Err() == nil && errors.Is(err, io.EOF) {
		// The stream is over; the receiving half learns why.
		receiving.Wait()
	}
	cancel(err)
	receiving.Wait()
	return context.Cause(ctx)
}

// sendAll sends what is under way again and then what the source gives.
func (u *uploader) sendAll(ctx context.Context, st stream) error {
	sent := uint64(0)
	for {
		for _, b := range u.after(sent) {
			if err := st.send(u.sender, b.sequence, b.records); err != nil {
				return err
			}
			sent = b.sequence
		}
		if err := u.awaitRoom(ctx); err != nil {
			return err
		}
		if err := u.next(ctx); err != nil {
			if !errors.Is(err, errSourceDone) {
				return err
			}
			return u.drain(ctx)
		}
	}
}

// drain waits for the last acknowledgements of a source that has ended.
func (u *uploader) drain(ctx context.Context) error {
	for u.underWay() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.room:
		}
	}
	return errSourceDone
}

func (u *uploader) receive(st stream) error {
	for {
		sequence, refused, err := st.recv()
		if err != nil {
			return err
		}
		u.acked(sequence, refused)
	}
}

// watch replaces the watchdog; the old one is stopped.
func (u *uploader) watch(timer *time.Timer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.watchdog != nil {
		u.watchdog.Stop()
	}
	u.watchdog = timer
}

// next takes one batch from the source.
func (u *uploader) next(ctx context.Context) error {
	for {
		records, sequence, err := u.source.Next(ctx)
		if errors.Is(err, io.EOF) {
			return errSourceDone
		}
		if err != nil {
			return err
		}
		b := batch{sequence: sequence, records: records}
		for _, r := range records {
			b.bytes += len(r)
		}
		u.mu.Lock()
		fits := b.bytes <= MaxBatchBytes && len(records) <= MaxBatchRecords
		if fits {
			u.unacked = append(u.unacked, b)
			u.bytes += b.bytes
			if u.watchdog != nil && len(u.unacked) == 1 {
				u.watchdog.Reset(ackTimeout)
			}
			u.mu.Unlock()
			return nil
		}
		u.s.Dropped += uint64(len(records))
		alone := len(u.unacked) == 0
		u.mu.Unlock()
		u.log.Error("batch is too large to upload", "bytes", b.bytes, "records", len(records))
		if alone {
			u.source.Ack(sequence) // otherwise the next acknowledgement covers it
		}
	}
}

// after returns the batches under way that come after a sequence.
func (u *uploader) after(sequence uint64) []batch {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := 0
	for i < len(u.unacked) && u.unacked[i].sequence <= sequence {
		i++
	}
	return append([]batch(nil), u.unacked[i:]...)
}

// awaitRoom waits until another batch may be under way.
func (u *uploader) awaitRoom(ctx context.Context) error {
	for {
		u.mu.Lock()
		full := len(u.unacked) >= windowBatches || u.bytes >= windowBytes
		u.mu.Unlock()
		if !full {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.room:
		}
	}
}

func (u *uploader) acked(sequence uint64, refused uint32) {
	u.mu.Lock()
	n := 0
	for n < len(u.unacked) && u.unacked[n].sequence <= sequence {
		u.bytes -= u.unacked[n].bytes
		u.s.AckedRecords += uint64(len(u.unacked[n].records))
		n++
	}
	u.unacked = append(u.unacked[:0:0], u.unacked[n:]...)
	u.s.AckedBatches += uint64(n)
	u.s.Refused += uint64(refused)
	u.s.LastError = ""
	if u.watchdog != nil {
		u.watchdog.Stop()
		if len(u.unacked) > 0 {
			u.watchdog.Reset(ackTimeout)
		}
	}
	u.mu.Unlock()
	if n == 0 {
		return // repeats what is known
	}
	u.source.Ack(sequence)
	select {
	case u.room <- struct{}{}:
	default:
	}
}

// dropOldest gives a batch up that the control plane will not take.
func (u *uploader) dropOldest() {
	u.mu.Lock()
	if len(u.unacked) == 0 {
		u.mu.Unlock()
		return
	}
	b := u.unacked[0]
	u.unacked = append(u.unacked[:0:0], u.unacked[1:]...)
	u.bytes -= b.bytes
	u.s.Dropped += uint64(len(b.records))
	u.mu.Unlock()
	u.source.Ack(b.sequence)
}

func (u *uploader) underWay() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.unacked)
}

// pending is how many records wait, as far as is known.
func (u *uploader) pending() int {
	if p, ok := u.source.(Pender); ok {
		return p.Pending()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, b := range u.unacked {
		n += len(b.records)
	}
	return n
}

func (u *uploader) status() UploadStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.s
}

type tapUpload struct {
	grpc.BidiStreamingClient[sidecarv1.TapBatch, sidecarv1.TapAck]
}

func tapStream(c sidecarv1.SidecarServiceClient) openStream {
	return func(ctx context.Context) (stream, error) {
		s, err := c.UploadTap(ctx, grpc.WaitForReady(true))
		return tapUpload{s}, err
	}
}

func (s tapUpload) send(from *sidecarv1.Sender, sequence uint64, records [][]byte) error {
	return s.Send(&sidecarv1.TapBatch{Sender: from, Sequence: sequence, Records: records})
}

func (s tapUpload) recv() (uint64, uint32, error) {
	ack, err := s.Recv()
	return ack.GetSequence(), 0, err
}

type spanUpload struct {
	grpc.BidiStreamingClient[sidecarv1.SpanBatch, sidecarv1.SpanAck]
}

func spanStream(c sidecarv1.SidecarServiceClient) openStream {
	return func(ctx context.Context) (stream, error) {
		s, err := c.UploadSpans(ctx, grpc.WaitForReady(true))
		return spanUpload{s}, err
	}
}

func (s spanUpload) send(from *sidecarv1.Sender, sequence uint64, records [][]byte) error {
	return s.Send(&sidecarv1.SpanBatch{Sender: from, Sequence: sequence, Spans: records})
}

func (s spanUpload) recv() (uint64, uint32, error) {
	ack, err := s.Recv()
	return ack.GetSequence(), ack.GetRefused(), err
}
