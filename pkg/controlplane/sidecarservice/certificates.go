// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// Authority vouches for identities; *identity.Authority is one.
type Authority interface {
	TrustDomain() string
	Issue(now time.Time, key *ecdsa.PublicKey, id identity.ID) (*identity.Issued, error)
	Bundle() *identity.Bundle
	Changes() (changed <-chan struct{}, stop func())
}

var _ Authority = (*identity.Authority)(nil)

// certificates answers requests for certificates.
type certificates struct {
	authority Authority
	now       func() time.Time
	log       *slog.Logger
	limiter   limiter
	refusals  refusals
	counts    CertificateCounts
}

// CertificateCounts counts certificates since the start.
type CertificateCounts struct {
	mu      sync.Mutex
	issued  map[Means]uint64
	refused map[identity.Reason]uint64
}

func (c *CertificateCounts) addIssued(m Means) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issued == nil {
		c.issued = map[Means]uint64{}
	}
	c.issued[m]++
}

func (c *CertificateCounts) addRefused(r identity.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[identity.Reason]uint64{}
	}
	c.refused[r]++
}

// Certificates are the counters: issued by how the caller was known, refused by
// reason.
func (s *Service) Certificates() (issued map[Means]uint64, refused map[identity.Reason]uint64) {
	c := &s.certificates.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.issued), maps.Clone(c.refused)
}

var codeOf = map[identity.Reason]codes.Code{
	identity.ReasonUnauthenticated: codes.Unauthenticated,
	identity.ReasonNotAllowed:      codes.PermissionDenied,
	identity.ReasonRate:            codes.ResourceExhausted,
	identity.ReasonAuthority:       codes.Unavailable,
}

// RequestCertificate implements the wire's method.
func (h *handler) RequestCertificate(ctx context.Context, r *sidecarv1.CertificateRequest) (*sidecarv1.CertificateResponse, error) {
	c := &h.certificates
	if c.authority == nil {
		return nil, status.Error(codes.Unimplemented, "request certificate: this control plane is no authority")
	}
	caller := CallerOf(ctx)
	service := r.GetSender().GetService()
	line := []any{
		"service", clipText(service), "node", clipText(r.GetSender().GetNode()), "means", string(caller.Means), "remote", caller.Remote,
	}
	if caller.Token.ID != "" {
		line = append(line, "token", caller.Token.ID)
	}
	issued, id, err := c.issue(caller, service, r.GetSigningRequest())
	if err != nil {
		reason := identity.ReasonOf(err)
		c.counts.addRefused(reason)
		switch lines := c.refusals.line(c.now()); {
		case lines < maxRefusalLines:
			c.log.Warn("certificate refused", append(line, "reason", string(reason), "error", err)...)
		case lines == maxRefusalLines:
			c.log.Warn("more certificates are refused than are logged; the metric counts them", append(line, "reason", string(reason))...)
		}
		code, ok := codeOf[reason]
		if !ok {
			code = codes.InvalidArgument
		}
		return nil, status.Error(code, "request certificate: "+err.Error())
	}
	c.counts.addIssued(caller.Means)
	c.log.Info("certificate issued", append(line, "identity", id.String(), "serial", issued.Serial, "until", issued.NotAfter.UTC().Format(time.RFC3339))...)
	return &sidecarv1.CertificateResponse{
		Identity: id.String(), Chain: issued.Chain, TrustBundle: c.bundle(issued.Bundle),
		NotBefore: timestamppb.New(issued.NotBefore), NotAfter: timestamppb.New(issued.NotAfter),
	}, nil
}

// clipText bounds what a caller writes into the log.
func clipText(s string) string { return s[:min(len(s), maxTextBytes)] }

// issue checks who asks for what and signs. Errors are refusals.
func (c *certificates) issue(caller Caller, service string, request []byte) (*identity.Issued, identity.ID, error) {
	now := c.now()
	if err := identity.CheckService(service); err != nil {
		return nil, identity.ID{}, &identity.Refusal{Reason: identity.ReasonNames, Err: fmt.Errorf("sender.%w", err)}
	}
	if caller.Means == "" {
		return nil, identity.ID{}, &identity.Refusal{Reason: identity.ReasonUnauthenticated, Err: errStranger}
	}
	if !caller.Allows(service) {
		return nil, identity.ID{}, &identity.Refusal{
			Reason: identity.ReasonNotAllowed, Err: fmt.Errorf("service %q: %s", service, caller.who()),
		}
	}
	// Last, so that nobody uses up what belongs to others.
	if !c.limiter.take(now, caller, service) {
		return nil, identity.ID{}, &identity.Refusal{
			Reason: identity.ReasonRate, Err: errors.New("too many certificates are asked for: try again later"),
		}
	}
	id := identity.ServiceID(c.authority.TrustDomain(), service)
	key, err := identity.CheckRequest(request, id)
	if err != nil {
		return nil, id, err
	}
	issued, err := c.authority.Issue(now, key, id)
	return issued, id, err
}

func (c *certificates) bundle(b *identity.Bundle) *sidecarv1.TrustBundle {
	return &sidecarv1.TrustBundle{TrustDomain: c.authority.TrustDomain(), Roots: b.Roots}
}

// WatchTrustBundle implements the wire's method.
func (h *handler) WatchTrustBundle(r *sidecarv1.WatchTrustBundleRequest, stream grpc.ServerStreamingServer[sidecarv1.TrustBundle]) error {
	c := &h.certificates
	if c.authority == nil {
		return status.Error(codes.Unimplemented, "watch trust bundle: this control plane is no authority")
	}
	node := r.GetSender().GetNode()
	if len(node) > maxTextBytes || node == "" {
		return status.Errorf(codes.InvalidArgument, "watch trust bundle: sender.node: want 1 to %d bytes", maxTextBytes)
	}
	if err := allowed(stream.Context(), "watch trust bundle", r.GetSender().GetService(), node); err != nil {
		return err
	}
	place := placeOf(watchBundle, CallerOf(stream.Context()), node)
	if err := h.streams.enter(place); err != nil {
		return status.Error(codes.ResourceExhausted, "watch trust bundle: "+err.Error())
	}
	defer h.streams.leave(place)
	changed, stop := c.authority.Changes()
	defer stop()
	for {
		if err := stream.Send(c.bundle(c.authority.Bundle())); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-h.stopped:
			return status.Error(codes.Unavailable, "the control plane is stopping")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
