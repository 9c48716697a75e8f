// SPDX-License-Identifier: Apache-2.0

package mesh

import "time"

// Metadata names an object. Revision and CreatedAt are set by the store.
type Metadata struct {
	Name        string            `json:"name" rule:"required,maxlen=253" doc:"Name of the object, unique for its kind."`
	Namespace   string            `json:"namespace,omitempty" rule:"enum=default" doc:"Only \"default\": there is one namespace."`
	Labels      map[string]string `json:"labels,omitzero" rule:"maxitems=64" doc:"Free labels; no meaning to the mesh."`
	Annotations map[string]string `json:"annotations,omitzero" rule:"maxitems=64" doc:"Free notes; no meaning to the mesh."`
	Revision    uint64            `json:"revision,omitempty" doc:"Set by the control plane at each write; a client that sends it back asks for a change of exactly that revision."`
	CreatedAt   time.Time         `json:"createdAt,omitzero" doc:"Set by the control plane; of two objects in conflict the older one wins."`
}

// Header is what every object begins with. Kinds embed it.
type Header struct {
	APIVersion string   `json:"apiVersion" rule:"required" doc:"Group and version of the kind."`
	Kind       string   `json:"kind" rule:"required" doc:"Kind of the object."`
	Metadata   Metadata `json:"metadata" rule:"required" doc:"Name and labels."`
}

// Head gives access to the embedded header.
func (h *Header) Head() *Header { return h }

// Key identifies the object.
func (h *Header) Key() Key { return Key{Kind: h.Kind, Name: h.Metadata.Name} }

// Key names one object.
type Key struct {
	Kind string
	Name string
}

func (k Key) String() string { return k.Kind + "/" + k.Name }

// Object is one user object: a pointer to a kind's struct.
type Object interface {
	Head() *Header
	Key() Key
	// check reports what is wrong with the object by itself.
	check(f *faults)
}

// TargetRef names what a policy is about.
type TargetRef struct {
	Group string `json:"group,omitempty" rule:"enum=outrigger.io" doc:"Group of the target; outrigger.io."`
	Kind  string `json:"kind" rule:"required,enum=Service" doc:"Kind of the target."`
	Name  string `json:"name" rule:"required,maxlen=253" doc:"Name of the target service."`
}

// Unsupported marks a field of the configuration language that this version
// refuses by name, so that nothing a user writes is ignored in silence.
type Unsupported struct{}
