// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// Leases are granted within these bounds, and DefaultLease where none is asked.
const (
	DefaultLease = 10 * time.Second
	MinLease     = time.Second
	MaxLease     = 5 * time.Minute
)

// Registry keeps instances and their leases; *registry.Registry is one. Its errors
// are told apart by errors.Is and errors.As: registry.ErrNotFound makes the
// sidecar register again, field errors (mesh.Errors) tell it that trying again is
// no use, and all others that it is.
type Registry interface {
	// Register returns when the instance survives a crash.
	Register(ctx context.Context, i mesh.Instance, lease time.Duration, m registry.Match) (revision uint64, created bool, err error)
	// Renew returns the lease as it was granted. HealthUnknown leaves the health as
	// it is.
	Renew(ctx context.Context, k mesh.InstanceKey, h mesh.Health) (lease time.Duration, err error)
	SetHealth(ctx context.Context, k mesh.InstanceKey, h mesh.Health) error
	Deregister(ctx context.Context, k mesh.InstanceKey, m registry.Match) (revision uint64, err error)
	// MutualTLS says whether the instance has registered with an identity.
	MutualTLS(ctx context.Context, k mesh.InstanceKey) (bool, error)
}

var _ Registry = (*registry.Registry)(nil)

// Config joins the service to what stands behind it. Registry is required; where
// Tap or Spans is nil, the upload answers UNIMPLEMENTED and sidecars keep what
// they have.
type Config struct {
	Registry Registry
	Tap      TapSink
	Spans    SpanSink
	// Events keeps what sidecars report; nil answers UNIMPLEMENTED.
	Events EventSink
	// Authority signs certificates; nil answers UNIMPLEMENTED.
	Authority Authority
	Logger    *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Service answers sidecars.
type Service struct {
	registry  Registry
	tap       TapSink
	spans     SpanSink
	events    EventSink
	now       func() time.Time
	log       *slog.Logger
	sequences *sequences
	streams   streams
	counts    counts

	ejections ejections
	reporting reporting

	certificates certificates
	stopped      chan struct{} // closed by Stop
}

// Stats counts what sidecars have asked for since the start.
type Stats struct {
	Registrations, Renewals, HealthChanges, Deregistrations uint64
	// Unknown counts renewals of instances that were not known, which sidecars then
	// register again: many of them say that leases are lost.
	Unknown                 uint64
	TapBatches, TapRecords  uint64 // stored
	SpanBatches, Spans      uint64 // received
	Events, EventsRefused   uint64 // reported, and those of them that were not taken
	EventsLost              uint64 // by sidecars, before they could report them
	Duplicates              uint64 // batches that had been stored before
	Failed                  uint64 // calls and batches that were answered with an error
	TapStreams, SpanStreams int    // open now
}

type counts struct {
	registrations, renewals, healthChanges, deregistrations, unknown atomic.Uint64
	tapBatches, tapRecords, spanBatches, spans                       atomic.Uint64
	events, eventsRefused, eventsLost                                atomic.Uint64
	duplicates, failed                                               atomic.Uint64
}

// Stats returns the counters.
func (s *Service) Stats() Stats {
	c := &s.counts
	return Stats{
		Registrations: c.registrations.Load(), Renewals: c.renewals.Load(), HealthChanges: c.healthChanges.Load(),
		Deregistrations: c.deregistrations.Load(), Unknown: c.unknown.Load(),
		TapBatches: c.tapBatches.Load(), TapRecords: c.tapRecords.Load(),
		SpanBatches: c.spanBatches.Load(), Spans: c.spans.Load(),
		Events: c.events.Load(), EventsRefused: c.eventsRefused.Load(), EventsLost: c.eventsLost.Load(),
		Duplicates: c.duplicates.Load(), Failed: c.failed.Load(),
		TapStreams: s.streams.open(uploadTap), SpanStreams: s.streams.open(uploadSpans),
	}
}

// New makes a service; Attach puts it on a gRPC server.
func New(c Config) (*Service, error) {
	if c.Registry == nil {
		return nil, errors.New("sidecar service: registry: required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{
		registry: c.Registry, tap: c.Tap, spans: c.Spans, events: c.Events, now: c.Now, log: c.Logger,
		sequences:    newSequences(maxSenders),
		certificates: certificates{authority: c.Authority, now: c.Now, log: c.Logger},
		stopped:      make(chan struct{}),
	}, nil
}

// Stop ends the streams that sidecars only listen on, so that a graceful stop of
// the gRPC server does not wait for them. It may be called once.
func (s *Service) Stop() { close(s.stopped) }

// Attach registers the service on a gRPC server, before that server serves.
func (s *Service) Attach(r grpc.ServiceRegistrar) {
	sidecarv1.RegisterSidecarServiceServer(r, &handler{Service: s})
}

// handler keeps the methods of the wire out of Service's own.
type handler struct {
	sidecarv1.UnimplementedSidecarServiceServer
	*Service
}

var _ sidecarv1.SidecarServiceServer = (*handler)(nil)

// toStatus turns an error of what stands behind into what the wire says.
func (s *Service) toStatus(op string, err error) error {
	s.counts.failed.Add(1)
	var field *mesh.FieldError
	code := codes.Unavailable
	switch {
	case errors.Is(err, registry.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, lake.ErrInvalid), errors.As(err, &field):
		code = codes.InvalidArgument
	case errors.Is(err, registry.ErrFull), errors.Is(err, lake.ErrFull):
		code = codes.ResourceExhausted
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, fmt.Sprintf("%s: %v", op, err))
}
