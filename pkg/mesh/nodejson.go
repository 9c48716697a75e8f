// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// parseJSON reads a document that is valid JSON. YAML would take most of it,
// but not tabs as indentation, and it knows more kinds of number.
func parseJSON(d document) (*node, *FieldError) {
	p := jsonBuilder{text: d.text, line: d.line + 1, dec: json.NewDecoder(bytes.NewReader(d.text))}
	p.dec.UseNumber()
	return p.value(0)
}

type jsonBuilder struct {
	text   []byte
	dec    *json.Decoder
	offset int // up to here line is counted
	line   int
	start  int // offset of the current line
	nodes  int
}

// token reads the next token and says where it begins.
func (p *jsonBuilder) token() (json.Token, int, int, *FieldError) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, p.line, 0, syntaxError(p.line, 0, "json: %s", clip(err.Error()))
	}
	end := int(p.dec.InputOffset())
	for i := p.offset; i < end; i++ {
		if p.text[i] == '\n' {
			p.line++
			p.start = i + 1
		}
	}
	p.offset = end
	return t, p.line, max(end-p.start, 1), nil
}

func (p *jsonBuilder) value(depth int) (*node, *FieldError) {
	t, line, col, fault := p.token()
	if fault != nil {
		return nil, fault
	}
	return p.from(t, line, col, depth)
}

func (p *jsonBuilder) from(t json.Token, line, col, depth int) (*node, *FieldError) {
	if depth > maxDepth {
		return nil, syntaxError(line, col, "nested more than %d deep", maxDepth)
	}
	if p.nodes++; p.nodes > maxNodes {
		return nil, syntaxError(line, col, "more than %d values", maxNodes)
	}
	out := &node{kind: nodeScalar, line: line, col: col}
	switch v := t.(type) {
	case nil:
		out.kind = nodeNull
	case bool:
		out.text = strconv.FormatBool(v)
	case json.Number:
		out.text = v.String()
	case string:
		out.kind, out.text = nodeQuoted, strings.ToValidUTF8(v, "\uFFFD")
	case json.Delim:
		if v == '{' {
			out.kind = nodeMap
			return out, p.members(out, depth)
		}
		out.kind = nodeList
		for p.dec.More() {
			c, fault := p.value(depth + 1)
			if fault != nil {
				return nil, fault
			}
			out.items = append(out.items, c)
		}
		_, _, _, fault := p.token()
		return out, fault
	}
	return out, nil
}

func (p *jsonBuilder) members(out *node, depth int) *FieldError {
	seen := map[string]bool{}
	for p.dec.More() {
		k, fault := p.value(depth + 1)
		if fault != nil {
			return fault
		}
		if seen[k.text] {
			return syntaxError(k.line, k.col, "key %q is given twice", clip(k.text))
		}
		seen[k.text] = true
		c, fault := p.value(depth + 1)
		if fault != nil {
			return fault
		}
		out.keys, out.items = append(out.keys, k), append(out.items, c)
	}
	_, _, _, fault := p.token()
	return fault
}
