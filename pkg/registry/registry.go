// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Bounds of a lease and of the table.
const (
	DefaultLease = 30 * time.Second
	MinLease     = time.Second
	MaxLease     = time.Hour

	defaultMaxInstances = 200_000
	tickInterval        = 500 * time.Millisecond
	queueLength         = 1024
	maxBatch            = 4096
)

// Errors of the registry. A bad field is a mesh.Errors.
var (
	ErrNotFound = errors.New("no such instance")
	ErrFull     = errors.New("registry: full")
	ErrClosed   = errors.New("registry: closed")
	// ErrIdentity refuses to put an instance without an identity in place of one that
	// has one.
	ErrIdentity = errors.New("the instance has registered with an identity: take it out first")
)

// RevisionError says that a write asked for a revision that is not the current one.
type RevisionError struct {
	Current uint64 // 0 when there is no such thing
}

func (e *RevisionError) Error() string {
	if e.Current == 0 {
		return "revision: it does not exist"
	}
	return fmt.Sprintf("revision: the current one is %d", e.Current)
}

// Match is a condition on the current revision: none, exactly Revision, that it exists, or that it does not; and on
// the instance that is replaced.
type Match struct {
	Revision uint64
	Exists   bool
	Absent   bool
	// KeepIdentity is for a registration by others than the instance itself.
	KeepIdentity bool
}

// Check compares the condition with the current revision, 0 for absent.
func (m Match) Check(current uint64) error {
	switch {
	case m.Revision != 0 && m.Revision != current, m.Exists && current == 0, m.Absent && current != 0:
		return &RevisionError{Current: current}
	}
	return nil
}

// Write is one durable step: an instance with its lease, or a key to forget.
type Write struct {
	Put    *mesh.Instance
	Lease  time.Duration
	Delete mesh.InstanceKey
}

// Journal makes writes durable. Commit is all or nothing and returns when the
// writes survive a crash.
type Journal interface {
	NextRevision() uint64
	CommitInstances(writes []Write) error
}

// Config of a Registry.
type Config struct {
	Journal Journal
	// Publish receives the changes of each batch, in order, from the registry's
	// goroutine, before the callers are answered. It must not block.
	Publish func([]mesh.Change)
	Guard   Guard
	// MaxInstances bounds the table; 0 means 200 000.
	MaxInstances int
	// Loaded is what the journal held at start; leases start anew.
	Loaded []Write
	Logger *slog.Logger
}

// Registry is the running registry. Its methods may be called from any goroutine.
type Registry struct {
	config Config
	log    *slog.Logger
	start  time.Time
	ops    chan *op
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once

	// Owned by run.
	table   *table
	unsaved map[mesh.InstanceKey]struct{} // whose health the journal could not take yet
}

// New loads the table, publishes it, and starts the registry's goroutine. Close ends it.
func New(c Config) (*Registry, error) {
	if c.Journal == nil || c.Publish == nil {
		return nil, errors.New("registry: journal and publish are required")
	}
	if c.MaxInstances <= 0 {
		c.MaxInstances = defaultMaxInstances
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{
		config: c, log: c.Logger, start: time.Now(), table: newTable(c.Guard, 0), unsaved: map[mesh.InstanceKey]struct{}{},
		ops: make(chan *op, queueLength), stop: make(chan struct{}), done: make(chan struct{}),
	}
	changes := make([]mesh.Change, 0, len(c.Loaded))
	for _, w := range c.Loaded {
		r.table.put(keyOf(w.Put), &entry{inst: w.Put, lease: w.Lease, expires: w.Lease, reported: w.Put.Health}, 0)
		changes = append(changes, mesh.Change{PutInstance: w.Put})
	}
	if len(changes) > 0 {
		c.Publish(changes)
	}
	r.config.Loaded = nil
	go r.run()
	return r, nil
}

// Close ends the registry's goroutine and waits for it. Requests that wait fail with ErrClosed.
func (r *Registry) Close() {
	r.once.Do(func() { close(r.stop) })
	<-r.done
}

// Register makes an instance known, in place of one with the same key, and
// returns its revision; created says that there was none. lease 0 means 30 s.
func (r *Registry) Register(ctx context.Context, inst mesh.Instance, lease time.Duration, m Match) (revision uint64, created bool, err error) {
	if lease == 0 {
		lease = DefaultLease
	}
	errs := inst.Check()
	if lease < MinLease || lease > MaxLease {
		errs = append(errs, &mesh.FieldError{Path: "leaseSeconds", Reason: fmt.Sprintf("want %d to %d seconds, got %g", MinLease/time.Second, MaxLease/time.Second, lease.Seconds())})
	}
	if len(errs) > 0 {
		return 0, false, errs
	}
	inst.Held, inst.Static, inst.Revision = false, false, 0
	o := r.do(ctx, &op{kind: opRegister, key: keyOf(&inst), inst: &inst, lease: lease, match: m})
	return o.revision, o.created, o.err
}

// Renew extends the lease as it was granted and returns its length. HealthUnknown leaves the
// health as it is; a change of it is stored as SetHealth's.
func (r *Registry) Renew(ctx context.Context, k mesh.InstanceKey, h mesh.Health) (time.Duration, error) {
	o := r.do(ctx, &op{kind: opRenew, key: k, health: h})
	return o.lease, o.err
}

// SetHealth changes the health only. It is stored before the answer, so that a restart
// brings nobody back who was taken out; where it cannot be stored it holds all the same, and
// is stored when that is possible again.
func (r *Registry) SetHealth(ctx context.Context, k mesh.InstanceKey, h mesh.Health) error {
	return r.do(ctx, &op{kind: opHealth, key: k, health: h}).err
}

// MutualTLS says whether an instance has registered with an identity. Error: ErrNotFound.
func (r *Registry) MutualTLS(ctx context.Context, k mesh.InstanceKey) (bool, error) {
	o := r.do(ctx, &op{kind: opLook, key: k})
	return o.secure, o.err
}

// Deregister takes an instance out at once. Errors: ErrNotFound, RevisionError, the journal's.
func (r *Registry) Deregister(ctx context.Context, k mesh.InstanceKey, m Match) (revision uint64, err error) {
	o := r.do(ctx, &op{kind: opDeregister, key: k, match: m})
	return o.revision, o.err
}

// Release takes out every instance of a service that the shrink guard holds and says how many.
func (r *Registry) Release(ctx context.Context, service string) (int, error) {
	o := r.do(ctx, &op{kind: opRelease, key: mesh.InstanceKey{Service: service}})
	return o.count, o.err
}

func (r *Registry) do(ctx context.Context, o *op) *op {
	o.done = make(chan struct{})
	select {
	case r.ops <- o:
	case <-ctx.Done():
		return &op{err: ctx.Err()}
	case <-r.stop:
		return &op{err: ErrClosed}
	}
	select {
	case <-o.done:
		return o
	case <-r.done:
		// The goroutine may have answered just before it ended.
		select {
		case <-o.done:
			return o
		default:
			return &op{err: ErrClosed}
		}
	case <-ctx.Done():
		return &op{err: ctx.Err()}
	}
}

func keyOf(i *mesh.Instance) mesh.InstanceKey {
	return mesh.InstanceKey{Service: i.Service, ID: i.ID}
}
