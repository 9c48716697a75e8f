// SPDX-License-Identifier: Apache-2.0

package store

import (
	"maps"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// covered are the objects of the API that files have put theirs in place of, by key.
// Nobody changes the objects.
type covered map[mesh.Key]mesh.Object

// take makes the changes of a draft, in which nil is none any more.
func (c covered) take(changes covered) {
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ mesh.Key, o mesh.Object) bool { return o == nil })
}

// under is the API's object below a file's; nil: there is none.
func (d *draft) under(k mesh.Key) mesh.Object {
	if o, ok := d.covered[k]; ok {
		return o
	}
	return d.s.covered[k] // only the writer, which is here, changes it
}

// cover keeps the API's object that a file's takes the place of, and says so.
func (d *draft) cover(old mesh.Object, source string) (message string) {
	if old == nil || source == "" || d.source(old.Key()) != "" {
		return ""
	}
	d.covered[old.Key()] = old
	d.s.log.Warn("a file covers an object that was made by the API, which is in force again when the file no longer has it", "object", old.Key().String(), "file", source)
	return "it covers the object that was made by the API, which is in force again when the file no longer has it"
}

// uncover puts the API's object back in force where no file has it any more. It was
// checked when it was made; what cannot be built of it now the status says.
func (d *draft) uncover(k mesh.Key) {
	file, old := d.source(k), d.model.Object(k)
	o, err := copyOf(d.under(k))
	if err != nil {
		d.s.log.Error("the API's object that a file covers is not understood", "object", k.String(), "error", err)
		return
	}
	meta := &o.Head().Metadata
	meta.Revision = d.s.db.NextRevision()
	d.covered[k] = nil
	if err := d.stage(o, ""); err != nil {
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

// copyOf is an object that may be changed: those of models may not.
func copyOf(o mesh.Object) (mesh.Object, error) {
	body, err := EncodeObject(o)
	if err != nil {
		return nil, err
	}
	return mesh.ParseOne(body)
}

// Covers reports whether the object is a file's, and the API has made one of the same name,
// which is in force again when no file has it.
func (s *State) Covers(k mesh.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.covered[k] != nil
}
