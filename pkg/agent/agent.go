// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
)

// DefaultLeaseTTL is how long an instance lives on without a renewal.
const DefaultLeaseTTL = 10 * time.Second

// Instance is what is registered: one copy of a service, as others reach it.
type Instance struct {
	Service, ID  string
	Address      string // an IP address, never the unspecified one
	Port         uint16
	Protocol     string // "http" when empty
	Region, Zone string
	Weight       uint32 // 0 counts as 1
	Version      string
	Metadata     map[string]string
	MutualTLS    bool // the inbound listener takes it, as the service's identity
}

// Config says what an agent does.
type Config struct {
	// Conn leads to the control plane; it is shared with xDS and not closed.
	Conn grpc.ClientConnInterface
	// Node is the xDS node id, Boot is unique to this process.
	Node, Boot string
	// Service is the sidecar's service, also where no instance is registered.
	Service string
	// Instance is registered; nil for a sidecar that only calls others.
	Instance *Instance
	// Configured is closed when the data path serves its first complete
	// configuration: before that nobody may be sent here. Required with Instance.
	Configured <-chan struct{}
	// LeaseTTL is asked for; the control plane may grant another. 0 means the default.
	LeaseTTL time.Duration
	// App is the application's HOST:PORT; empty means not checked, counts as healthy.
	App    string
	Health HealthCheck
	// Objection is what others know against the application beside Health; nil, or an
	// answer of nil, for nothing. It is asked at the interval of Health and must not block.
	Objection func() error
	// Tap and Spans are uploaded; nil for none.
	Tap, Spans Source
	// Events are uploaded; nil for none.
	Events *event.Log
	// Ejected lists the endpoints that are left out now, in the same order each time; nil:
	// nothing is told of them. It must not block.
	Ejected func() []Ejected
	// Certificates are kept valid; nil: the sidecar has no identity.
	Certificates *Certificates
	Logger       *slog.Logger

	// The waits after a failure; 0 means grpcdial's defaults.
	MinBackoff, MaxBackoff time.Duration
}

// Agent speaks with the control plane on behalf of one sidecar.
type Agent struct {
	lease   *lease   // nil without an instance
	checker *checker // nil without an application
	uploads []*uploader
	report  *reporter // nil: none
	board   board

	certificates *Certificates // nil: none
	client       sidecarv1.SidecarServiceClient
	sender       *sidecarv1.Sender
}

// New checks the configuration and makes an agent; Run starts it.
func New(c Config) (*Agent, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = DefaultLeaseTTL
	}
	a := &Agent{}
	client := sidecarv1.NewSidecarServiceClient(c.Conn)
	sender := &sidecarv1.Sender{Node: c.Node, Boot: c.Boot, Service: c.Service}
	a.certificates, a.client, a.sender = c.Certificates, client, sender
	backoff := grpcdial.Backoff{Min: c.MinBackoff, Max: c.MaxBackoff}
	if c.App != "" {
		a.checker = newChecker(c.App, c.Health, &a.board, c.Logger)
		a.checker.objection = c.Objection
	} else {
		a.board.setApp(true, "not checked")
	}
	if c.Instance != nil {
		a.lease = newLease(client, sender, c, a.checker, &a.board)
	}
	if c.Tap != nil {
		a.uploads = append(a.uploads, newUploader("tap", c.Tap, tapStream(client), sender, backoff, c.Logger))
	}
	if c.Spans != nil {
		a.uploads = append(a.uploads, newUploader("spans", c.Spans, spanStream(client), sender, backoff, c.Logger))
	}
	if c.Events != nil {
		src := newEventSource(c.Events)
		a.uploads = append(a.uploads, newUploader(uploadEvents, src, eventStream(client, src), sender, backoff, c.Logger))
	}
	if c.Ejected != nil {
		a.report = &reporter{client: client, sender: sender, ejected: c.Ejected, log: c.Logger}
	}
	return a, nil
}

func (c *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("agent: "+format, args...)) }
	if c.Conn == nil {
		fault("conn: required")
	}
	if c.Node == "" {
		fault("node: required")
	}
	if c.Boot == "" {
		fault("boot: required")
	}
	if c.LeaseTTL < 0 {
		fault("leaseTTL: must not be negative")
	}
	if c.App != "" {
		if _, _, err := net.SplitHostPort(c.App); err != nil {
			fault("app %q: want HOST:PORT", c.App)
		}
	}
	if err := c.Health.validate(); err != nil {
		faults = append(faults, err)
	}
	if i := c.Instance; i != nil {
		if c.Configured == nil {
			fault("configured: required with an instance")
		}
		if i.Service == "" || i.ID == "" || i.Address == "" || i.Port == 0 {
			fault("instance: service, id, address and port are required")
		}
	}
	return errors.Join(faults...)
}

// Run works until ctx ends, and returns when everything that it started has
// ended. It may be called once.
func (a *Agent) Run(ctx context.Context) {
	var running sync.WaitGroup
	if a.checker != nil {
		running.Go(func() { a.checker.run(ctx) })
	}
	if a.lease != nil {
		running.Go(func() { a.lease.run(ctx) })
	}
	for _, u := range a.uploads {
		running.Go(func() { u.run(ctx) })
	}
	if a.report != nil {
		running.Go(func() { a.report.run(ctx) })
	}
	if a.certificates != nil {
		running.Go(func() { a.certificates.run(ctx, a.client, a.sender) })
	}
	running.Wait()
}

// Deregister ends the lease's renewal and takes the instance out, trying until
// ctx ends. When it has returned nil, the control plane sends nobody here any
// more; other sidecars learn of it a moment later. Without a registration it does
// nothing. An agent that has left does not register again.
func (a *Agent) Deregister(ctx context.Context) error {
	if a.lease == nil {
		return nil
	}
	return a.lease.leave(ctx)
}

// Bequeath ends the lease's renewal and leaves the instance registered, for a successor
// that registers the same one. The agent does not register again, and Deregister does
// nothing any more. The error is ctx's.
func (a *Agent) Bequeath(ctx context.Context) error {
	if a.lease == nil {
		return nil
	}
	return a.lease.bequeath(ctx)
}

// Flush waits until everything that the sources hold has been acknowledged, or
// until ctx ends; then it says how much is left. Events are waited for half a second.
func (a *Agent) Flush(ctx context.Context) error {
	ticker := time.NewTicker(flushPoll)
	defer ticker.Stop()
	began := time.Now()
	for {
		var left []error
		for _, u := range a.uploads {
			if u.name == uploadEvents && time.Since(began) > flushEvents {
				continue // nothing that is kept: a control plane that is away holds nobody up
			}
			if n := u.pending(); n > 0 {
				left = append(left, fmt.Errorf("flush %s: %d not yet acknowledged", u.name, n))
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(left...)
		case <-ticker.C:
		}
	}
}

// flushPoll is short beside the round trip that it waits for.
const flushPoll = 5 * time.Millisecond

const flushEvents = 500 * time.Millisecond
