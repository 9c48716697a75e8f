// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxFileBytes bounds a configuration file.
	maxFileBytes = 16 << 20
	// maxNodes bounds what a file may unfold to: aliases multiply.
	maxNodes  = 1 << 20
	maxNested = 100
)

// nodeKind is the kind of a node of a YAML or JSON document.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	textNode
	listNode
	mapNode
)

// node is a part of a document, with its line for error messages.
type node struct {
	kind  nodeKind
	line  int
	text  string // of a scalar, as JSON would write it (numbers, booleans) or plain (text)
	items []*node
	keys  []string // of a map, with items
}

// get finds a key of a map.
func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k == key {
			return n.items[i]
		}
	}
	return nil
}

// parseTree reads one YAML or JSON document.
func parseTree(data []byte) (*node, *FieldError) {
	if len(data) > maxFileBytes {
		return nil, &FieldError{Reason: fmt.Sprintf("has %d bytes, at most %d are accepted", len(data), maxFileBytes)}
	}
	if bad := tooDeep(data); bad != nil {
		return nil, bad
	}
	f, err := parseYAML(data)
	if err != nil {
		return nil, syntaxError(err)
	}
	t := &tree{anchors: map[string]ast.Node{}, open: map[string]bool{}}
	var out *node
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if out != nil {
			return nil, &FieldError{Reason: "has more than one document", Line: doc.Body.GetToken().Position.Line}
		}
		out = t.convert(doc.Body, 0)
	}
	if t.bad != nil {
		return nil, t.bad
	}
	if out == nil {
		return nil, &FieldError{Reason: "is empty", Line: 1}
	}
	return out, nil
}

// maxBrackets bounds brackets that are open at once and dashes at the start of a
// line. The parser recurses over both and takes time that grows with their square.
const maxBrackets = 1000

// tooDeep looks at brackets without knowing about quotes, so its limit is well
// above that of nesting.
func tooDeep(data []byte) *FieldError {
	open, dashes, line, start := 0, 0, 1, true
	for _, c := range data {
		switch c {
		case '\n':
			line++
			dashes, start = 0, true
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		case '-':
			if start {
				dashes++
			}
		case ' ':
		default:
			start = false
		}
		if open > maxBrackets || dashes > maxBrackets {
			return &FieldError{Reason: "is nested too deep", Line: line}
		}
	}
	return nil
}

// parseYAML turns a panic of the parser, which reads what anybody wrote, into an
// error.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("cannot be parsed: %v", p)
		}
	}()
	return parser.ParseBytes(data, 0)
}

func syntaxError(err error) *FieldError {
	var e yaml.Error
	if errors.As(err, &e) {
		out := &FieldError{Reason: e.GetMessage()}
		if tok := e.GetToken(); tok != nil && tok.Position != nil {
			out.Line = tok.Position.Line
		}
		return out
	}
	msg, _, _ := strings.Cut(err.Error(), "\n")
	return &FieldError{Reason: clip(msg, 300)}
}

// tree converts a parsed document.
type tree struct {
	anchors map[string]ast.Node
	open    map[string]bool // aliases being unfolded
	count   int
	bad     *FieldError
}

func (t *tree) fail(n ast.Node, format string, args ...any) *node {
	if t.bad == nil {
		t.bad = &FieldError{Reason: fmt.Sprintf(format, args...), Line: line(n)}
	}
	return &node{line: line(n)}
}

func line(n ast.Node) int {
	if n == nil {
		return 0
	}
	if tok := n.GetToken(); tok != nil && tok.Position != nil {
		return tok.Position.Line
	}
	return 0
}

func (t *tree) convert(n ast.Node, depth int) *node {
	t.count++
	switch {
	case t.bad != nil:
		return &node{}
	case t.count > maxNodes:
		return t.fail(n, "unfolds to more than %d values", maxNodes)
	case depth > maxNested:
		return t.fail(n, "is nested more than %d deep", maxNested)
	}
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return &node{line: line(n)}
	case *ast.BoolNode:
		return &node{kind: boolNode, line: line(n), text: strconv.FormatBool(v.Value)}
	case *ast.IntegerNode:
		return &node{kind: numberNode, line: line(n), text: fmt.Sprint(v.Value)}
	case *ast.FloatNode:
		return &node{kind: numberNode, line: line(n), text: strconv.FormatFloat(v.Value, 'g', -1, 64)}
	case *ast.StringNode:
		return &node{kind: textNode, line: line(n), text: v.Value}
	case *ast.LiteralNode:
		return &node{kind: textNode, line: line(n), text: v.Value.Value}
	case *ast.SequenceNode:
		out := &node{kind: listNode, line: line(n)}
		for _, e := range v.Values {
			item := t.convert(e, depth+1) // it counts, whatever it is
			if text, ok := noPair(e); ok && v.IsFlowStyle {
				item = &node{kind: textNode, line: line(e), text: text}
			}
			out.items = append(out.items, item)
		}
		return out
	case *ast.MappingNode:
		return t.mapping(n, v.Values, depth)
	case *ast.MappingValueNode:
		return t.mapping(n, []*ast.MappingValueNode{v}, depth)
	case *ast.AnchorNode:
		t.anchors[v.Name.GetToken().Value] = v.Value
		return t.convert(v.Value, depth+1)
	case *ast.AliasNode:
		return t.alias(v, depth)
	case *ast.TagNode:
		return t.fail(n, "tag %s is not accepted", clip(v.GetToken().Value, 60))
	}
	return t.fail(n, "%s is not accepted", strings.ToLower(n.Type().YAMLName()))
}

// noPair is the text of what the parser takes for a pair in a list, [host:8080], if the
// list stands in braces: a colon without a space behind it is a part of the text (YAML
// 1.2.2, 7.3.3), unless what is before it is in quotes.
func noPair(n ast.Node) (text string, ok bool) {
	m, isMap := n.(*ast.MappingNode)
	if !isMap || m.Start.Type != token.MappingValueType || len(m.Values) != 1 {
		return "", false
	}
	v := m.Values[0]
	if !bareScalar(v.Key) || !bareScalar(v.Value) {
		return "", false
	}
	key, value := v.Key.GetToken(), v.Value.GetToken()
	if quoted(key) || strings.HasPrefix(value.Origin, " ") || strings.HasPrefix(value.Origin, "\n") {
		return "", false
	}
	before, behind := strings.TrimLeft(key.Origin, " "), strings.TrimRight(value.Origin, " ")
	if strings.Contains(before, "\n") {
		before = key.Value
	}
	if strings.Contains(behind, "\n") && !quoted(value) {
		behind = value.Value
	}
	return before + ":" + behind, true
}

// bareScalar reports whether a node is a scalar without an anchor, alias or tag.
func bareScalar(n ast.Node) bool {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return true
	}
	return false
}

func quoted(t *token.Token) bool {
	return t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType
}

func (t *tree) alias(v *ast.AliasNode, depth int) *node {
	name := v.Value.GetToken().Value
	to, ok := t.anchors[name]
	if !ok || t.open[name] {
		return t.fail(v, "alias *%s has no anchor before it", clip(name, 60))
	}
	t.open[name] = true
	defer delete(t.open, name)
	return t.convert(to, depth+1)
}

func (t *tree) mapping(n ast.Node, values []*ast.MappingValueNode, depth int) *node {
	out := &node{kind: mapNode, line: line(n)}
	if len(values) > 0 {
		out.line = line(values[0].Key)
	}
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		if _, merge := v.Key.(*ast.MergeKeyNode); merge {
			return t.fail(v, "merge keys (<<) are not accepted")
		}
		if !bareScalar(v.Key) {
			return t.fail(v, "a key that is no plain or quoted text is not accepted")
		}
		key := v.Key.GetToken().Value
		if s, ok := v.Key.(*ast.StringNode); ok {
			key = s.Value
		}
		if seen[key] {
			return t.fail(v.Key, "%s: is given twice", clip(key, 100))
		}
		seen[key] = true
		item := t.convert(v.Value, depth+1)
		item.line = line(v.Key)
		out.keys, out.items = append(out.keys, key), append(out.items, item)
	}
	return out
}
