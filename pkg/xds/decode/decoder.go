// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// MaxResourceBytes bounds one resource. A larger one is refused by name.
const MaxResourceBytes = 4 << 20

// maxInterned bounds the table of interned strings; it starts over when full. An
// entry takes more than a short string: what does not repeat soon is not worth one.
const maxInterned = 1024

// Decoder decodes resources. It is for one goroutine at a time.
type Decoder struct {
	filters  *filter.Registry
	interned map[string]string
	managers map[string]bool // nil: any cluster
}

// NewDecoder makes a decoder that knows the HTTP filters of the registry.
func NewDecoder(filters *filter.Registry) *Decoder {
	if filters == nil {
		filters = filter.NewRegistry()
	}
	return &Decoder{filters: filters, interned: map[string]string{}}
}

// OnlyManagers says that management servers are reached only through these
// clusters, those of the bootstrap: one that is itself fetched could wait for
// itself. Without it any name is taken.
func (d *Decoder) OnlyManagers(clusters []*Resource) {
	d.managers = make(map[string]bool, len(clusters))
	for _, c := range clusters {
		d.managers[c.Name] = true
	}
}

// Ref is a resource that another one needs.
type Ref struct {
	Kind   Kind
	Name   string // "" for all of a scope (SRDS, VHDS)
	Source Source // where it comes from; the zero Source where it has none (clusters)
	NoWait bool   // what refers serves without it
}

// Resource is a decoded resource.
type Resource struct {
	Kind Kind
	Name string
	// Value is a pointer to the kind's struct in pkg/xds/resource (RuntimeLayer
	// for RTDS).
	Value any
	Refs  []Ref
}

// Decode decodes one resource of the kind. wantName is the name that the
// transport gave it ("" if it gave none); it must be the resource's own. The
// error is an *Error.
func (d *Decoder) Decode(kind Kind, wantName string, a *anypb.Any) (*Resource, error) {
	t := &types[kind]
	j := d.job(kind, wantName)
	if wantName == "" {
		j.name, _ = d.Name(kind, a)
	}
	if a.GetTypeUrl() != t.URL {
		j.fail(nil, "is a %q, want %q", a.GetTypeUrl(), t.URL)
		return nil, j.err()
	}
	if len(a.GetValue()) > MaxResourceBytes {
		j.fail(nil, "has %d bytes, at most %d are accepted", len(a.GetValue()), MaxResourceBytes)
		return nil, j.err()
	}
	m := t.message()
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		j.fail(brokenAt(m.ProtoReflect().Descriptor(), a.GetValue(), nil), "%v", cleanError(err))
		return nil, j.err()
	}
	name := t.name(m)
	if wantName != "" && name != wantName {
		j.fail((*place)(nil).field(string(m.ProtoReflect().Descriptor().Fields().ByNumber(1).Name())), "the resource calls itself %q", name)
		return nil, j.err()
	}
	return d.message(kind, name, m)
}

// Name returns the name that a resource of the kind gives itself, also where the
// rest of it cannot be read; false if there is none.
func (d *Decoder) Name(kind Kind, a *anypb.Any) (string, bool) {
	if a.GetTypeUrl() != types[kind].URL {
		return "", false
	}
	name := nameField(a.GetValue())
	if !utf8.Valid(name) {
		return "", false
	}
	return string(name), len(name) > 0
}

// Message decodes a resource that is already a message of the kind's type.
func (d *Decoder) Message(kind Kind, m proto.Message) (*Resource, error) {
	return d.message(kind, types[kind].name(m), m)
}

func (d *Decoder) message(kind Kind, name string, m proto.Message) (*Resource, error) {
	j := d.job(kind, name)
	j.check(m, nil)
	v := types[kind].decode(j, m)
	if len(j.fields) > 0 {
		return nil, j.err()
	}
	return &Resource{Kind: kind, Name: d.intern(name), Value: v, Refs: j.refs}, nil
}

// job is the decoding of one resource: it collects errors and references.
type job struct {
	*Decoder
	kind   Kind
	name   string
	fields []FieldError
	refs   []Ref
	// hostNames: addresses may be names, as those of DNS clusters are.
	hostNames bool
}

func (d *Decoder) job(kind Kind, name string) *job {
	return &job{Decoder: d, kind: kind, name: name}
}

// need records a reference.
func (j *job) need(kind Kind, name string, src Source) {
	for i := range j.refs {
		if j.refs[i].Kind == kind && j.refs[i].Name == name {
			return
		}
	}
	j.refs = append(j.refs, Ref{Kind: kind, Name: j.intern(name), Source: src})
}

// intern makes equal strings share their bytes: names, regions and hosts repeat
// a thousand times in a large mesh.
func (d *Decoder) intern(s string) string {
	if s == "" || len(s) > 128 {
		return s
	}
	if t, ok := d.interned[s]; ok {
		return t
	}
	if len(d.interned) >= maxInterned {
		d.interned = map[string]string{}
	}
	d.interned[s] = s
	return s
}

// unpack reads the message of an Any into m and checks it like any other. It is
// false if there is nothing to read; other errors do not stop the reader, which
// finds more of them.
func (j *job) unpack(a *anypb.Any, m proto.Message, p *place) bool {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		j.fail(brokenAt(m.ProtoReflect().Descriptor(), a.GetValue(), p), "%v", cleanError(err))
		return false
	}
	j.check(m, p)
	return true
}

// check validates m by the rules of its API and refuses fields nobody reads.
func (j *job) check(m proto.Message, p *place) {
	j.validate(m, p)
	j.strict(m.ProtoReflect(), p)
}

// fail records an error. The first of a path is kept: the rules of the API and
// ours overlap.
func (j *job) fail(p *place, format string, args ...any) {
	if len(j.fields) >= maxFieldErrors {
		return
	}
	j.keep(FieldError{Path: p.String(), Reason: fmt.Sprintf(format, args...)})
}

func (j *job) keep(f FieldError) {
	if len(j.fields) >= maxFieldErrors {
		return
	}
	for i := range j.fields {
		if j.fields[i].Path == f.Path {
			return
		}
	}
	j.fields = append(j.fields, f)
}

func (j *job) err() error {
	return &Error{Kind: j.kind, Name: j.name, Fields: j.fields}
}
