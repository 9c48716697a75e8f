// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// DefaultFormat is the text format of a log that has none.
const DefaultFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ` +
	`%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ` +
	`%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ` +
	`"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// maxFormatDepth bounds nested objects and lists of a JSON format.
const maxFormatDepth = 32

// formatter is a compiled format: literal bytes with a command behind each.
type formatter struct {
	steps []step
	empty bool // omit_empty_values
}

// step appends lit, then the value of cmd where there is one.
type step struct {
	lit   []byte
	cmd   command
	mode  mode
	comma bool // a comma first, unless the object or list has just begun
	omit  bool // the whole step goes where the value is unset
}

// mode is how a value is written.
type mode uint8

const (
	inText  mode = iota // unset: "-"
	inJSON              // a JSON value of its own type; unset: null
	inQuote             // a piece of a JSON string; unset: "-"
)

func (c *compiler) format(f *resource.LogFormat) (*formatter, error) {
	out := &formatter{}
	if f == nil {
		parsed, err := substitution.Parse(DefaultFormat)
		if err != nil {
			return nil, err
		}
		f = &resource.LogFormat{Text: parsed}
	}
	out.empty = f.OmitEmpty
	b := builder{c: c, out: out}
	var err error
	if f.JSON != nil {
		b.text("{")
		err = b.fields("json_format", f.JSON, true, 0)
		b.text("}\n")
	} else {
		err = b.parts(f.Text.Parts, inText)
	}
	b.flush()
	return out, err
}

// builder joins neighbouring literals into one step.
type builder struct {
	c   *compiler
	out *formatter
	lit []byte
}

func (b *builder) text(s string) { b.lit = append(b.lit, s...) }

func (b *builder) flush() {
	if len(b.lit) > 0 {
		b.step(command{}, inText)
	}
}

func (b *builder) step(cmd command, m mode) {
	b.out.steps = append(b.out.steps, step{lit: b.lit, cmd: cmd, mode: m})
	b.lit = nil
}

func (b *builder) parts(parts []substitution.Part, m mode) error {
	var errs []error
	for i := range parts {
		if parts[i].Command == "" {
			if m == inQuote {
				b.lit = appendJSON(b.lit, parts[i].Literal)
			} else {
				b.text(parts[i].Literal)
			}
			continue
		}
		cmd, err := b.c.command(&parts[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.step(cmd, m)
	}
	return errors.Join(errs...)
}

// fields writes the members of an object (keyed) or of a list.
func (b *builder) fields(path string, fields []resource.LogField, keyed bool, depth int) error {
	if depth > maxFormatDepth {
		return fmt.Errorf("%s: nested deeper than %d", path, maxFormatDepth)
	}
	var errs []error
	for i := range fields {
		f := &fields[i]
		at := fmt.Sprintf("%s[%d]", path, i)
		if keyed {
			at = path + "." + f.Name
		}
		omit := b.separate(i, f)
		if keyed {
			b.lit = append(appendJSON(append(b.lit, '"'), f.Name), '"', ':')
		}
		before := len(b.out.steps)
		if err := b.value(at, f, depth); err != nil {
			errs = append(errs, err)
		}
		if omit && len(b.out.steps) == before+1 {
			b.out.steps[before].comma, b.out.steps[before].omit = true, true
		}
	}
	return errors.Join(errs...)
}

// separate puts the comma in front of a field. Where values may be left out it is
// known only later whether one is needed: the field becomes a step of its own.
func (b *builder) separate(i int, f *resource.LogField) (omit bool) {
	if !b.out.empty {
		if i > 0 {
			b.text(",")
		}
		return false
	}
	b.flush()
	if f.Format != nil && len(f.Format.Parts) == 1 && f.Format.Parts[0].Command != "" {
		return true
	}
	b.out.steps = append(b.out.steps, step{comma: true})
	return false
}

func (b *builder) value(path string, f *resource.LogField, depth int) error {
	switch {
	case f.Format != nil:
		if len(f.Format.Parts) == 1 && f.Format.Parts[0].Command != "" {
			if err := b.parts(f.Format.Parts, inJSON); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			return nil
		}
		b.text(`"`)
		if err := b.parts(f.Format.Parts, inQuote); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		b.text(`"`)
	case f.Literal != "":
		if !json.Valid([]byte(f.Literal)) {
			return fmt.Errorf("%s: not a JSON value", path)
		}
		b.text(f.Literal)
	case f.List != nil:
		b.text("[")
		if err := b.fields(path, f.List, false, depth+1); err != nil {
			return err
		}
		b.text("]")
	default:
		b.text("{")
		if err := b.fields(path, f.Object, true, depth+1); err != nil {
			return err
		}
		b.text("}")
	}
	return nil
}

// append formats the record at hand of p.
func (f *formatter) append(dst []byte, p *Plan, r *record.Record) []byte {
	for i := range f.steps {
		s := &f.steps[i]
		start := len(dst)
		if s.comma && start > 0 {
			if last := dst[start-1]; last != '{' && last != '[' {
				dst = append(dst, ',')
			}
		}
		dst = append(dst, s.lit...)
		if s.cmd.op == opNone {
			continue
		}
		var set bool
		if dst, set = s.cmd.append(dst, s.mode, p, r); set {
			continue
		}
		switch {
		case s.omit:
			dst = dst[:start]
		case s.mode == inJSON:
			dst = append(dst, "null"...)
		case !f.empty:
			dst = append(dst, '-')
		}
	}
	return dst
}
