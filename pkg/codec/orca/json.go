// SPDX-License-Identifier: Apache-2.0

package orca

import (
	"bytes"
	"strconv"
)

// json reads an object of numbers and of objects of numbers, which is all that a
// report in JSON can be. Names with escapes are none of ours, and make it unreadable.
func (p *parser) json(b []byte) bool {
	if len(b) > maxBytes {
		return false
	}
	s := scanner{rest: b}
	ok := s.object(func(name []byte) bool {
		f, known := fieldOfJSON(name)
		if !s.is('{') {
			v, ok := s.number()
			return ok && (!known || f.isMap() || p.set(f, nil, v)) && !(known && f.isMap())
		}
		return s.object(func(key []byte) bool {
			v, ok := s.number()
			return ok && (!known || f.isMap() && p.set(f, key, v))
		})
	})
	s.space()
	return ok && len(s.rest) == 0
}

func fieldOfJSON(name []byte) (f field, known bool) {
	for i := range fields {
		if string(name) == fields[i].name || string(name) == fields[i].camel {
			return fields[i].number, true
		}
	}
	return 0, false
}

type scanner struct{ rest []byte }

func (s *scanner) space() { s.rest = bytes.TrimLeft(s.rest, " \t\r\n") }

// is reports whether c comes next.
func (s *scanner) is(c byte) bool {
	s.space()
	return len(s.rest) > 0 && s.rest[0] == c
}

// take skips c if it comes next.
func (s *scanner) take(c byte) bool {
	if !s.is(c) {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// object calls member for each name, with its value next.
func (s *scanner) object(member func(name []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.take(':') || !member(name) {
			return false
		}
		if !s.take(',') {
			return s.take('}')
		}
	}
}

func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	i := bytes.IndexAny(s.rest, `"\`)
	if i < 0 || s.rest[i] == '\\' {
		return nil, false
	}
	text := s.rest[:i]
	s.rest = s.rest[i+1:]
	return text, true
}

// number reads a number, which protobuf's JSON may have put into quotes.
func (s *scanner) number() (float64, bool) {
	if s.is('"') {
		text, ok := s.text()
		if !ok {
			return 0, false
		}
		v, err := strconv.ParseFloat(string(text), 64)
		return v, err == nil
	}
	i := 0
	for i < len(s.rest) && bytes.IndexByte(numberBytes, s.rest[i]) >= 0 {
		i++
	}
	v, err := strconv.ParseFloat(string(s.rest[:i]), 64)
	s.rest = s.rest[i:]
	return v, err == nil
}

var numberBytes = []byte("+-.0123456789eE")
