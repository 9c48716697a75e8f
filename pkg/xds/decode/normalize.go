// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// load reads a YAML or JSON document into m as strictly as Envoy does and as
// forgivingly: an unknown field is an error, a singleton may stand for a list
// and an object for a duration. It returns the lines of all paths.
func load(data []byte, m proto.Message) (*lines, []FieldError) {
	root, bad := parseTree(data)
	if bad != nil {
		return nil, []FieldError{*bad}
	}
	w := &writer{lines: &lines{at: map[string]int{}}}
	w.message(root, m.ProtoReflect().Descriptor(), nil)
	if len(w.bad) > 0 {
		return w.lines, w.bad
	}
	if err := (protojson.UnmarshalOptions{}).Unmarshal(w.buf.Bytes(), m); err != nil {
		return w.lines, []FieldError{w.explain(err)}
	}
	return w.lines, nil
}

// lines knows where each path stands in the file.
type lines struct{ at map[string]int }

// find returns the line of a path, or of the nearest one around it.
func (l *lines) find(path string) int {
	for {
		if n, ok := l.at[path]; ok {
			return n
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return l.at[""]
		}
		path = path[:cut]
	}
}

// writer writes a tree as the JSON that protojson reads, one value a line, so
// that its errors can be traced back.
type writer struct {
	buf   bytes.Buffer
	lines *lines
	rows  []origin // by line of buf
	bad   []FieldError
}

type origin struct {
	path string
	line int
}

func (w *writer) fail(n *node, p *place, format string, args ...any) {
	if len(w.bad) < maxFieldErrors {
		w.bad = append(w.bad, FieldError{Path: p.String(), Line: n.line, Reason: fmt.Sprintf(format, args...)})
	}
}

// put writes a token on a line of its own.
func (w *writer) put(n *node, p *place, s string) {
	w.rows = append(w.rows, origin{p.String(), n.line})
	w.buf.WriteString(s)
	w.buf.WriteByte('\n')
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}

// message writes n as a message.
func (w *writer) message(n *node, d protoreflect.MessageDescriptor, p *place) {
	w.lines.at[p.String()] = n.line
	if w.special(n, d, p) {
		return
	}
	if n.kind != mapNode {
		w.fail(n, p, "must be an object, is %s", n.describe())
		w.put(n, p, "{}")
		return
	}
	w.put(n, p, "{")
	w.fields(n, d, p, false)
	w.put(n, p, "}")
}

// fields writes the fields of a map node; any says that "@type" is one of them.
func (w *writer) fields(n *node, d protoreflect.MessageDescriptor, p *place, any bool) {
	first := !any
	given := map[protoreflect.Name]bool{}
	for i, key := range n.keys {
		v := n.items[i]
		if any && key == "@type" {
			continue
		}
		f := d.Fields().ByName(protoreflect.Name(key))
		if f == nil {
			f = d.Fields().ByJSONName(key)
		}
		if f == nil {
			w.fail(v, p.field(key), "unknown field (of %s)", d.FullName())
			continue
		}
		if given[f.Name()] {
			w.fail(v, p.field(key), "is given twice")
			continue
		}
		given[f.Name()] = true
		if v.kind == nullNode && (f.Message() == nil || f.Message().FullName() != "google.protobuf.Value") {
			continue
		}
		if !first {
			w.put(v, p, ",")
		}
		first = false
		w.put(v, p.field(string(f.Name())), quote(string(f.Name()))+":")
		w.value(v, f, p)
	}
}

// value writes a field's value: a list, a map or a single one.
func (w *writer) value(v *node, f protoreflect.FieldDescriptor, p *place) {
	name := string(f.Name())
	switch {
	case f.IsMap():
		w.entries(v, f, p)
	case f.IsList():
		items := v.items
		if v.kind != listNode {
			items = []*node{v} // Envoy takes a singleton for a list
		}
		w.lines.at[p.field(name).String()] = v.line
		w.put(v, p.field(name), "[")
		for i, e := range items {
			if i > 0 {
				w.put(e, p.field(name), ",")
			}
			w.single(e, f, p.item(name, i))
		}
		w.put(v, p.field(name), "]")
	default:
		w.single(v, f, p.field(name))
	}
}

func (w *writer) entries(v *node, f protoreflect.FieldDescriptor, p *place) {
	at := p.field(string(f.Name()))
	w.lines.at[at.String()] = v.line
	if v.kind != mapNode {
		w.fail(v, at, "must be an object, is %s", v.describe())
		w.put(v, at, "{}")
		return
	}
	w.put(v, at, "{")
	for i, key := range v.keys {
		if i > 0 {
			w.put(v, at, ",")
		}
		here := p.entry(string(f.Name()), key)
		w.put(v.items[i], here, quote(key)+":")
		w.single(v.items[i], f.MapValue(), here)
	}
	w.put(v, at, "}")
}

// single writes one value of a field's type.
func (w *writer) single(v *node, f protoreflect.FieldDescriptor, p *place) {
	if f.Message() != nil {
		w.message(v, f.Message(), p)
		return
	}
	w.lines.at[p.String()] = v.line
	want := ""
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		if v.kind != textNode {
			want = "text"
		}
	case protoreflect.BoolKind:
		if v.kind != boolNode {
			want = "true or false"
		}
	case protoreflect.EnumKind:
		if v.kind == textNode && f.Enum().Values().ByName(protoreflect.Name(v.text)) == nil {
			w.fail(v, p, "%q is no value of %s", clip(v.text, 60), f.Enum().Name())
		} else if v.kind != textNode && v.kind != numberNode {
			want = "a name"
		}
	default:
		if v.kind != numberNode && v.kind != textNode {
			want = "a number"
		}
	}
	if want != "" {
		w.fail(v, p, "must be %s, is %s", want, v.describe())
	}
	w.scalar(v, p)
}

func (w *writer) scalar(v *node, p *place) {
	switch v.kind {
	case textNode:
		w.put(v, p, quote(v.text))
	case nullNode, listNode, mapNode:
		w.put(v, p, "null")
	default:
		w.put(v, p, v.text)
	}
}

// special writes messages whose JSON is not an object of their fields.
func (w *writer) special(n *node, d protoreflect.MessageDescriptor, p *place) bool {
	switch d.FullName() {
	case "google.protobuf.Any":
		w.any(n, p)
	case "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue":
		w.free(n, p)
	case "google.protobuf.Duration":
		w.duration(n, p)
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.UInt32Value", "google.protobuf.UInt64Value", "google.protobuf.Int32Value", "google.protobuf.Int64Value",
		"google.protobuf.DoubleValue", "google.protobuf.FloatValue":
		if n.kind == mapNode && len(n.keys) == 1 && n.keys[0] == "value" {
			n = n.items[0]
		}
		w.single(n, d.Fields().ByName("value"), p)
	case "google.protobuf.Timestamp", "google.protobuf.FieldMask", "google.protobuf.Empty":
		w.free(n, p)
	default:
		return false
	}
	return true
}

// any writes an Any by the type that its @type names.
func (w *writer) any(n *node, p *place) {
	t := n.get("@type")
	if n.kind != mapNode || t == nil || t.kind != textNode {
		w.fail(n, p, "must be an object with @type")
		w.put(n, p, "{}")
		return
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(t.text)
	if err != nil {
		w.fail(t, p, "unknown type %q", clip(t.text, 200))
		w.put(n, p, "{}")
		return
	}
	w.put(n, p, "{")
	w.put(t, p, `"@type": `+quote(t.text))
	if strings.HasPrefix(string(mt.Descriptor().FullName()), "google.protobuf.") {
		if v := n.get("value"); v != nil {
			w.put(v, p, `, "value":`)
			w.message(v, mt.Descriptor(), p.field("value"))
		}
	} else {
		w.fields(n, mt.Descriptor(), p, true)
	}
	w.put(n, p, "}")
}

// free writes a value of any shape.
func (w *writer) free(n *node, p *place) {
	w.lines.at[p.String()] = n.line
	switch n.kind {
	case listNode:
		w.put(n, p, "[")
		for i, e := range n.items {
			if i > 0 {
				w.put(e, p, ",")
			}
			w.free(e, p)
		}
		w.put(n, p, "]")
	case mapNode:
		w.put(n, p, "{")
		for i, key := range n.keys {
			if i > 0 {
				w.put(n, p, ",")
			}
			w.put(n.items[i], p.field(key), quote(key)+":")
			w.free(n.items[i], p.field(key))
		}
		w.put(n, p, "}")
	default:
		w.scalar(n, p)
	}
}

var durationText = regexp.MustCompile(`^-?[0-9]+(\.[0-9]{1,9})?s$`)

// duration writes "1.5s", also where it is given as {seconds, nanos}.
func (w *writer) duration(n *node, p *place) {
	w.lines.at[p.String()] = n.line
	if n.kind == textNode && durationText.MatchString(n.text) {
		w.put(n, p, quote(n.text))
		return
	}
	if n.kind != mapNode {
		w.fail(n, p, `must be a duration such as "1.5s", is %s`, n.describe())
		w.put(n, p, `"0s"`)
		return
	}
	var sec, nanos int64
	for i, key := range n.keys {
		v, err := strconv.ParseInt(n.items[i].text, 10, 64)
		switch {
		case err != nil || n.items[i].kind != numberNode && n.items[i].kind != textNode:
			w.fail(n.items[i], p.field(key), "must be a whole number")
		case key == "seconds":
			sec = v
		case key == "nanos" && v >= 0 && v < 1e9:
			nanos = v
		default:
			w.fail(n.items[i], p.field(key), "a duration has seconds and nanos (0 to 999999999)")
		}
	}
	w.put(n, p, fmt.Sprintf(`"%d.%09ds"`, sec, nanos))
}

func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "null"
	case listNode:
		return "a list"
	case mapNode:
		return "an object"
	case textNode:
		return strconv.Quote(clip(n.text, 60))
	}
	return clip(n.text, 60)
}

var jsonPosition = regexp.MustCompile(`\(line (\d+):\d+\):?\s*`)

// explain finds the path of what protojson refused.
func (w *writer) explain(err error) FieldError {
	out := FieldError{Reason: cleanError(err)}
	m := jsonPosition.FindStringSubmatch(out.Reason)
	if m == nil {
		return out
	}
	out.Reason = strings.TrimSpace(strings.Replace(out.Reason, m[0], "", 1))
	if n, e := strconv.Atoi(m[1]); e == nil && n >= 1 && n <= len(w.rows) {
		out.Path, out.Line = w.rows[n-1].path, w.rows[n-1].line
	}
	return out
}

// File reads a YAML or JSON file into any message, as strictly as a bootstrap.
// The error is a *FileError.
func File(data []byte, file string, m proto.Message) error {
	if raw, ok := toWire(data, m.ProtoReflect().Descriptor()); ok && proto.Unmarshal(raw, m) == nil {
		return nil
	}
	proto.Reset(m)
	if l, bad := load(data, m); bad != nil {
		return fileError(file, l, bad)
	}
	return nil
}
