// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
)

// firstHealthWait is how long registration waits for the first health check, so
// that an application which is up is registered as healthy at once.
const firstHealthWait = 2 * time.Second

// lease keeps one instance registered.
type lease struct {
	// Set once.
	client     sidecarv1.SidecarServiceClient
	sender     *sidecarv1.Sender
	instance   *sidecarv1.Instance
	key        *sidecarv1.InstanceKey
	asked      time.Duration
	configured <-chan struct{}
	checker    *checker // nil: healthy
	board      *board
	log        *slog.Logger

	// Closed by run when it has ended.
	ended chan struct{}
	// attempted is set before the first Register call: from then on the control
	// plane may hold the instance, whatever the call returns.
	attempted atomic.Bool

	mu sync.Mutex
	// Guarded by mu.
	left bool               // leave was called: run must not start
	gone bool               // deregistered, confirmed by the control plane
	stop context.CancelFunc // ends run; nil before it has started

	// Owned by run's goroutine.
	backoff    grpcdial.Backoff
	ttl        time.Duration // as granted
	registered bool
	health     appHealth
}

func newLease(client sidecarv1.SidecarServiceClient, sender *sidecarv1.Sender, c Config, ch *checker, b *board) *lease {
	i := c.Instance
	// A wait longer than the lease would let the instance lapse.
	backoff := grpcdial.Backoff{Min: c.MinBackoff, Max: c.LeaseTTL}
	if c.MaxBackoff > 0 {
		backoff.Max = min(c.MaxBackoff, c.LeaseTTL)
	}
	return &lease{
		client: client, sender: sender,
		instance: &sidecarv1.Instance{
			Service: i.Service, Id: i.ID, Address: i.Address, Port: uint32(i.Port), Protocol: i.Protocol,
			Region: i.Region, Zone: i.Zone, Weight: i.Weight, Version: i.Version, Metadata: i.Metadata, MutualTls: i.MutualTLS,
		},
		key:   &sidecarv1.InstanceKey{Service: i.Service, Id: i.ID},
		asked: c.LeaseTTL, ttl: c.LeaseTTL, configured: c.Configured, checker: ch, board: b,
		log:     c.Logger.With("service", i.Service, "instance", i.ID),
		ended:   make(chan struct{}),
		backoff: backoff,
		health:  appHealth{healthy: ch == nil},
	}
}

// run registers and renews until ctx ends or leave is called.
func (l *lease) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if l.left {
		l.mu.Unlock()
		return
	}
	l.stop = cancel
	l.mu.Unlock()
	defer close(l.ended)
	if !l.awaitStart(ctx) {
		return
	}
	var changes <-chan appHealth
	if l.checker != nil {
		changes = l.checker.changes
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case l.health = <-changes:
			if l.registered {
				l.tellHealth(ctx)
			}
		case <-timer.C:
			timer.Reset(l.step(ctx))
		}
	}
}

// awaitStart waits for the configuration and, for a while, for the first health
// check. It says whether to go on.
func (l *lease) awaitStart(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-l.configured:
	}
	if l.checker == nil {
		return true
	}
	wait := time.NewTimer(firstHealthWait)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return false
	case l.health = <-l.checker.changes:
	case <-wait.C:
	}
	return true
}

// step registers or renews once and returns when to come again.
func (l *lease) step(ctx context.Context) time.Duration {
	var err error
	if l.registered {
		err = l.renew(ctx)
	} else {
		err = l.register(ctx)
	}
	switch {
	case err == nil:
		l.backoff.Reset()
		// A third of the lease leaves two more tries; jitter keeps sidecars that
		// started together apart.
		third := l.ttl / 3
		return third - third/10 + rand.N(third/5+1)
	case ctx.Err() != nil:
		return l.ttl
	case status.Code(err) == codes.NotFound && l.registered:
		l.registered = false
		l.board.setUnregistered("the control plane does not know the instance any more")
		l.log.Info("registering again: the control plane does not know the instance")
		return 0
	default:
		l.board.setRegistryError(err.Error())
		wait := l.backoff.Next()
		l.log.Warn("control plane did not take the registration", "error", err, "retry", wait)
		return wait
	}
}

func (l *lease) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.asked)
	defer cancel()
	l.attempted.Store(true)
	r, err := l.client.Register(ctx, &sidecarv1.RegisterRequest{
		Sender: l.sender, Instance: l.instance, Health: l.health.wire(), Lease: durationpb.New(l.asked),
	}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	l.registered = true
	l.granted(r.GetLease())
	l.log.Info("registered", "address", l.instance.GetAddress(), "port", l.instance.GetPort(), "lease", l.ttl, "revision", r.GetRevision())
	return nil
}

func (l *lease) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(l.ttl/3, time.Second))
	defer cancel()
	r, err := l.client.Renew(ctx, &sidecarv1.RenewRequest{Sender: l.sender, Instance: l.key, Health: l.health.wire()},
		grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	l.granted(r.GetLease())
	return nil
}

// tellHealth need not succeed: the next renewal repeats the health.
func (l *lease) tellHealth(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, max(l.ttl/3, time.Second))
	defer cancel()
	_, err := l.client.SetHealth(ctx, &sidecarv1.SetHealthRequest{
		Sender: l.sender, Instance: l.key, Health: l.health.wire(), Reason: l.health.reason,
	})
	if err != nil {
		l.log.Warn("the control plane was not told of the application's health; the next renewal tells it", "healthy", l.health.healthy, "error", err)
		return
	}
	l.log.Info("application health changed", "healthy", l.health.healthy, "reason", l.health.reason)
}

func (l *lease) granted(d *durationpb.Duration) {
	if ttl := d.AsDuration(); d.IsValid() && ttl > 0 {
		l.ttl = ttl
	}
	l.board.setRegistered(time.Now().Add(l.ttl))
}

// end stops renewals and waits for a call under way to end. gone says that there is
// nothing to take out any more.
func (l *lease) end(ctx context.Context) (gone bool, err error) {
	l.mu.Lock()
	l.left = true
	stop, gone := l.stop, l.gone
	l.mu.Unlock()
	if gone || stop == nil {
		return gone, nil
	}
	stop()
	select {
	case <-l.ended:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// bequeath ends the lease's part in this process and leaves the instance registered.
func (l *lease) bequeath(ctx context.Context) error {
	if _, err := l.end(ctx); err != nil {
		return fmt.Errorf("end renewals: %w", err)
	}
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
	l.board.setUnregistered("a successor has taken over")
	return nil
}

// leave stops renewals, waits for a call under way to end, and deregisters.
func (l *lease) leave(ctx context.Context) error {
	gone, err := l.end(ctx)
	if err != nil {
		return fmt.Errorf("deregister: %w", err)
	}
	if gone || !l.attempted.Load() {
		return nil
	}
	backoff := l.backoff // run has ended
	backoff.Reset()
	for {
		_, err := l.client.Deregister(ctx, &sidecarv1.DeregisterRequest{Sender: l.sender, Instance: l.key})
		if err == nil {
			l.mu.Lock()
			l.gone = true
			l.mu.Unlock()
			l.board.setUnregistered("taken out before draining")
			l.log.Info("deregistered")
			return nil
		}
		if status.Code(err) == codes.InvalidArgument || !pause(ctx, backoff.Next()) {
			return fmt.Errorf("deregister: %w", err)
		}
	}
}

// pause waits and says whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
