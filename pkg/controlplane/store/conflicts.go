// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// noteConflicts makes events of conflicts that a change has begun or ended: of the object
// itself, and of those that it is in conflict with. old is the object before, now the one
// after; one of them may be nil.
func (d *draft) noteConflicts(before *mesh.Model, old, now mesh.Object) {
	told := map[mesh.Key]bool{}
	earlier, later := mesh.NewReviewer(before), mesh.NewReviewer(d.model)
	tell := func(o mesh.Object) {
		if told[o.Key()] {
			return
		}
		told[o.Key()] = true
		was, is := conflicts(earlier, o.Key()), conflicts(later, o.Key())
		for _, c := range is {
			if !slices.Contains(was, c) {
				d.note(o, EventWarning, c)
			}
		}
		if d.model.Object(o.Key()) == nil {
			return // its deletion says it
		}
		for _, c := range was {
			if !slices.Contains(is, c) {
				d.note(o, EventRestored, "it is over: "+c)
			}
		}
	}
	if now != nil {
		tell(now)
		for _, o := range mesh.Rivals(d.model, now) {
			tell(o)
		}
	}
	if old != nil {
		for _, o := range mesh.Rivals(before, old) {
			tell(o)
		}
	}
}

func (d *draft) note(o mesh.Object, kind, message string) {
	k := o.Key()
	d.events = append(d.events, Event{Time: d.now, Type: kind, Kind: k.Kind, Name: k.Name, Message: message, Services: mesh.Concerns(o)})
	if kind == EventWarning {
		d.s.log.Warn("objects in conflict", "object", k.String(), "conflict", message)
	}
}

// conflicts are the warnings of an object that other objects are the cause of.
func conflicts(x *mesh.Reviewer, k mesh.Key) []string {
	o := x.Model().Object(k)
	if o == nil {
		return nil
	}
	var out []string
	s := x.Review(o)
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if w := c.Warning(); w != "" && (c.Type == mesh.ConditionConflicted || c.Type == mesh.ConditionAccepted) {
			out = append(out, w)
		}
	}
	return out
}
