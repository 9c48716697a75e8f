// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// Config of a State.
type Config struct {
	// Dir is the data folder; it is made with mode 0700 when missing.
	Dir string
	// Check builds what the object would become and refuses what cannot be
	// published. It gets the model with the object in it. Nil checks nothing.
	Check  func(m *mesh.Model, o mesh.Object) error
	Guard  registry.Guard
	Logger *slog.Logger
	// Now is the wall clock of creation times; nil is time.Now.
	Now func() time.Time
}

// State is the control plane's state: durable, with the current model.
type State struct {
	config   Config
	log      *slog.Logger
	db       *db
	registry *registry.Registry
	events   *Events

	model atomic.Pointer[mesh.Model]

	ops    chan *objectOp
	stop   chan struct{}
	done   chan struct{}
	closed sync.Once

	// The object writer's: which file owns an object. Read by others under mu.
	sources map[mesh.Key]string
	covered keeping // the API's objects that files cover; likewise
	unread  keeping // the API's objects that are not understood, and that no file covers; likewise

	mu sync.Mutex
	// Guarded by mu.
	subscribers map[chan uint64]struct{}
	fileFaults  map[string]mesh.Errors
}

// Open opens the store in the data folder, loads it, and starts the writers. Close ends them.
func Open(c Config) (*State, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	d, err := openDB(c.Dir)
	if err != nil {
		return nil, err
	}
	s := &State{
		config: c, log: c.Logger, db: d, events: newEvents(),
		ops: make(chan *objectOp, 256), stop: make(chan struct{}), done: make(chan struct{}),
		sources:     map[mesh.Key]string{},
		covered:     keeping{},
		unread:      keeping{},
		subscribers: map[chan uint64]struct{}{},
		fileFaults:  map[string]mesh.Errors{},
	}
	s.model.Store(mesh.Empty())
	instances, err := s.load()
	if err != nil {
		return nil, errors.Join(err, d.bolt.Close())
	}
	s.registry, err = registry.New(registry.Config{
		Journal: d, Publish: s.publishInstances, Guard: c.Guard, Loaded: instances, Logger: c.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, d.bolt.Close())
	}
	go s.run()
	return s, nil
}

func (s *State) load() ([]registry.Write, error) {
	var changes []mesh.Change
	var instances []registry.Write
	err := s.db.load(func(key string, r objectRecord) error {
		if o := s.loadObject(key, r); o != nil {
			changes = append(changes, mesh.Change{Put: o})
		}
		return nil
	}, func(_ string, r instanceRecord) error {
		instances = append(instances, registry.Write{Put: r.Instance, Lease: r.Lease.Std()})
		return nil
	})
	if len(changes) > 0 {
		s.model.Store(s.Model().Apply(changes...))
	}
	return instances, err
}

// loadObject takes a record and returns what is in force of it, or nil. What was written by
// another version and is not understood stays in the store, out of force, in sight.
func (s *State) loadObject(key string, r objectRecord) mesh.Object {
	kind, name, _ := strings.Cut(key, "/")
	k := mesh.Key{Kind: kind, Name: name}
	if r.Source != "" {
		s.sources[k] = r.Source
	}
	if len(r.Covered) > 0 {
		under := readKept(k, r.Covered)
		s.covered[k] = under
		s.complain(k, r.Source, "stored object of the API, which a file covers, is not understood", under.faults)
	}
	o, err := mesh.ParseOne(r.Object)
	if err == nil {
		return o
	}
	faults := asErrors(k, err)
	if r.Source == "" {
		s.unread[k] = &kept{raw: r.Object, faults: faults}
	}
	s.complain(k, r.Source, "stored object is not understood and not in force", faults)
	return nil
}

// complain says what is wrong with a stored object, if anything is.
func (s *State) complain(k mesh.Key, file, what string, faults mesh.Errors) {
	if faults == nil {
		return
	}
	s.log.Error(what, "object", k.String(), "file", file, "error", faults)
	s.events.add(Event{Time: s.config.Now(), Type: EventRejected, Kind: k.Kind, Name: k.Name, Source: file, Message: what + ": " + faults.Error()})
}

// Close ends the writers, waits for them and closes the file. What was
// acknowledged is already on disk.
func (s *State) Close() error {
	s.closed.Do(func() { close(s.stop) })
	<-s.done
	s.registry.Close()
	return s.db.bolt.Close()
}

// Model is the current state of the mesh, immutable.
func (s *State) Model() *mesh.Model { return s.model.Load() }

// Registry is where instances are registered.
func (s *State) Registry() *registry.Registry { return s.registry }

// Note adds an event that happened elsewhere. Its time is set when it has none, and of one
// about an object which services that is about.
func (s *State) Note(e Event) {
	if e.Time.IsZero() {
		e.Time = s.config.Now()
	}
	if o := s.Model().Object(mesh.Key{Kind: e.Kind, Name: e.Name}); o != nil {
		e.Services = mesh.Concerns(o)
	}
	s.events.add(e)
}

// Events is what happened lately.
func (s *State) Events() *Events { return s.events }

// Subscribe returns a channel that carries the revision of the newest model. It
// holds one value, the latest: a slow reader skips models and never blocks a
// writer. cancel closes nothing; it only stops the sends.
func (s *State) Subscribe() (changes <-chan uint64, cancel func()) {
	ch := make(chan uint64, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers[ch] = struct{}{}
	ch <- s.Model().Revision
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, ch)
	}
}

// apply makes the next model. Both writers come here, one at a time.
func (s *State) apply(changes []mesh.Change, events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.Model().Apply(changes...)
	s.model.Store(next)
	s.events.add(events...)
	for ch := range s.subscribers {
		select {
		case <-ch:
		default:
		}
		ch <- next.Revision
	}
}

func (s *State) publishInstances(changes []mesh.Change) {
	now := s.config.Now()
	events := make([]Event, 0, len(changes))
	for _, c := range changes {
		switch {
		case c.PutInstance != nil:
			i := c.PutInstance
			e := Event{Time: now, Type: EventPut, Kind: KindInstance, Name: i.Service + "/" + i.ID, Revision: i.Revision}
			if old := s.Model().Instance(mesh.InstanceKey{Service: i.Service, ID: i.ID}); old != nil && old.Revision == i.Revision {
				e.Type, e.Message = EventHealth, i.Health.String()
				if i.Held {
					e.Message = "lease ended, held by the shrink guard"
				}
			}
			events = append(events, e)
		case c.DeleteInstance != mesh.InstanceKey{}:
			events = append(events, Event{Time: now, Type: EventDelete, Kind: KindInstance, Name: c.DeleteInstance.Service + "/" + c.DeleteInstance.ID})
		}
	}
	s.apply(changes, events)
}

// Source is the file that owns an object, or empty.
func (s *State) Source(k mesh.Key) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sources[k]
}

// PutResult is the answer to a write of an object.
type PutResult struct {
	Object  mesh.Object // as stored, with revision and creation time
	Created bool
	Changed bool // false when the object was already so
	Status  mesh.Status
}

// PutObject stores an object, which belongs to the state from now on. Errors: mesh.Errors for what cannot be published,
// *registry.RevisionError, *OwnedError, ErrNoSpace, ErrReadOnly.
func (s *State) PutObject(ctx context.Context, o mesh.Object, m registry.Match) (PutResult, error) {
	op := s.do(ctx, &objectOp{put: o, match: m})
	return op.result, op.err
}

// CheckObject does all that PutObject does but for writing.
func (s *State) CheckObject(ctx context.Context, o mesh.Object, m registry.Match) (PutResult, error) {
	op := s.do(ctx, &objectOp{put: o, match: m, dryRun: true})
	return op.result, op.err
}

// DeleteObject removes an object and returns the revision of its removal.
func (s *State) DeleteObject(ctx context.Context, k mesh.Key, m registry.Match) (uint64, error) {
	op := s.do(ctx, &objectOp{delete: k, match: m})
	return op.revision, op.err
}

// SyncFiles makes the objects of the configuration folder the stored ones:
// objects of files that are gone are deleted, those of a bad file stay as they were.
func (s *State) SyncFiles(ctx context.Context, files []File) error {
	return s.do(ctx, &objectOp{files: files, sync: true}).err
}

// FileFaults is what is wrong with the files of the configuration folder, by path.
func (s *State) FileFaults() map[string]mesh.Errors {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]mesh.Errors, len(s.fileFaults))
	for k, v := range s.fileFaults {
		out[k] = v
	}
	return out
}

// EncodeObject is the object's JSON, the form that is stored and answered.
func EncodeObject(o mesh.Object) ([]byte, error) { return json.Marshal(o) }
