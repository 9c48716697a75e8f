// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// wire writes a plain document as the bytes of a message, without a tree of
// messages in between. Everything that is not certain to be right is left to
// load: its methods return false then, and the bytes are worth nothing.
type wire struct {
	nodes []plainNode
	buf   []byte
}

// toWire turns a plain document into the bytes of a message of the type.
func toWire(data []byte, d protoreflect.MessageDescriptor) ([]byte, bool) {
	nodes, ok := readPlain(data)
	if !ok || nodes[0].kind != mapNode {
		return nil, false
	}
	w := &wire{nodes: nodes, buf: make([]byte, 0, len(data))}
	if !w.fields(0, d, "") {
		return nil, false
	}
	return w.buf, true
}

// fields writes the fields of the map at i but for the key skip.
func (w *wire) fields(i int, d protoreflect.MessageDescriptor, skip string) bool {
	var few [16]protoreflect.FieldDescriptor
	given := few[:0]
	for c := i + 1; c < int(w.nodes[i].end); c = int(w.nodes[c].end) {
		key := w.nodes[c].key
		if key == skip {
			skip = "" // once
			continue
		}
		f := d.Fields().ByName(protoreflect.Name(key))
		if f == nil {
			f = d.Fields().ByJSONName(key)
		}
		if f == nil {
			return false
		}
		for _, g := range given {
			if g == f || f.ContainingOneof() != nil && g.ContainingOneof() == f.ContainingOneof() {
				return false
			}
		}
		given = append(given, f)
		if !w.field(c, f) {
			return false
		}
	}
	return true
}

func (w *wire) field(i int, f protoreflect.FieldDescriptor) bool {
	n := &w.nodes[i]
	switch {
	case n.kind == nullNode:
		return f.Message() == nil || f.Message().FullName() != "google.protobuf.Value"
	case f.IsMap():
		return w.entries(i, f)
	case f.IsList() && n.kind == listNode:
		for c := i + 1; c < int(n.end); c = int(w.nodes[c].end) {
			if w.nodes[c].kind == nullNode || !w.single(c, f) {
				return false
			}
		}
		return true
	}
	return w.single(i, f)
}

func (w *wire) entries(i int, f protoreflect.FieldDescriptor) bool {
	if w.nodes[i].kind != mapNode || f.MapKey().Kind() != protoreflect.StringKind {
		return false
	}
	seen := map[string]bool{}
	for c := i + 1; c < int(w.nodes[i].end); c = int(w.nodes[c].end) {
		n := &w.nodes[c]
		if seen[n.key] || n.kind == nullNode {
			return false
		}
		seen[n.key] = true
		at := w.open(f)
		w.text(f.MapKey(), n.key)
		if !w.single(c, f.MapValue()) {
			return false
		}
		w.shut(at)
	}
	return true
}

// open begins a field with a length; shut writes the length, which is not known
// before.
func (w *wire) open(f protoreflect.FieldDescriptor) int {
	w.buf = protowire.AppendTag(w.buf, f.Number(), protowire.BytesType)
	return len(w.buf)
}

func (w *wire) shut(at int) {
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(w.buf)-at))
	w.buf = append(w.buf, length[:n]...)
	copy(w.buf[at+n:], w.buf[at:len(w.buf)-n])
	copy(w.buf[at:], length[:n])
}

func (w *wire) text(f protoreflect.FieldDescriptor, s string) {
	w.buf = protowire.AppendTag(w.buf, f.Number(), protowire.BytesType)
	w.buf = protowire.AppendString(w.buf, s)
}

func (w *wire) varint(f protoreflect.FieldDescriptor, v uint64) bool {
	w.buf = protowire.AppendTag(w.buf, f.Number(), protowire.VarintType)
	w.buf = protowire.AppendVarint(w.buf, v)
	return true
}

// single writes one value of a field.
func (w *wire) single(i int, f protoreflect.FieldDescriptor) bool {
	if d := f.Message(); d != nil {
		at := w.open(f)
		if !w.message(i, d) {
			return false
		}
		w.shut(at)
		return true
	}
	n := &w.nodes[i]
	switch f.Kind() {
	case protoreflect.StringKind:
		w.text(f, n.text)
		return n.kind == textNode
	case protoreflect.BoolKind:
		return n.kind == boolNode && w.varint(f, protowire.EncodeBool(n.text == "true"))
	case protoreflect.EnumKind:
		v := f.Enum().Values().ByName(protoreflect.Name(n.text))
		return n.kind == textNode && v != nil && w.varint(f, uint64(v.Number()))
	}
	return n.kind == numberNode && w.number(n.text, f)
}

func (w *wire) number(s string, f protoreflect.FieldDescriptor) bool {
	switch f.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		v, err := strconv.ParseUint(s, 10, 64)
		return err == nil && (f.Kind() == protoreflect.Uint64Kind || v <= math.MaxUint32) && w.varint(f, v)
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		v, err := strconv.ParseInt(s, 10, 64)
		return err == nil && (f.Kind() == protoreflect.Int64Kind || v == int64(int32(v))) && w.varint(f, uint64(v))
	case protoreflect.DoubleKind:
		v, err := strconv.ParseFloat(s, 64)
		w.buf = protowire.AppendTag(w.buf, f.Number(), protowire.Fixed64Type)
		w.buf = protowire.AppendFixed64(w.buf, math.Float64bits(v))
		return err == nil
	}
	return false // rare
}

// message writes the content of a message.
func (w *wire) message(i int, d protoreflect.MessageDescriptor) bool {
	n := &w.nodes[i]
	switch {
	case d.FullName() == "google.protobuf.Any":
		return w.any(i)
	case d.FullName() == "google.protobuf.Duration" && n.kind == textNode:
		return w.duration(n.text)
	case !strings.HasPrefix(string(d.FullName()), "google.protobuf."):
		return n.kind == mapNode && w.fields(i, d, "")
	case strings.HasSuffix(string(d.FullName()), "Value") && d.Fields().Len() == 1 && n.kind != mapNode && n.kind != listNode && n.kind != nullNode:
		return w.single(i, d.Fields().Get(0)) // a wrapper
	}
	return w.other(i, d)
}

func (w *wire) duration(s string) bool {
	if len(s) > 24 || !durationText.MatchString(s) {
		return false
	}
	whole, fraction, _ := strings.Cut(strings.TrimSuffix(s, "s"), ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds > 315_576_000_000 || whole[0] == '-' || whole[0] == '0' && len(whole) > 1 {
		return false
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return false
	}
	if seconds != 0 {
		w.buf = protowire.AppendTag(w.buf, 1, protowire.VarintType)
		w.buf = protowire.AppendVarint(w.buf, uint64(seconds))
	}
	if nanos != 0 {
		w.buf = protowire.AppendTag(w.buf, 2, protowire.VarintType)
		w.buf = protowire.AppendVarint(w.buf, nanos)
	}
	return true
}

// any writes an Any with its value in the order of fields, as protojson does:
// what is compared by bytes must not depend on the order in a file.
func (w *wire) any(i int) bool {
	url := ""
	for c := i + 1; c < int(w.nodes[i].end); c = int(w.nodes[c].end) {
		if n := &w.nodes[c]; n.key == "@type" && n.kind == textNode {
			url = n.text
			break
		}
	}
	if w.nodes[i].kind != mapNode || url == "" {
		return false
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil || strings.HasPrefix(string(mt.Descriptor().FullName()), "google.protobuf.") {
		return false
	}
	start := len(w.buf)
	if !w.fields(i, mt.Descriptor(), "@type") {
		return false
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(w.buf[start:], m); err != nil {
		return false
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return false
	}
	w.buf = protowire.AppendTag(w.buf[:start], 1, protowire.BytesType)
	w.buf = protowire.AppendString(w.buf, url)
	if len(value) > 0 {
		w.buf = protowire.AppendTag(w.buf, 2, protowire.BytesType)
		w.buf = protowire.AppendBytes(w.buf, value)
	}
	return true
}

// other writes messages of special JSON by way of it.
func (w *wire) other(i int, d protoreflect.MessageDescriptor) bool {
	t := treeOf(w.nodes, i)
	if t == nil {
		return false
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return false
	}
	jw := &writer{lines: &lines{at: map[string]int{}}}
	jw.message(t, d, nil)
	m := mt.New().Interface()
	if len(jw.bad) > 0 || (protojson.UnmarshalOptions{}).Unmarshal(jw.buf.Bytes(), m) != nil {
		return false
	}
	out, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(w.buf, m)
	w.buf = out
	return err == nil
}

// treeOf is a part of a plain document as the full parser would give it, without
// lines; nil if a key comes twice.
func treeOf(nodes []plainNode, i int) *node {
	n := &nodes[i]
	out := &node{kind: n.kind, text: n.text}
	seen := map[string]bool{}
	for c := i + 1; c < int(n.end); c = int(nodes[c].end) {
		e := treeOf(nodes, c)
		if e == nil || n.kind == mapNode && seen[nodes[c].key] {
			return nil
		}
		if n.kind == mapNode {
			seen[nodes[c].key] = true
			out.keys = append(out.keys, nodes[c].key)
		}
		out.items = append(out.items, e)
	}
	return out
}
