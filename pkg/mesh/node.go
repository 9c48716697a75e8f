// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

// Limits of one document. They keep a hostile one from costing more than its size.
const (
	MaxDocumentBytes = 1 << 20
	maxDepth         = 48
	maxNodes         = 1 << 17 // after aliases are expanded
	maxDocuments     = 4096
	// The YAML parser's time grows with the square of what one map holds.
	maxTokens = 1 << 15
)

type nodeKind uint8

const (
	nodeNull nodeKind = iota
	nodeScalar
	nodeQuoted // a scalar that is a string whatever it looks like
	nodeMap
	nodeList
)

var nodeKindNames = [...]string{"nothing", "a value", "a string", "a map", "a list"}

// node is a document as the decoder sees it, whether it was YAML or JSON.
type node struct {
	kind      nodeKind
	line, col int
	text      string
	keys      []*node // of a map, in order
	items     []*node // values of a map, or items of a list
}

func (n *node) field(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// drop removes a key of a map.
func (n *node) drop(key string) {
	for i, k := range n.keys {
		if k.text == key {
			n.keys, n.items = slices.Delete(n.keys, i, i+1), slices.Delete(n.items, i, i+1)
			return
		}
	}
}

// document is one document of a file with where it begins.
type document struct {
	text []byte
	line int // lines before it
}

// splitDocuments cuts a YAML stream at its --- lines, so that one document's
// fault says nothing of the next.
func splitDocuments(data []byte) []document {
	var out []document
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(data); line++ {
		end := bytes.IndexByte(data[at:], '\n') + 1
		if end == 0 {
			end = len(data) - at
		}
		l := bytes.TrimRight(data[at:at+end], " \t\r\n")
		if bytes.Equal(l, []byte("---")) || bytes.HasPrefix(l, []byte("--- ")) {
			out = append(out, document{data[start:at], startLine})
			start, startLine = at+3, line
		}
		at += end
	}
	return append(out, document{data[start:], startLine})
}

func syntaxError(line, col int, format string, args ...any) *FieldError {
	return &FieldError{Line: line, Column: col, Reason: fmt.Sprintf(format, args...)}
}

// parseDocument returns nil, nil for a document without content.
func parseDocument(d document) (n *node, fault *FieldError) {
	if len(d.text) > MaxDocumentBytes {
		return nil, syntaxError(d.line+1, 0, "document is %d bytes, the limit is %d", len(d.text), MaxDocumentBytes)
	}
	if json.Valid(d.text) && bytes.HasPrefix(bytes.TrimLeft(d.text, " \t\r\n"), []byte("{")) {
		return parseJSON(d)
	}
	if at := strings.IndexFunc(string(d.text), func(r rune) bool { return r == 0 || r == 0xfffd }); at >= 0 {
		return nil, syntaxError(d.line+1+bytes.Count(d.text[:at], []byte("\n")), 0, "not text: zero byte or invalid UTF-8")
	}
	if line := tooDeep(d.text); line > 0 {
		return nil, syntaxError(d.line+line, 0, "nested more than %d deep", maxDepth)
	}
	defer func() {
		// The YAML library is not ours: what it cannot take is a bad document, not a crash.
		if r := recover(); r != nil {
			n, fault = nil, syntaxError(d.line+1, 0, "yaml: cannot be parsed")
		}
	}()
	tokens := lexer.Tokenize(string(d.text))
	if len(tokens) > maxTokens {
		return nil, syntaxError(d.line+tokens[maxTokens].Position.Line, 0, "more than %d tokens of YAML; split it, or send JSON", maxTokens)
	}
	// Keys that are given twice are refused below, with the right line.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, yamlFault(d.line, err)
	}
	b := yamlBuilder{offset: d.line, anchors: map[string]ast.Node{}}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if n != nil {
			return nil, b.fault(doc.Body, "more than one document without ---")
		}
		if n, fault = b.build(doc.Body, 0); fault != nil {
			return nil, fault
		}
	}
	if n != nil && n.kind == nodeNull {
		return nil, nil
	}
	return n, nil
}

func yamlFault(offset int, err error) *FieldError {
	line, col := 1, 0
	reason := "cannot be parsed"
	var ye yaml.Error
	// Its Error method prints the document around the fault, in quadratic time.
	if errors.As(err, &ye) {
		reason = ye.GetMessage()
		if t := ye.GetToken(); t != nil && t.Position != nil {
			line, col = t.Position.Line, t.Position.Column
		}
	}
	reason, _, _ = strings.Cut(reason, "\n")
	return syntaxError(offset+line, col, "yaml: %s", clip(reason))
}

// tooDeep looks for nesting that would exhaust a recursive parser before it is
// run: brackets, and list dashes in a row on one line. It returns the 1-based
// line, or 0. Brackets inside text count too; the limit is far above what text has.
func tooDeep(text []byte) int {
	const brackets = 16 * maxDepth
	line, open, dashes, leading := 1, 0, 0, true
	for _, c := range text {
		switch {
		case c == '\n':
			line, dashes, leading = line+1, 0, true
		case c == '[' || c == '{':
			open++
			leading = false
		case (c == ']' || c == '}') && open > 0:
			open--
			leading = false
		case c == '-' || c == '?' || c == ':':
			if leading {
				dashes++
			}
		case c != ' ' && c != '\t':
			leading = false
		}
		if open > brackets || dashes > 2*maxDepth && leading && c == ' ' {
			return line
		}
	}
	return 0
}

// yamlBuilder turns the library's tree into nodes and expands aliases.
type yamlBuilder struct {
	offset  int
	nodes   int
	anchors map[string]ast.Node
	open    []string // anchors whose value is being built, to find cycles
}

func (b *yamlBuilder) fault(n ast.Node, format string, args ...any) *FieldError {
	line, col := b.position(n)
	return syntaxError(line, col, format, args...)
}

func (b *yamlBuilder) position(n ast.Node) (line, col int) {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return b.offset + t.Position.Line, t.Position.Column
	}
	return b.offset + 1, 0
}

func (b *yamlBuilder) build(n ast.Node, depth int) (*node, *FieldError) {
	if depth > maxDepth {
		return nil, b.fault(n, "nested more than %d deep", maxDepth)
	}
	if b.nodes++; b.nodes > maxNodes {
		return nil, b.fault(n, "more than %d values after aliases are expanded", maxNodes)
	}
	out := &node{kind: nodeScalar}
	out.line, out.col = b.position(n)
	switch v := n.(type) {
	case *ast.NullNode:
		out.kind = nodeNull
	case *ast.StringNode:
		out.text = v.Value
		if t := v.Token; t != nil && (strings.HasPrefix(t.Origin, `"`) || strings.HasPrefix(strings.TrimLeft(t.Origin, " \t\r\n"), "'") || strings.HasPrefix(strings.TrimLeft(t.Origin, " \t\r\n"), `"`)) {
			out.kind = nodeQuoted
		}
	case *ast.LiteralNode:
		out.kind, out.text = nodeQuoted, v.Value.Value
	case *ast.IntegerNode:
		out.text = strings.TrimSpace(v.Token.Value)
	case *ast.FloatNode:
		out.text = strings.TrimSpace(v.Token.Value)
	case *ast.BoolNode:
		out.text = strings.TrimSpace(v.Token.Value)
	case *ast.MappingNode:
		return out, b.mapping(out, v.Values, depth)
	case *ast.MappingValueNode:
		return out, b.mapping(out, []*ast.MappingValueNode{v}, depth)
	case *ast.SequenceNode:
		out.kind = nodeList
		for _, item := range v.Values {
			c, fault := b.build(item, depth+1)
			if fault != nil {
				return nil, fault
			}
			out.items = append(out.items, c)
		}
	case *ast.AnchorNode:
		name := v.Name.String()
		b.open = append(b.open, name)
		c, fault := b.build(v.Value, depth)
		b.open = b.open[:len(b.open)-1]
		b.anchors[name] = v.Value
		return c, fault
	case *ast.AliasNode:
		return b.alias(v, depth)
	default:
		return nil, b.fault(n, "yaml: %s is not supported here", strings.ToLower(n.Type().String()))
	}
	return out, nil
}

func (b *yamlBuilder) alias(v *ast.AliasNode, depth int) (*node, *FieldError) {
	name := v.Value.String()
	for _, o := range b.open {
		if o == name {
			return nil, b.fault(v, "alias *%s refers to itself: a cyclic reference", clip(name))
		}
	}
	target, ok := b.anchors[name]
	if !ok {
		return nil, b.fault(v, "alias *%s has no anchor before it", clip(name))
	}
	b.open = append(b.open, name)
	defer func() { b.open = b.open[:len(b.open)-1] }()
	return b.build(target, depth+1)
}

func (b *yamlBuilder) mapping(out *node, values []*ast.MappingValueNode, depth int) *FieldError {
	out.kind = nodeMap
	seen := make(map[string]bool, len(values))
	for _, mv := range values {
		if _, merge := mv.Key.(*ast.MergeKeyNode); merge {
			return b.fault(mv.Key, "yaml: merge keys (<<) are not supported")
		}
		k, fault := b.build(mv.Key, depth+1)
		if fault != nil {
			return fault
		}
		if k.kind != nodeScalar && k.kind != nodeQuoted {
			return b.fault(mv.Key, "yaml: a key must be a plain value")
		}
		if seen[k.text] {
			return b.fault(mv.Key, "key %q is given twice", clip(k.text))
		}
		seen[k.text] = true
		c, fault := b.build(mv.Value, depth+1)
		if fault != nil {
			return fault
		}
		if c.kind == nodeMap || c.kind == nodeList || c.line == 0 {
			// The library places a collection at its first delimiter; the key reads better.
			c.line, c.col = k.line, k.col
		}
		out.keys, out.items = append(out.keys, k), append(out.items, c)
	}
	if len(out.keys) > 0 {
		out.line, out.col = out.keys[0].line, out.keys[0].col
	}
	return nil
}
