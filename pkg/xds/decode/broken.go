// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// nameField is the first field of a message, which is the name in all types that
// have one: the last value, as protobuf reads it, up to what cannot be read.
func nameField(b []byte) (name []byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return name
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return name
			}
			name, b = v, b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return name
		}
		b = b[n:]
	}
	return name
}

// maxBrokenDepth is how deep brokenAt looks. A hostile resource has as many levels
// as a fifth of its bytes, each of which would cost a hundred times as much stack.
const maxBrokenDepth = 100

// brokenAt finds the field that keeps a message from being read: text that is no
// UTF-8, a message within that is none. It is p itself for bytes that belong to
// no field, and for what is nested deeper than maxBrokenDepth.
func brokenAt(md protoreflect.MessageDescriptor, b []byte, p *place) *place {
	return brokenWithin(md, b, p, maxBrokenDepth)
}

func brokenWithin(md protoreflect.MessageDescriptor, b []byte, p *place, depth int) *place {
	if depth == 0 {
		return p
	}
	seen := map[protowire.Number]int{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return p
		}
		fd := md.Fields().ByNumber(num)
		at := p
		if fd != nil {
			at = p.field(string(fd.Name()))
			if fd.IsList() {
				at = p.item(string(fd.Name()), seen[num])
			}
		}
		seen[num]++
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return at
		}
		if fd != nil && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			switch fd.Kind() {
			case protoreflect.StringKind:
				if !utf8.Valid(v) {
					return at
				}
			case protoreflect.MessageKind:
				if in := brokenWithin(fd.Message(), v, at, depth-1); in != at || !whole(v) {
					return in
				}
			}
		}
		b = b[n:]
	}
	return p
}

// whole reports whether bytes are fields from end to end.
func whole(b []byte) bool {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
