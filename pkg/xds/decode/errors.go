// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"strconv"
	"strings"
)

// maxFieldErrors bounds the errors kept of one resource.
const maxFieldErrors = 32

// FieldError is one thing that is wrong with a resource or file.
type FieldError struct {
	Path   string // such as "virtual_hosts[0].routes[2].match"; "" for the whole
	Reason string
	Line   int // 1-based where the input is a file, otherwise 0
}

// String is "path: reason".
func (f FieldError) String() string {
	if f.Path == "" {
		return f.Reason
	}
	return f.Path + ": " + f.Reason
}

// Error says why one resource was refused: all its field errors.
type Error struct {
	Kind   Kind
	Name   string // "" if it is not known
	Fields []FieldError
}

// Error is `decode cluster "orders": lb_policy: unsupported CLUSTER_PROVIDED`.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("decode ")
	b.WriteString(e.Kind.String())
	if e.Name != "" {
		b.WriteByte(' ')
		b.WriteString(strconv.Quote(clip(e.Name, 200)))
	}
	for i, f := range e.Fields {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(f.String())
	}
	return b.String()
}

// clip shortens text that comes from outside for a message.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + fmt.Sprintf("… (%d bytes)", len(s))
}

// cleanError strips the protobuf library's prefix, whose spacing is random on
// purpose.
func cleanError(err error) string {
	s := err.Error()
	s = strings.ReplaceAll(s, "\u00a0", " ")
	return clip(strings.TrimSpace(strings.TrimPrefix(s, "proto:")), 400)
}

// place is where in a message decoding is. Nil is the whole message.
type place struct {
	up    *place
	name  string
	index int    // -1: not a list
	key   string // of a map
}

func (p *place) field(name string) *place { return &place{up: p, name: name, index: -1} }

func (p *place) item(name string, i int) *place { return &place{up: p, name: name, index: i} }

func (p *place) entry(name, key string) *place {
	return &place{up: p, name: name, index: -1, key: key}
}

// String is the path with dots.
func (p *place) String() string {
	if p == nil {
		return ""
	}
	var b strings.Builder
	p.write(&b)
	return b.String()
}

func (p *place) write(b *strings.Builder) {
	if p.up != nil {
		p.up.write(b)
		b.WriteByte('.')
	}
	b.WriteString(p.name)
	if p.index >= 0 {
		b.WriteByte('[')
		b.WriteString(strconv.Itoa(p.index))
		b.WriteByte(']')
	}
	if p.key != "" {
		b.WriteByte('[')
		b.WriteString(strconv.Quote(clip(p.key, 100)))
		b.WriteByte(']')
	}
}
