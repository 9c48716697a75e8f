// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"strings"
)

// FieldError says which field of which object is wrong and why.
type FieldError struct {
	File   string `json:"file,omitempty"`   // where the object was read, empty for the API
	Line   int    `json:"line,omitempty"`   // 1-based, 0 when unknown
	Column int    `json:"column,omitempty"` // 1-based, 0 when unknown
	Object string `json:"object,omitempty"` // Kind/name, as far as it is known
	Path   string `json:"field,omitempty"`  // spec.rules[0].matches[1].path.value
	Reason string `json:"reason"`
}

func (e *FieldError) Error() string {
	var b strings.Builder
	switch {
	case e.File != "" && e.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	case e.File != "":
		fmt.Fprintf(&b, "%s: ", e.File)
	case e.Line > 0:
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Object != "" {
		b.WriteString(e.Object + ": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Errors is every fault that was found, in the order of the document.
type Errors []*FieldError

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single FieldError.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, f := range e {
		out[i] = f
	}
	return out
}

// maxErrors bounds the answer to a hopeless document.
const maxErrors = 100

// faults collects field errors while an object is checked.
type faults struct {
	list Errors
}

func (f *faults) add(path, format string, args ...any) {
	if len(f.list) < maxErrors {
		f.list = append(f.list, &FieldError{Path: path, Reason: fmt.Sprintf(format, args...)})
	}
}
