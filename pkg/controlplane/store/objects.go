// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// ErrNotFound says that there is no such object; ErrClosed that the state is closed.
var (
	ErrNotFound = errors.New("no such object")
	ErrClosed   = errors.New("store: closed")
)

// OwnedError refuses a write to an object that a file of the configuration folder owns.
type OwnedError struct {
	Key  mesh.Key
	File string
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("%s comes from the file %s of the configuration folder, which goes before the API: change it there", e.Key, e.File)
}

// File is one file of the configuration folder.
type File struct {
	Path    string
	Objects []mesh.Object
	// Errors make the file bad: what it held before stays in force.
	Errors mesh.Errors
}

// objectOp is one request to the object writer and its answer. The writer owns
// it until done is closed.
type objectOp struct {
	put    mesh.Object
	delete mesh.Key
	files  []File
	sync   bool
	match  registry.Match
	dryRun bool

	done     chan struct{}
	result   PutResult
	revision uint64
	err      error
}

func (s *State) do(ctx context.Context, o *objectOp) *objectOp {
	o.done = make(chan struct{})
	select {
	case s.ops <- o:
	case <-ctx.Done():
		return &objectOp{err: ctx.Err()}
	case <-s.stop:
		return &objectOp{err: ErrClosed}
	}
	select {
	case <-o.done:
		return o
	case <-ctx.Done():
		return &objectOp{err: ctx.Err()}
	case <-s.done:
		select {
		case <-o.done:
			return o
		default:
			return &objectOp{err: ErrClosed}
		}
	}
}

// run is the object writer. It is started by Open and ended by Close.
func (s *State) run() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case o := <-s.ops:
			batch := []*objectOp{o}
			for more := true; more && len(batch) < cap(s.ops); {
				select {
				case o := <-s.ops:
					batch = append(batch, o)
				default:
					more = false
				}
			}
			s.process(batch)
		}
	}
}

// draft is the state as a batch would leave it.
type draft struct {
	s       *State
	model   *mesh.Model
	sources map[mesh.Key]string // overrides of State.sources, empty string for none
	covered keeping             // overrides of State.covered, nil for none
	unread  keeping             // overrides of State.unread, nil for none
	puts    []put
	changes []mesh.Change
	events  []Event
	now     time.Time
}

func (s *State) process(batch []*objectOp) {
	d := &draft{s: s, model: s.Model(), sources: map[mesh.Key]string{}, covered: keeping{}, unread: keeping{}, now: s.config.Now().UTC().Truncate(time.Millisecond)}
	faults := s.FileFaults()
	for _, o := range batch {
		switch {
		case o.sync:
			faults = d.syncFiles(o.files)
		case o.put != nil:
			o.result, o.err = d.put(o.put, "", o.match, o.dryRun)
		default:
			o.revision, o.err = d.remove(o.delete, "", o.match)
		}
	}
	if err := d.commit(faults); err != nil {
		for _, o := range batch {
			if o.err == nil && !o.dryRun {
				o.err = err
			}
		}
	}
	for _, o := range batch {
		close(o.done)
	}
}

// commit writes and publishes the draft.
func (d *draft) commit(faults map[string]mesh.Errors) error {
	s := d.s
	if len(d.puts) > 0 {
		if err := s.db.commit(d.puts); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for k, v := range d.sources {
		s.sources[k] = v
		if v == "" {
			delete(s.sources, k)
		}
	}
	s.covered.take(d.covered)
	s.unread.take(d.unread)
	s.fileFaults = faults
	s.mu.Unlock()
	if len(d.changes) > 0 {
		s.apply(d.changes, d.events)
		return nil
	}
	s.events.add(d.events...)
	return nil
}

func (d *draft) source(k mesh.Key) string {
	if src, ok := d.sources[k]; ok {
		return src
	}
	return d.s.sources[k] // only the writer, which is here, changes it
}

func revisionOf(o mesh.Object) uint64 {
	if o == nil {
		return 0
	}
	return o.Head().Metadata.Revision
}

// put puts an object on behalf of source, a file or (empty) the API.
func (d *draft) put(o mesh.Object, source string, m registry.Match, dryRun bool) (PutResult, error) {
	k := o.Key()
	old := d.model.Object(k)
	if owner := d.source(k); source == "" && owner != "" {
		return PutResult{}, &OwnedError{Key: k, File: owner}
	}
	if err := m.Check(revisionOf(old)); err != nil {
		return PutResult{}, err
	}
	meta := &o.Head().Metadata
	meta.Revision, meta.CreatedAt = 0, d.now
	if old != nil {
		meta.Revision, meta.CreatedAt = revisionOf(old), old.Head().Metadata.CreatedAt
		if same(old, o) && d.source(k) == source {
			return PutResult{Object: old, Status: mesh.Review(d.model, old)}, nil
		}
	}
	next := d.model.Apply(mesh.Change{Put: o})
	if check := d.s.config.Check; check != nil {
		if err := check(next, o); err != nil {
			return PutResult{}, asErrors(k, err)
		}
	}
	result := PutResult{Object: o, Created: old == nil, Changed: true, Status: mesh.Review(next, o)}
	if dryRun {
		return result, nil
	}
	meta.Revision = d.s.db.NextRevision()
	back := d.noted(k)
	message := d.cover(k, old, source)
	if err := d.stage(o, source); err != nil {
		back()
		return PutResult{}, err
	}
	before := d.model
	d.model = next
	d.sources[k] = source
	d.changes = append(d.changes, mesh.Change{Put: o})
	d.events = append(d.events, Event{Time: d.now, Type: EventPut, Kind: k.Kind, Name: k.Name, Revision: meta.Revision, Source: source, Message: message, Services: mesh.Concerns(o), Object: o})
	d.noteConflicts(before, old, o)
	return result, nil
}

func (d *draft) stage(o mesh.Object, source string) error {
	body, err := EncodeObject(o)
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.Key(), err)
	}
	record := objectRecord{Source: source, Object: body}
	if under := d.under(o.Key()); under != nil {
		if record.Covered, err = under.encode(); err != nil {
			return fmt.Errorf("encode %s: %w", o.Key(), err)
		}
	}
	v, err := seal(record)
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.Key(), err)
	}
	d.puts = append(d.puts, put{bucketObjects, o.Key().String(), v})
	return nil
}

func (d *draft) remove(k mesh.Key, source string, m registry.Match) (uint64, error) {
	old := d.model.Object(k)
	if owner := d.source(k); source == "" && owner != "" && old != nil {
		return 0, &OwnedError{Key: k, File: owner}
	}
	if err := m.Check(revisionOf(old)); err != nil {
		return 0, err
	}
	if old == nil {
		return d.removeStrange(k)
	}
	revision := d.s.db.NextRevision()
	before := d.model
	d.model = d.model.Apply(mesh.Change{Delete: k})
	d.sources[k] = ""
	d.puts = append(d.puts, put{bucketObjects, k.String(), nil})
	d.changes = append(d.changes, mesh.Change{Delete: k})
	d.events = append(d.events, Event{Time: d.now, Type: EventDelete, Kind: k.Kind, Name: k.Name, Revision: revision, Source: source, Services: mesh.Concerns(old)})
	d.noteConflicts(before, old, nil)
	return revision, nil
}

// same compares what users write; revision and creation time are equal by now.
func same(a, b mesh.Object) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func asErrors(k mesh.Key, err error) mesh.Errors {
	var list mesh.Errors
	if errors.As(err, &list) {
		return list
	}
	var one *mesh.FieldError
	if errors.As(err, &one) {
		return mesh.Errors{one}
	}
	return mesh.Errors{{Object: k.String(), Reason: err.Error()}}
}

// syncFiles makes the files' objects the stored ones and returns what is wrong with files.
func (d *draft) syncFiles(files []File) map[string]mesh.Errors {
	faults := map[string]mesh.Errors{}
	owner := map[mesh.Key]string{} // by the good files
	bad := map[string]bool{}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	for _, f := range sorted {
		faults[f.Path] = append(faults[f.Path], f.Errors...)
		for _, o := range f.Objects {
			if first, taken := owner[o.Key()]; taken {
				faults[f.Path] = append(faults[f.Path], &mesh.FieldError{File: f.Path, Object: o.Key().String(), Reason: "is in " + first + " too, which comes first"})
			} else if len(f.Errors) == 0 {
				owner[o.Key()] = f.Path
			}
		}
		bad[f.Path] = len(faults[f.Path]) > 0
	}
	for _, f := range sorted {
		if len(f.Errors) > 0 {
			continue
		}
		for _, o := range f.Objects {
			if owner[o.Key()] != f.Path {
				continue
			}
			if _, err := d.put(o, f.Path, registry.Match{}, false); err != nil {
				list := asErrors(o.Key(), err)
				for _, e := range list {
					e.File = f.Path
				}
				faults[f.Path] = append(faults[f.Path], list...)
				bad[f.Path] = true
			}
		}
	}
	d.dropUnowned(owner, bad)
	for path, list := range faults {
		if len(list) == 0 {
			delete(faults, path)
		}
	}
	d.noteFaults(faults)
	return faults
}

// dropUnowned deletes objects whose file no longer has them.
func (d *draft) dropUnowned(owner map[mesh.Key]string, bad map[string]bool) {
	var gone []mesh.Key
	owned := maps.Clone(d.s.sources)
	maps.Copy(owned, d.sources) // a batch may have synchronized before
	for k, src := range owned {
		if src != "" && owner[k] == "" && !bad[src] {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, func(a, b mesh.Key) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
	for _, k := range gone {
		switch {
		case d.under(k) != nil:
			d.uncover(k)
		case d.model.Object(k) == nil: // it was not understood when it was loaded
			d.sources[k] = ""
			d.puts = append(d.puts, put{bucketObjects, k.String(), nil})
		default:
			_, _ = d.remove(k, d.source(k), registry.Match{}) // exists and is owned by the file: cannot fail
		}
	}
}

// noteFaults makes events of files that turned bad or good again.
func (d *draft) noteFaults(now map[string]mesh.Errors) {
	before := d.s.fileFaults // written only by the writer, which is here
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if list := now[path]; list.Error() != before[path].Error() {
			e := Event{Time: d.now, Type: EventRejected, Kind: KindFile, Name: path, Message: "the file has errors; its last good objects stay in force"}
			for _, f := range list {
				e.Errors = append(e.Errors, f.Error())
			}
			d.events = append(d.events, e)
			d.s.log.Error("configuration file is refused, its last good objects stay in force", "file", path, "errors", e.Errors)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if now[path] == nil {
			d.events = append(d.events, Event{Time: d.now, Type: EventRestored, Kind: KindFile, Name: path, Message: "the file is good again, or gone"})
		}
	}
}
