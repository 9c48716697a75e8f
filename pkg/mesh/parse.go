// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Parsed is one document of a file: an object, or what is wrong with it.
type Parsed struct {
	Object Object // nil when Errors say why
	Line   int    // 1-based line where the document's content begins
	Errors Errors

	root *node
}

// LineOf is the line of a field, or of the deepest one above it that is written.
func (p Parsed) LineOf(path string) int {
	if p.root == nil {
		return p.Line
	}
	return p.root.locate(path).line
}

// ParseEach reads the documents of a file, YAML or JSON, each by itself: a bad
// one leaves the others good. file names the source in errors and may be empty.
func ParseEach(file string, data []byte) []Parsed {
	docs := splitDocuments(data)
	if len(docs) > maxDocuments {
		return []Parsed{{Errors: Errors{{File: file, Reason: "more than 4096 documents"}}}}
	}
	var out []Parsed
	for _, d := range docs {
		n, fault := parseDocument(d)
		switch {
		case fault != nil:
			fault.File = file
			out = append(out, Parsed{Line: fault.Line, Errors: Errors{fault}})
		case n != nil:
			o, errs := decodeObject(n)
			for _, e := range errs {
				e.File = file
			}
			out = append(out, Parsed{Object: o, Line: n.line, Errors: errs, root: n})
		}
	}
	return out
}

// Parse reads every object of a file and fails with all faults of all documents.
func Parse(file string, data []byte) ([]Object, error) {
	var objects []Object
	var errs Errors
	for _, p := range ParseEach(file, data) {
		if errs = append(errs, p.Errors...); p.Object != nil {
			objects = append(objects, p.Object)
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return objects, nil
}

// ErrEmpty is returned by ParseOne for input without an object.
var ErrEmpty = errors.New("no object: want apiVersion, kind, metadata and spec")

// ParseOne reads exactly one object.
func ParseOne(data []byte) (Object, error) {
	objects, err := Parse("", data)
	switch {
	case err != nil:
		return nil, err
	case len(objects) == 0:
		return nil, ErrEmpty
	case len(objects) > 1:
		return nil, Errors{{Reason: "more than one object"}}
	}
	return objects[0], nil
}

// ReadAll reads r up to limit bytes and fails when there are more.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("more than " + Size(limit).String())
	}
	return data, err
}

// DecodeInto reads one document into a struct whose fields carry rule tags, as
// strictly as objects are read. The error is an Errors.
func DecodeInto(data []byte, v any) error {
	n, fault := parseDocument(document{text: data})
	switch {
	case fault != nil:
		return Errors{fault}
	case n == nil:
		return Errors{{Reason: "empty body"}}
	}
	var d decoder
	d.object(n, "", reflect.ValueOf(v).Elem())
	if len(d.list) > 0 {
		return d.list
	}
	return nil
}

func decodeObject(n *node) (Object, Errors) {
	k, fault := kindOf(n)
	if fault != nil {
		return nil, Errors{fault}
	}
	o := k.New()
	n.drop("status") // written by the control plane; what it answers may be applied again
	var d decoder
	d.object(n, "", reflect.ValueOf(o).Elem())
	var f faults
	if len(d.list) == 0 {
		o.check(&f)
	}
	for _, e := range f.list {
		at := n.locate(e.Path)
		e.Line, e.Column = at.line, at.col
	}
	errs := append(d.list, f.list...)
	if len(errs) == 0 {
		return o, nil
	}
	for _, e := range errs {
		e.Object = strings.TrimSuffix(k.Name+"/"+clip(o.Head().Metadata.Name), "/")
	}
	slices.SortStableFunc(errs, func(a, b *FieldError) int { return cmp.Compare(a.Line, b.Line) })
	return nil, errs
}

func kindOf(n *node) (Kind, *FieldError) {
	bad := func(at *node, path, format string, args ...any) (Kind, *FieldError) {
		e := syntaxError(at.line, at.col, format, args...)
		e.Path = path
		return Kind{}, e
	}
	if n.kind != nodeMap {
		return bad(n, "", "want an object with apiVersion, kind, metadata and spec, got %s", nodeKindNames[n.kind])
	}
	kn := n.field("kind")
	if kn == nil || kn.text == "" {
		return bad(n, "kind", "missing")
	}
	k, err := KindNamed(kn.text)
	if err != nil || k.Name != kn.text {
		if slices.Contains(laterKinds, kn.text) {
			return bad(kn, "kind", "%s is not supported yet", kn.text)
		}
		return bad(kn, "kind", "%s", unknownKind(kn.text))
	}
	an := n.field("apiVersion")
	switch {
	case an == nil || an.text == "":
		return bad(n, "apiVersion", "missing: %s is of %s", k.Name, k.APIVersion)
	case slices.Contains(olderVersions[k.Name], an.text):
		an.text = k.APIVersion
	case an.text != k.APIVersion:
		return bad(an, "apiVersion", "%s is of %s, got %q", k.Name, k.APIVersion, clip(an.text))
	}
	return k, nil
}

// locate finds the node at a path, or the deepest one on the way to it.
func (n *node) locate(path string) *node {
	for path != "" {
		var next *node
		rest := ""
		if i := strings.IndexAny(path, ".["); i != 0 {
			key := path
			if i > 0 {
				key, rest = path[:i], path[i:]
			}
			next = n.field(key)
		} else if path[0] == '.' {
			path = path[1:]
			continue
		} else {
			num, after, _ := strings.Cut(path[1:], "]")
			at, rest2 := 0, after
			for _, c := range num {
				at = at*10 + int(c-'0')
			}
			if n.kind == nodeList && at < len(n.items) {
				next = n.items[at]
			}
			rest = rest2
		}
		if next == nil {
			return n
		}
		n, path = next, rest
	}
	return n
}
