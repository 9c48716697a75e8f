// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// kept is an object of the API that is in the store and not in force: as a file has put its
// own in its place, or as it is not understood. Nobody changes it.
type kept struct {
	object mesh.Object // nil where it is not understood
	// raw is an object that is not understood, as it was found; faults are why.
	raw    json.RawMessage
	faults mesh.Errors
}

// encode is the object as it is stored: what is not understood stays as it was found.
func (k *kept) encode() ([]byte, error) {
	if k.object == nil {
		return k.raw, nil
	}
	return EncodeObject(k.object)
}

// readKept is an object of the API as it was stored; one that is not understood may be of
// another version.
func readKept(key mesh.Key, raw json.RawMessage) *kept {
	o, err := mesh.ParseOne(raw)
	if err != nil {
		return &kept{raw: raw, faults: asErrors(key, err)}
	}
	return &kept{object: o}
}

// keeping are objects by key.
type keeping map[mesh.Key]*kept

// take makes the changes of a draft, in which nil is none any more.
func (c keeping) take(changes keeping) {
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ mesh.Key, o *kept) bool { return o == nil })
}

// under is the API's object below a file's; nil: there is none.
func (d *draft) under(k mesh.Key) *kept {
	if o, ok := d.covered[k]; ok {
		return o
	}
	return d.s.covered[k] // only the writer, which is here, changes it
}

// strange is the API's object that is not understood, and that no file covers; nil: there is
// none.
func (d *draft) strange(k mesh.Key) *kept {
	if o, ok := d.unread[k]; ok {
		return o
	}
	return d.s.unread[k] // likewise
}

// noted returns what puts back what the draft has noted of the API's object of a name: a
// change that fails leaves nothing behind.
func (d *draft) noted(k mesh.Key) (back func()) {
	covered, isCovered := d.covered[k]
	unread, isUnread := d.unread[k]
	return func() {
		if d.covered[k] = covered; !isCovered {
			delete(d.covered, k)
		}
		if d.unread[k] = unread; !isUnread {
			delete(d.unread, k)
		}
	}
}

// cover keeps the API's object that a file's takes the place of, and says so. What is not
// understood the API itself replaces for good.
func (d *draft) cover(k mesh.Key, old mesh.Object, source string) (message string) {
	strange := d.strange(k)
	if strange != nil {
		d.unread[k] = nil
	}
	switch {
	case source == "" && strange != nil:
		d.s.log.Warn("an object that was made by the API and is not understood is replaced for good", "object", k.String(), "error", strange.faults)
		return "it replaces for good what the API had under this name and is not understood"
	case source == "" || d.source(k) != "":
		return ""
	case strange != nil:
		d.covered[k] = strange
		d.s.log.Error("a file covers an object that was made by the API and is not understood: it is kept as it is, and in the store again when the file no longer has it",
			"object", k.String(), "file", source, "error", strange.faults)
		return "it covers the object that was made by the API, which is not understood: that is kept as it is, and in the store again when the file no longer has it"
	case old == nil:
		return ""
	}
	d.covered[k] = &kept{object: old}
	d.s.log.Warn("a file covers an object that was made by the API, which is in force again when the file no longer has it", "object", k.String(), "file", source)
	return "it covers the object that was made by the API, which is in force again when the file no longer has it"
}

// uncover puts the API's object back where no file has it any more: in force, if it is
// understood. It was checked when it was made; what cannot be built of it now the status says.
func (d *draft) uncover(k mesh.Key) {
	under := d.under(k)
	if under.object == nil {
		d.uncoverStrange(k, under)
		return
	}
	file, old := d.source(k), d.model.Object(k)
	o, err := copyOf(under.object)
	if err != nil {
		d.s.log.Error("the API's object that a file covers is not understood", "object", k.String(), "file", file, "error", err)
		return
	}
	meta := &o.Head().Metadata
	meta.Revision = d.s.db.NextRevision()
	back := d.noted(k)
	d.covered[k] = nil
	if err := d.stage(o, ""); err != nil {
		back()
		d.s.log.Error("the API's object that a file covers cannot be stored", "object", k.String(), "error", err)
		return
	}
	before := d.model
	d.model = d.model.Apply(mesh.Change{Put: o})
	d.sources[k] = ""
	d.changes = append(d.changes, mesh.Change{Put: o})
	d.events = append(d.events, Event{
		Time: d.now, Type: EventPut, Kind: k.Kind, Name: k.Name, Revision: meta.Revision, Services: mesh.Concerns(o), Object: o,
		Message: "the file " + file + " no longer has it: the object that was made by the API is in force again",
	})
	d.noteConflicts(before, old, o)
}

// uncoverStrange puts the API's object that is not understood back in the store, as it was:
// another version may understand it. Nothing of its name is in force.
func (d *draft) uncoverStrange(k mesh.Key, under *kept) {
	v, err := seal(objectRecord{Object: under.raw})
	if err != nil {
		d.s.log.Error("the API's object that a file covers cannot be stored", "object", k.String(), "error", err)
		return
	}
	file, old := d.source(k), d.model.Object(k)
	d.puts = append(d.puts, put{bucketObjects, k.String(), v})
	d.covered[k], d.unread[k], d.sources[k] = nil, under, ""
	message := fmt.Sprintf("the file %s no longer has it: the object that was made by the API is in the store again as it was, and not in force, as it is not understood: %s", file, under.faults)
	d.s.log.Error("an object that was made by the API is in the store again, as the file no longer has it, and not in force, as it is not understood",
		"object", k.String(), "file", file, "error", under.faults)
	if old != nil {
		before := d.model
		d.model = d.model.Apply(mesh.Change{Delete: k})
		d.changes = append(d.changes, mesh.Change{Delete: k})
		d.events = append(d.events, Event{Time: d.now, Type: EventDelete, Kind: k.Kind, Name: k.Name, Revision: d.s.db.NextRevision(), Source: file, Services: mesh.Concerns(old)})
		d.noteConflicts(before, old, nil)
	}
	d.events = append(d.events, Event{Time: d.now, Type: EventRejected, Kind: k.Kind, Name: k.Name, Message: message})
}

// removeStrange deletes an object that is not understood: that can be done without.
func (d *draft) removeStrange(k mesh.Key) (uint64, error) {
	if d.strange(k) == nil {
		return 0, ErrNotFound
	}
	revision := d.s.db.NextRevision()
	d.unread[k] = nil
	d.puts = append(d.puts, put{bucketObjects, k.String(), nil})
	d.events = append(d.events, Event{Time: d.now, Type: EventDelete, Kind: k.Kind, Name: k.Name, Revision: revision, Message: "it was not understood and not in force"})
	return revision, nil
}

// copyOf is an object that may be changed: those of models may not.
func copyOf(o mesh.Object) (mesh.Object, error) {
	body, err := EncodeObject(o)
	if err != nil {
		return nil, err
	}
	return mesh.ParseOne(body)
}

// Covers reports whether the object is a file's, and the API has made one of the same name,
// which is in force again when no file has it; faults are why that one is not understood, and
// so stays out of force then.
func (s *State) Covers(k mesh.Key) (covers bool, faults mesh.Errors) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if under := s.covered[k]; under != nil {
		return true, under.faults
	}
	return false, nil
}

// NotUnderstood are the API's objects that are in the store as they were found, and neither
// in force nor covered by a file, with the reasons.
func (s *State) NotUnderstood() map[mesh.Key]mesh.Errors {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[mesh.Key]mesh.Errors, len(s.unread))
	for k, o := range s.unread {
		out[k] = o.faults
	}
	return out
}
