// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// Bounds on what a sidecar may say of itself. The registry checks the meaning.
const (
	maxTextBytes     = 253
	maxMetadataBytes = 16 << 10
	maxReasonBytes   = 512
)

// Register implements the wire's method.
func (h *handler) Register(ctx context.Context, r *sidecarv1.RegisterRequest) (*sidecarv1.RegisterResponse, error) {
	instance, err := toInstance(r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "register: "+err.Error())
	}
	if err := h.mayTouch(ctx, "register", mesh.InstanceKey{Service: instance.Service, ID: instance.ID}, instance.Node, instance.MutualTLS); err != nil {
		return nil, err
	}
	lease, err := toLease(r.GetLease())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "register: "+err.Error())
	}
	revision, _, err := h.registry.Register(ctx, instance, lease, registry.Match{})
	if err != nil {
		return nil, h.toStatus("register "+instance.Service+"/"+instance.ID, err)
	}
	h.counts.registrations.Add(1)
	return &sidecarv1.RegisterResponse{Revision: revision, Lease: durationpb.New(lease)}, nil
}

// Renew implements the wire's method.
func (h *handler) Renew(ctx context.Context, r *sidecarv1.RenewRequest) (*sidecarv1.RenewResponse, error) {
	key, err := h.toOwnKey(ctx, "renew", r.GetSender(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	lease, err := h.registry.Renew(ctx, key, toHealth(r.GetHealth()))
	if errors.Is(err, registry.ErrNotFound) {
		h.counts.unknown.Add(1)
	}
	if err != nil {
		return nil, h.toStatus("renew "+key.Service+"/"+key.ID, err)
	}
	h.counts.renewals.Add(1)
	return &sidecarv1.RenewResponse{Lease: durationpb.New(lease)}, nil
}

// SetHealth implements the wire's method.
func (h *handler) SetHealth(ctx context.Context, r *sidecarv1.SetHealthRequest) (*sidecarv1.SetHealthResponse, error) {
	key, err := h.toOwnKey(ctx, "set health", r.GetSender(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	health := toHealth(r.GetHealth())
	if health == mesh.HealthUnknown {
		return nil, status.Error(codes.InvalidArgument, "set health: health: want healthy, unhealthy or draining")
	}
	reason := r.GetReason()
	if len(reason) > maxReasonBytes {
		reason = reason[:maxReasonBytes]
	}
	if err := h.registry.SetHealth(ctx, key, health); err != nil {
		return nil, h.toStatus("set health of "+key.Service+"/"+key.ID, err)
	}
	h.counts.healthChanges.Add(1)
	h.log.Info("instance health", "service", key.Service, "instance", key.ID, "health", health.String(), "reason", reason)
	return &sidecarv1.SetHealthResponse{}, nil
}

// Deregister implements the wire's method.
func (h *handler) Deregister(ctx context.Context, r *sidecarv1.DeregisterRequest) (*sidecarv1.DeregisterResponse, error) {
	key, err := h.toOwnKey(ctx, "deregister", r.GetSender(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	revision, err := h.registry.Deregister(ctx, key, registry.Match{})
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return nil, h.toStatus("deregister "+key.Service+"/"+key.ID, err)
	}
	h.counts.deregistrations.Add(1)
	return &sidecarv1.DeregisterResponse{Revision: revision}, nil
}

// toInstance checks sizes and ranges and collects every fault.
func toInstance(r *sidecarv1.RegisterRequest) (mesh.Instance, error) {
	in := r.GetInstance()
	if in == nil {
		return mesh.Instance{}, errors.New("instance: required")
	}
	var faults []error
	text := func(field, value string, required bool) string {
		switch {
		case required && value == "":
			faults = append(faults, fmt.Errorf("instance.%s: required", field))
		case len(value) > maxTextBytes:
			faults = append(faults, fmt.Errorf("instance.%s: %d bytes, the limit is %d", field, len(value), maxTextBytes))
		}
		return value
	}
	out := mesh.Instance{
		Service:  text("service", in.GetService(), true),
		ID:       text("id", in.GetId(), true),
		Address:  text("address", in.GetAddress(), true),
		Protocol: text("protocol", in.GetProtocol(), false),
		Region:   text("region", in.GetRegion(), false),
		Zone:     text("zone", in.GetZone(), false),
		Version:  text("version", in.GetVersion(), false),
		Node:     text("node", r.GetSender().GetNode(), false),
		Weight:   in.GetWeight(),
		Health:   toHealth(r.GetHealth()),
		Metadata: maps.Clone(in.GetMetadata()), MutualTLS: in.GetMutualTls(),
	}
	if port := in.GetPort(); port == 0 || port > 65535 {
		faults = append(faults, fmt.Errorf("instance.port: want 1 to 65535, not %d", port))
	} else {
		out.Port = uint16(port)
	}
	size := 0
	for k, v := range in.GetMetadata() {
		size += len(k) + len(v)
	}
	if size > maxMetadataBytes {
		faults = append(faults, fmt.Errorf("instance.metadata: %d bytes, the limit is %d", size, maxMetadataBytes))
	}
	return out, errors.Join(faults...)
}

func toLease(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return DefaultLease, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fmt.Errorf("lease: %w", err)
	}
	if d.AsDuration() <= 0 {
		return 0, fmt.Errorf("lease: want more than 0, not %v", d.AsDuration())
	}
	return min(max(d.AsDuration(), MinLease), MaxLease), nil
}

// toOwnKey reads a key that the caller may speak for.
func (h *handler) toOwnKey(ctx context.Context, op string, s *sidecarv1.Sender, k *sidecarv1.InstanceKey) (mesh.InstanceKey, error) {
	key, err := toKey(op, k)
	if err != nil {
		return key, err
	}
	return key, h.mayTouch(ctx, op, key, s.GetNode(), false)
}

// mayTouch refuses a caller that speaks for an instance which is not its own.
// Somebody unknown, on a port that is open to all, cannot have an identity: neither
// does it register with one, nor is an instance that did any of its business.
func (h *handler) mayTouch(ctx context.Context, op string, key mesh.InstanceKey, node string, claimsIdentity bool) error {
	if err := allowed(ctx, op, key.Service, node); err != nil {
		return err
	}
	if CallerOf(ctx).Means != "" {
		return nil
	}
	secure := claimsIdentity
	if !secure {
		var err error
		if secure, err = h.registry.MutualTLS(ctx, key); err != nil && !errors.Is(err, registry.ErrNotFound) {
			return h.toStatus(op+" "+key.Service+"/"+key.ID, err)
		}
	}
	if secure {
		return status.Errorf(codes.PermissionDenied, "%s: %s/%s has an identity: %s", op, key.Service, key.ID, errStranger)
	}
	return nil
}

func toKey(op string, k *sidecarv1.InstanceKey) (mesh.InstanceKey, error) {
	key := mesh.InstanceKey{Service: k.GetService(), ID: k.GetId()}
	switch {
	case key.Service == "" || len(key.Service) > maxTextBytes:
		return key, status.Errorf(codes.InvalidArgument, "%s: instance.service: want 1 to %d bytes", op, maxTextBytes)
	case key.ID == "" || len(key.ID) > maxTextBytes:
		return key, status.Errorf(codes.InvalidArgument, "%s: instance.id: want 1 to %d bytes", op, maxTextBytes)
	}
	return key, nil
}

// toHealth reads a value of a later version as "not said".
func toHealth(h sidecarv1.Health) mesh.Health {
	switch h {
	case sidecarv1.Health_HEALTH_HEALTHY:
		return mesh.HealthHealthy
	case sidecarv1.Health_HEALTH_UNHEALTHY:
		return mesh.HealthUnhealthy
	case sidecarv1.Health_HEALTH_DRAINING:
		return mesh.HealthDraining
	default:
		return mesh.HealthUnknown
	}
}
