// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// notSupported is said of a field that exists in the API and that this version
// does not read.
const notSupported = "not supported by this version"

// rules are the field numbers of one message that may be set.
type rules struct {
	read    map[protoreflect.FieldNumber]bool
	ignored map[protoreflect.FieldNumber]bool
}

// compiled holds rules by message, made from the lists of fields.go at first use.
var compiled sync.Map // protoreflect.FullName → *rules

func rulesOf(d protoreflect.MessageDescriptor) *rules {
	if r, ok := compiled.Load(d.FullName()); ok {
		return r.(*rules)
	}
	r := &rules{read: map[protoreflect.FieldNumber]bool{}, ignored: map[protoreflect.FieldNumber]bool{}}
	for _, name := range strings.Fields(read[d.FullName()]) {
		if f := d.Fields().ByName(protoreflect.Name(name)); f != nil {
			r.read[f.Number()] = true
		}
	}
	for i := 0; i < d.Fields().Len(); i++ {
		f := d.Fields().Get(i)
		if _, ok := harmless[f.FullName()]; ok {
			r.ignored[f.Number()] = true
		}
	}
	compiled.Store(d.FullName(), r)
	return r
}

// opaque messages are read as a whole by those that have them.
func opaque(d protoreflect.MessageDescriptor) bool {
	if strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return true
	}
	_, ok := wholes[d.FullName()]
	return ok
}

// strict refuses every populated field of m that decode neither reads nor lists
// as harmless.
func (j *job) strict(m protoreflect.Message, p *place) {
	if n := len(m.GetUnknown()); n > 0 {
		j.fail(p, "has fields that this version of the API does not know (%d bytes)", n)
	}
	r := rulesOf(m.Descriptor())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case r.ignored[f.Number()]:
		case !r.read[f.Number()]:
			j.fail(p.field(string(f.Name())), notSupported)
		case f.IsMap():
			j.strictMap(f, v.Map(), p)
		case f.Message() == nil || opaque(f.Message()):
		case f.IsList():
			for i, l := 0, v.List(); i < l.Len(); i++ {
				j.strict(l.Get(i).Message(), p.item(string(f.Name()), i))
			}
		default:
			j.strict(v.Message(), p.field(string(f.Name())))
		}
		return true
	})
}

func (j *job) strictMap(f protoreflect.FieldDescriptor, m protoreflect.Map, p *place) {
	if f.MapValue().Message() == nil || opaque(f.MapValue().Message()) {
		return
	}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		j.strict(v.Message(), p.entry(string(f.Name()), k.String()))
		return true
	})
}

// validator is what the API's generated validation has.
type validator interface{ ValidateAll() error }

// violation is one error of the generated validation.
type violation interface {
	Field() string
	Reason() string
	Cause() error
}

// validate applies the rules that the API's own messages carry.
func (j *job) validate(m proto.Message, p *place) {
	if v, ok := m.(validator); ok {
		if err := v.ValidateAll(); err != nil {
			j.violations(err, p)
		}
	}
}

func (j *job) violations(err error, p *place) {
	if many, ok := err.(interface{ AllErrors() []error }); ok {
		for _, e := range many.AllErrors() {
			j.violations(e, p)
		}
		return
	}
	v, ok := err.(violation)
	if !ok {
		j.fail(p, "%s", clip(err.Error(), 300))
		return
	}
	at := p.field(snake(v.Field()))
	if v.Cause() != nil {
		j.violations(v.Cause(), at)
		return
	}
	j.fail(at, "%s", clip(v.Reason(), 300))
}

// snake turns a generated Go name into the field's: "LbEndpoints[0]" is
// "lb_endpoints[0]".
func snake(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '[' {
			b.WriteString(s[i:])
			break
		}
		if c >= 'A' && c <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}
