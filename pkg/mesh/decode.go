// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nodeUnmarshaler is a field that accepts several shapes.
type nodeUnmarshaler interface {
	unmarshalNode(d *decoder, path string, n *node)
}

// decoder fills structs from nodes: unknown fields, wrong types and values
// outside the rules of the field tags are faults at their place.
type decoder struct {
	list Errors
}

func (d *decoder) fault(n *node, path, format string, args ...any) {
	if len(d.list) < maxErrors {
		e := syntaxError(n.line, n.col, format, args...)
		e.Path = path
		d.list = append(d.list, e)
	}
}

var (
	unsupportedType = reflect.TypeFor[Unsupported]()
	timeType        = reflect.TypeFor[time.Time]()
	durationType    = reflect.TypeFor[Duration]()
)

// structFields lists the fields of a struct with embedded ones flattened.
func structFields(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, in := range structFields(f.Type) {
				in.Index = append(slices.Clone(f.Index), in.Index...)
				out = append(out, in)
			}
			continue
		}
		if f.IsExported() && jsonName(f) != "-" {
			out = append(out, f)
		}
	}
	return out
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func (d *decoder) object(n *node, path string, v reflect.Value) {
	if n.kind != nodeMap {
		d.fault(n, path, "want a map, got %s", nodeKindNames[n.kind])
		return
	}
	fields := structFields(v.Type())
	known := make(map[string]reflect.StructField, len(fields))
	for _, f := range fields {
		known[jsonName(f)] = f
	}
	for i, k := range n.keys {
		f, ok := known[k.text]
		at := join(path, k.text)
		switch {
		case !ok:
			d.fault(k, at, "unknown field%s", suggest(k.text, fields))
		case f.Type == reflect.PointerTo(unsupportedType):
			d.fault(k, at, "not supported yet")
		case n.items[i].kind == nodeNull:
			// An empty value is an absent field.
		default:
			d.value(n.items[i], at, v.FieldByIndex(f.Index), parseRules(f))
		}
	}
	for _, f := range fields {
		if c := n.field(jsonName(f)); parseRules(f).required && (c == nil || c.kind == nodeNull) {
			d.fault(n, join(path, jsonName(f)), "missing")
		}
	}
}

func (d *decoder) value(n *node, path string, v reflect.Value, r rules) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(nodeUnmarshaler); ok {
		u.unmarshalNode(d, path, n)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, path, u, v, r)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, path, v)
	case reflect.Slice:
		d.slice(n, path, v, r)
	case reflect.Map:
		d.stringMap(n, path, v, r)
	default:
		d.scalar(n, path, v, r)
	}
}

func (d *decoder) text(n *node, path string, u encoding.TextUnmarshaler, v reflect.Value, r rules) {
	if n.kind != nodeScalar && n.kind != nodeQuoted {
		d.fault(n, path, "want a value, got %s", nodeKindNames[n.kind])
		return
	}
	if v.Type() == timeType && n.text == "" {
		return
	}
	if err := u.UnmarshalText([]byte(n.text)); err != nil {
		if v.Type() == timeType {
			d.fault(n, path, "want a time such as 2026-01-31T12:00:00Z, got %q", clip(n.text))
			return
		}
		d.fault(n, path, "%s", err)
		return
	}
	if reason := r.checkText(v); reason != "" {
		d.fault(n, path, "%s", reason)
	}
}

func (d *decoder) slice(n *node, path string, v reflect.Value, r rules) {
	if n.kind != nodeList {
		d.fault(n, path, "want a list, got %s", nodeKindNames[n.kind])
		return
	}
	if r.maxItems > 0 && len(n.items) > r.maxItems {
		d.fault(n, path, "has %d items, the limit is %d", len(n.items), r.maxItems)
		return
	}
	if len(n.items) < r.minItems {
		d.fault(n, path, "want at least %d item", r.minItems)
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	each := r.element()
	for i, item := range n.items {
		at := index(path, i)
		if item.kind == nodeNull {
			d.fault(item, at, "empty item")
			continue
		}
		d.value(item, at, v.Index(i), each)
		if v.Type().Elem().Kind() == reflect.String && slices.ContainsFunc(n.items[:i], func(o *node) bool { return o.text == item.text }) {
			d.fault(item, at, "%q is listed twice", clip(item.text))
		}
	}
}

func (d *decoder) stringMap(n *node, path string, v reflect.Value, r rules) {
	if n.kind != nodeMap {
		d.fault(n, path, "want a map, got %s", nodeKindNames[n.kind])
		return
	}
	if r.maxItems > 0 && len(n.keys) > r.maxItems {
		d.fault(n, path, "has %d entries, the limit is %d", len(n.keys), r.maxItems)
		return
	}
	out := make(map[string]string, len(n.keys))
	for i, k := range n.keys {
		item := n.items[i]
		if item.kind != nodeScalar && item.kind != nodeQuoted {
			d.fault(item, join(path, k.text), "want a string, got %s", nodeKindNames[item.kind])
			continue
		}
		if len(k.text) > 253 || len(item.text) > 4096 {
			d.fault(item, join(path, clip(k.text)), "key or value is too long, the limits are 253 and 4096 bytes")
			continue
		}
		out[k.text] = item.text
	}
	v.Set(reflect.ValueOf(out))
}

func (d *decoder) scalar(n *node, path string, v reflect.Value, r rules) {
	if n.kind != nodeScalar && n.kind != nodeQuoted {
		d.fault(n, path, "want %s, got %s", typeName(v.Kind()), nodeKindNames[n.kind])
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.text)
		if reason := r.checkString(n.text); reason != "" {
			d.fault(n, path, "%s", reason)
		}
	case reflect.Bool:
		if n.kind == nodeQuoted || n.text != "true" && n.text != "false" {
			d.fault(n, path, "want true or false, got %q", clip(n.text))
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.number(n, path, v, r)
	default:
		d.fault(n, path, "cannot be set")
	}
}

func (d *decoder) number(n *node, path string, v reflect.Value, r rules) {
	lo, hi := r.bounds(v)
	u, err := strconv.ParseUint(n.text, 10, 64)
	switch {
	case n.kind == nodeQuoted || err != nil:
		d.fault(n, path, "want a whole number from %d to %d, got %q", lo, hi, clip(n.text))
	case len(r.enum) > 0 && !slices.Contains(r.enum, n.text):
		d.fault(n, path, "want one of %s, got %s", strings.Join(r.enum, ", "), n.text)
	case u < lo || u > hi:
		d.fault(n, path, "want a whole number from %d to %d, got %s", lo, hi, n.text)
	default:
		v.SetUint(u)
	}
}

func (r rules) bounds(v reflect.Value) (lo, hi uint64) {
	hi = uint64(math.MaxUint64) >> (64 - v.Type().Bits())
	if r.hasMax {
		hi = min(hi, r.max)
	}
	return r.min, hi
}

func typeName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

func join(path, key string) string {
	if path == "" {
		return clip(key)
	}
	return path + "." + clip(key)
}

// suggest names the field that a misspelt one is closest to.
func suggest(key string, fields []reflect.StructField) string {
	best, bestCost := "", 3
	for _, f := range fields {
		name := jsonName(f)
		if strings.EqualFold(name, key) {
			return ", did you mean " + name + "?"
		}
		if c := editDistance(key, name, bestCost); c < bestCost && c <= len(name)/2 {
			best, bestCost = name, c
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}

// editDistance is Levenshtein's, given up at limit.
func editDistance(a, b string, limit int) int {
	if len(a) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
