// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"maps"
	"slices"
)

// Model is one immutable state of the mesh.
type Model struct {
	// Revision grows by one with each change of any kind while the process
	// lives. It orders models; it is not the durable revision of an object.
	Revision uint64
	// Services holds every known service: declared by a Service object, or
	// implicit because instances registered.
	Services map[string]*Service
	// Instances of each service, sorted by ID, static addresses included.
	Instances map[string][]*Instance
	// Objects by kind, then name.
	Objects map[string]map[string]Object
}

// Empty is the model before anything is known.
func Empty() *Model {
	return &Model{
		Services:  map[string]*Service{},
		Instances: map[string][]*Instance{},
		Objects:   map[string]map[string]Object{},
	}
}

// Change is one step from a model to the next: exactly one field is set.
type Change struct {
	Put            Object    // a new or changed object
	Delete         Key       // an object that is gone
	PutInstance    *Instance // a new or changed instance
	DeleteInstance InstanceKey
	// DropService forgets an implicit service that has no instances left.
	DropService string
}

// InstanceKey names one instance.
type InstanceKey struct {
	Service string
	ID      string
}

// Apply returns a model with the changes made and the revision raised by one.
// Only the maps that change are copied, each once per call, so callers batch.
func (m *Model) Apply(changes ...Change) *Model {
	e := edit{Model: *m}
	e.Revision++
	for _, c := range changes {
		switch {
		case c.Put != nil:
			e.putObject(c.Put)
		case c.Delete != Key{}:
			e.deleteObject(c.Delete)
		case c.PutInstance != nil:
			e.putInstance(c.PutInstance)
		case c.DeleteInstance != InstanceKey{}:
			e.deleteInstance(c.DeleteInstance)
		case c.DropService != "":
			e.dropService(c.DropService)
		}
	}
	return &e.Model
}

// edit is a model under construction; the flags say which maps are its own.
type edit struct {
	Model
	ownServices, ownInstances, ownObjects bool
	ownKinds                              map[string]bool
	ownLists                              map[string]bool
}

func (e *edit) putObject(o Object) {
	k := o.Key()
	e.kind(k.Kind)[k.Name] = o
	if s, ok := o.(*Service); ok {
		e.services()[k.Name] = s
		e.replaceStatic(s)
	}
}

func (e *edit) deleteObject(k Key) {
	delete(e.kind(k.Kind), k.Name)
	if k.Kind != KindService {
		return
	}
	e.replaceStatic(&Service{Header: Header{Metadata: Metadata{Name: k.Name}}})
	if len(e.Instances[k.Name]) == 0 {
		delete(e.services(), k.Name)
		return
	}
	e.services()[k.Name] = implicitService(k.Name)
}

func (e *edit) putInstance(i *Instance) {
	if e.Services[i.Service] == nil {
		e.services()[i.Service] = implicitService(i.Service)
	}
	list := e.list(i.Service)
	at, found := slices.BinarySearchFunc(list, i.ID, compareID)
	if found {
		list[at] = i
		return
	}
	e.Instances[i.Service] = slices.Insert(list, at, i)
}

func (e *edit) deleteInstance(k InstanceKey) {
	at, found := slices.BinarySearchFunc(e.Instances[k.Service], k.ID, compareID)
	if !found {
		return
	}
	list := slices.Delete(e.list(k.Service), at, at+1)
	e.Instances[k.Service] = list
	if len(list) == 0 {
		delete(e.Instances, k.Service)
	}
}

func (e *edit) dropService(name string) {
	if s := e.Services[name]; s != nil && s.Implicit && len(e.Instances[name]) == 0 {
		delete(e.services(), name)
	}
}

// replaceStatic puts the addresses that a Service lists in place of the ones it listed before.
func (e *edit) replaceStatic(s *Service) {
	name := s.Metadata.Name
	if len(s.Spec.Endpoints) == 0 && !slices.ContainsFunc(e.Instances[name], func(i *Instance) bool { return i.Static }) {
		return
	}
	list := slices.DeleteFunc(e.list(name), func(i *Instance) bool { return i.Static })
	list = append(list, s.staticInstances()...)
	slices.SortFunc(list, func(a, b *Instance) int { return cmp.Compare(a.ID, b.ID) })
	e.Instances[name] = list
	if len(list) == 0 {
		delete(e.Instances, name)
	}
}

func (e *edit) services() map[string]*Service {
	if !e.ownServices {
		e.Services, e.ownServices = maps.Clone(e.Services), true
	}
	return e.Services
}

func (e *edit) list(service string) []*Instance {
	if !e.ownInstances {
		e.Instances, e.ownInstances = maps.Clone(e.Instances), true
		e.ownLists = map[string]bool{}
	}
	if !e.ownLists[service] {
		e.Instances[service] = append(make([]*Instance, 0, len(e.Instances[service])+1), e.Instances[service]...)
		e.ownLists[service] = true
	}
	return e.Instances[service]
}

func (e *edit) kind(kind string) map[string]Object {
	if !e.ownObjects {
		e.Objects, e.ownObjects = maps.Clone(e.Objects), true
		e.ownKinds = map[string]bool{}
	}
	if !e.ownKinds[kind] {
		own := maps.Clone(e.Objects[kind])
		if own == nil {
			own = map[string]Object{}
		}
		e.Objects[kind], e.ownKinds[kind] = own, true
	}
	return e.Objects[kind]
}

func compareID(i *Instance, id string) int { return cmp.Compare(i.ID, id) }

// Object returns the object of that kind and name, or nil.
func (m *Model) Object(k Key) Object { return m.Objects[k.Kind][k.Name] }

// Instance returns one instance, or nil.
func (m *Model) Instance(k InstanceKey) *Instance {
	list := m.Instances[k.Service]
	if at, found := slices.BinarySearchFunc(list, k.ID, compareID); found {
		return list[at]
	}
	return nil
}

// ServiceNames lists every known service in order.
func (m *Model) ServiceNames() []string { return slices.Sorted(maps.Keys(m.Services)) }

// Ordered lists the objects of kind T, the oldest first, then by name: the order
// in which conflicts are decided.
func Ordered[T Object](m *Model, kind string) []T {
	out := make([]T, 0, len(m.Objects[kind]))
	for _, o := range m.Objects[kind] {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b T) int { return compareAge(a.Head(), b.Head()) })
	return out
}

func compareAge(a, b *Header) int {
	return cmp.Or(a.Metadata.CreatedAt.Compare(b.Metadata.CreatedAt), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}
