// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"unicode/utf8"
)

// plainNode is a value of a plain document. Its first item follows it in the
// list of nodes; the one after it is at end.
type plainNode struct {
	kind nodeKind
	end  int32
	key  string // in a map
	text string // of a scalar, as that of node
}

// plainReader reads the part of YAML that large configurations are made of: JSON,
// and block and flow collections of scalars of one line. It reads a document in a
// fraction of the time of the full parser and keeps no positions. What it does
// not take for certain, wrong documents among it, it leaves to the full parser,
// which also words all errors.
type plainReader struct {
	s     string
	at    int
	nodes []plainNode
}

// plainNested is well below maxNested, so that both bounds are the full parser's.
const plainNested = maxNested - 10

// readPlain reads a document; false means that the full parser has to.
func readPlain(data []byte) ([]plainNode, bool) {
	if len(data) > maxFileBytes || !utf8.Valid(data) {
		return nil, false
	}
	for _, c := range data {
		if c < ' ' && c != '\n' || c == 0x7f {
			return nil, false
		}
	}
	r := &plainReader{s: string(data), nodes: make([]plainNode, 0, len(data)/12+8)}
	indent, ok := r.line()
	if ok && indent == 0 && strings.HasPrefix(r.s[r.at:], "---\n") {
		r.at += 4
		indent, ok = r.line()
	}
	if !ok || indent != 0 || r.at == len(r.s) {
		return nil, false
	}
	if !r.block("", 0, 0) || r.at != len(r.s) || len(r.nodes) > maxNodes {
		return nil, false
	}
	return r.nodes, true
}

// add appends a node; close sets where it ends.
func (r *plainReader) add(kind nodeKind, key, text string) int {
	r.nodes = append(r.nodes, plainNode{kind: kind, key: key, text: text, end: int32(len(r.nodes) + 1)})
	return len(r.nodes) - 1
}

func (r *plainReader) close(i int) { r.nodes[i].end = int32(len(r.nodes)) }

// peek is the byte at the position, or a line's end at the end.
func (r *plainReader) peek(ahead int) byte {
	if r.at+ahead < len(r.s) {
		return r.s[r.at+ahead]
	}
	return '\n'
}

// line goes to the first byte of the next line that has content and returns its
// indentation; at the end of the document it is -1.
func (r *plainReader) line() (indent int, ok bool) {
	for r.at < len(r.s) {
		start := r.at
		for r.at < len(r.s) && r.s[r.at] == ' ' {
			r.at++
		}
		switch r.peek(0) {
		case '\n':
			r.at = min(r.at+1, len(r.s))
		case '#':
			r.comment()
		default:
			return r.at - start, true
		}
	}
	return -1, true
}

func (r *plainReader) comment() {
	if i := strings.IndexByte(r.s[r.at:], '\n'); i >= 0 {
		r.at += i + 1
	} else {
		r.at = len(r.s)
	}
}

// rest skips what may stand behind a value on its line: spaces and a comment.
func (r *plainReader) rest() bool {
	start := r.at
	for r.at < len(r.s) && r.s[r.at] == ' ' {
		r.at++
	}
	switch {
	case r.at == len(r.s):
		return true
	case r.s[r.at] == '\n':
		r.at++
		return true
	case r.s[r.at] == '#' && r.at > start:
		r.comment()
		return true
	}
	return false
}

// indentation looks at the next line with content without going there.
func (r *plainReader) indentation() (indent, at int) {
	back := r.at
	indent, _ = r.line()
	at, r.at = r.at, back
	return indent, at
}

// block reads a collection or a flow value whose first byte is at the position,
// in the given column. Behind it the position is at the start of a line.
func (r *plainReader) block(key string, column, depth int) bool {
	switch c := r.peek(0); {
	case depth > plainNested:
		return false
	case c == '-' && (r.peek(1) == ' ' || r.peek(1) == '\n'):
		return r.sequence(key, column, depth)
	case c == '{' || c == '[':
		return r.flow(key, column, depth) && r.rest() && r.ended(column)
	}
	return r.mapping(key, column, depth)
}

// ended reports whether the line after a value does not belong to it.
func (r *plainReader) ended(column int) bool {
	indent, _ := r.indentation()
	return indent <= column
}

func (r *plainReader) sequence(key string, column, depth int) bool {
	list := r.add(listNode, key, "")
	for {
		r.at++ // the dash
		spaces := 0
		for r.peek(0) == ' ' {
			r.at++
			spaces++
		}
		if !r.item(column, spaces, depth) {
			return false
		}
		r.close(list)
		indent, at := r.indentation()
		if indent < column {
			return true
		}
		r.at = at
		if r.peek(0) != '-' || r.peek(1) != ' ' && r.peek(1) != '\n' {
			// A key at the column of the list, which is that of its own map.
			r.at = at - indent
			return indent == column
		}
		if indent != column {
			return false
		}
	}
}

// item reads what follows a dash.
func (r *plainReader) item(column, spaces, depth int) bool {
	inner := column + 1 + spaces
	c := r.peek(0)
	switch {
	case c == '\n' || c == '#':
		return r.below("", column, false, depth)
	case c == '-' && r.peek(1) == ' ':
		return r.block("", inner, depth+1)
	case c == '{' || c == '[':
		return r.flow("", column, depth+1) && r.rest() && r.ended(column)
	}
	back := r.at
	if _, ok := r.key(); ok {
		r.at = back
		return r.mapping("", inner, depth+1)
	}
	r.at = back
	return r.scalar("", false) && r.rest() && r.ended(column)
}

func (r *plainReader) mapping(key string, column, depth int) bool {
	m := r.add(mapNode, key, "")
	for {
		name, ok := r.key()
		if !ok {
			return false
		}
		for r.peek(0) == ' ' {
			r.at++
		}
		switch c := r.peek(0); {
		case c == '\n' || c == '#':
			ok = r.below(name, column, true, depth)
		case c == '{' || c == '[':
			ok = r.flow(name, column, depth+1) && r.rest() && r.ended(column)
		default:
			ok = r.scalar(name, false) && r.rest() && r.ended(column)
		}
		if !ok {
			return false
		}
		r.close(m)
		indent, at := r.indentation()
		if indent < column {
			return true
		}
		if indent != column {
			return false
		}
		r.at = at
		if r.peek(0) == '-' {
			return false
		}
	}
}

// below reads the value that begins on a line after its key or dash. No value is
// null for a key. The list of a key may stand in the key's own column.
func (r *plainReader) below(key string, column int, list bool, depth int) bool {
	if !r.rest() {
		return false
	}
	indent, at := r.indentation()
	switch {
	case indent > column:
	case indent == column && list && at+1 < len(r.s) && r.s[at] == '-' && r.s[at+1] == ' ':
	default:
		r.add(nullNode, key, "")
		return list
	}
	r.at = at
	return r.block(key, indent, depth+1)
}

// key reads a key and its colon.
func (r *plainReader) key() (string, bool) {
	var name string
	switch c := r.peek(0); {
	case c == '"':
		text, ok := r.quoted()
		if !ok {
			return "", false
		}
		name = text
	case isLetter(c) || c == '_':
		start := r.at
		for r.at < len(r.s) && (isLetter(r.s[r.at]) || isDigit(r.s[r.at]) || strings.IndexByte("_-./@", r.s[r.at]) >= 0) {
			r.at++
		}
		name = r.s[start:r.at]
	default:
		return "", false
	}
	if r.peek(0) != ':' || r.peek(1) != ' ' && r.peek(1) != '\n' {
		return "", false
	}
	r.at++
	return name, name != ""
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// flow reads a value in braces or brackets. Its further lines must stand to the
// right of the column, except in a document that is nothing else.
func (r *plainReader) flow(key string, column, depth int) bool {
	if depth > plainNested {
		return false
	}
	kind, end := listNode, byte(']')
	if r.s[r.at] == '{' {
		kind, end = mapNode, '}'
	}
	r.at++
	n := r.add(kind, key, "")
	if !r.space(column) {
		return false
	}
	for first := true; r.peek(0) != end || !first; first = false {
		name := ""
		if kind == mapNode {
			var ok bool
			if name, ok = r.flowKey(); !ok || !r.space(column) {
				return false
			}
		}
		if c := r.peek(0); c == '{' || c == '[' {
			if !r.flow(name, column, depth+1) {
				return false
			}
		} else if !r.scalar(name, true) {
			return false
		}
		if !r.space(column) {
			return false
		}
		c := r.peek(0)
		if c == end {
			break
		}
		if c != ',' {
			return false
		}
		r.at++
		if !r.space(column) {
			return false
		}
	}
	r.at++
	r.close(n)
	return true
}

// flowKey also takes a quoted key without a space behind its colon, as JSON has
// it, and then only before what JSON has there.
func (r *plainReader) flowKey() (string, bool) {
	if r.peek(0) != '"' {
		return r.key()
	}
	name, ok := r.quoted()
	if !ok || name == "" || r.peek(0) != ':' {
		return "", false
	}
	r.at++
	c := r.peek(0)
	return name, c <= ' ' || isLetter(c) || isDigit(c) || strings.IndexByte(`"{[-`, c) >= 0
}

// space skips spaces and lines inside a flow value.
func (r *plainReader) space(column int) bool {
	for r.at < len(r.s) {
		switch r.s[r.at] {
		case ' ':
			r.at++
		case '\n':
			r.at++
			start := r.at
			for r.at < len(r.s) && r.s[r.at] == ' ' {
				r.at++
			}
			if r.at-start <= column && !r.whole() {
				return false
			}
		default:
			return r.s[r.at] != '#'
		}
	}
	return false
}

// whole reports whether the document is one flow value.
func (r *plainReader) whole() bool { return r.s[0] == '{' || r.s[0] == '[' }
