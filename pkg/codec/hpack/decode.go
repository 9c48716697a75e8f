// SPDX-License-Identifier: Apache-2.0

package hpack

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// Flags are facts about a field.
type Flags uint8

// The flags.
const (
	Pseudo   Flags = 1 << iota // the name begins with ":"
	BadName                    // no lower-case token (RFC 9113 §8.2.1), and not Pseudo
	BadValue                   // a control byte, or white space around it
	Never                      // never to be indexed (RFC 7541 §6.2.3)
)

// Field is one field of a List: where in Buf its name and value lie.
type Field struct {
	Name, NameEnd, Value, ValueEnd uint32
	ID                             codec.Name
	Flags                          Flags
}

// List is what a block is decoded into. Each field lies in Buf as HTTP/1 writes
// it: name ": " value CRLF.
type List struct {
	Buf    []byte
	Fields []Field
	// MaxBytes and MaxCount bound the list: bytes of names and values with 32 for
	// each field, and fields. What is beyond is decoded for the dynamic table's
	// sake and not kept; TooLarge says so.
	MaxBytes, MaxCount int
	TooLarge           bool

	size   int
	beyond int // bytes decoded for the table's sake after TooLarge
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() {
	l.Buf, l.Fields = l.Buf[:0], l.Fields[:0]
	l.TooLarge, l.size, l.beyond = false, 0, 0
}

// maxBeyond is how many times MaxBytes may be decoded of a list that is TooLarge. A
// block that spells out what it holds stays far below; one that refers to a long
// name of the table over and over makes a thousand bytes of each of its own.
const maxBeyond = 4

// strain counts what is decoded of a list that is TooLarge, and reports whether that
// is still to be borne.
func (l *List) strain(n int) bool {
	l.beyond += n + entryOverhead
	return l.beyond <= maxBeyond*max(l.MaxBytes, 4096)
}

// take makes the bytes behind from, in wire form, a field, or drops them.
func (l *List) take(from int, name, value uint32, id codec.Name, flags Flags) {
	if !l.room(name, value) {
		l.Buf = l.Buf[:from]
		return
	}
	off := uint32(from)
	l.Fields = append(l.Fields, Field{off, off + name, off + name + 2, off + name + 2 + value, id, flags})
}

// room counts a field and reports whether the list still has room for it.
func (l *List) room(name, value uint32) bool {
	if l.TooLarge {
		return false
	}
	l.size += int(name) + int(value) + entryOverhead
	l.TooLarge = l.size > l.MaxBytes || len(l.Fields) >= l.MaxCount
	return !l.TooLarge
}

// Decoder decodes the blocks of one direction of a connection.
type Decoder struct {
	table
	allowed uint32 // the highest size that an update may set
	owed    bool   // the peer must send an update first
}

// Init makes d ready with a dynamic table of at most size bytes.
func (d *Decoder) Init(size uint32) { d.max, d.allowed = size, size }

// SetAllowed bounds the dynamic table: SETTINGS_HEADER_TABLE_SIZE, once the peer
// has acknowledged it. Where the table is larger, the peer must shrink it with
// its next block (RFC 7541 §4.2).
func (d *Decoder) SetAllowed(size uint32) {
	d.allowed = size
	d.owed = d.max > size
}

// Decode appends the fields of a whole block to l. After an error the decoder's
// state is lost.
func (d *Decoder) Decode(block []byte, l *List) *Error {
	b, err := d.updates(block)
	for err == nil && len(b) > 0 {
		c := b[0]
		switch {
		case c&0x80 != 0: // indexed
			var i uint32
			if i, b, err = integer(b, 7); err == nil {
				err = d.indexed(i, l)
			}
		case c&0x40 != 0: // literal with indexing
			b, err = d.literal(b, 6, 0, true, l)
		case c&0x20 != 0: // an update behind a field
			err = errUpdate
		case c&0x10 != 0:
			b, err = d.literal(b, 4, Never, false, l)
		default:
			b, err = d.literal(b, 4, 0, false, l)
		}
	}
	return err
}

// updates reads the table size updates that a block may begin with.
func (d *Decoder) updates(b []byte) ([]byte, *Error) {
	for len(b) > 0 && b[0]&0xe0 == 0x20 {
		size, rest, err := integer(b, 5)
		if err != nil {
			return nil, err
		}
		if size > d.allowed {
			return nil, errUpdate
		}
		d.resize(size)
		d.owed = false
		b = rest
	}
	if d.owed {
		return nil, errNoUpdate
	}
	return b, nil
}

func (d *Decoder) indexed(i uint32, l *List) *Error {
	if i == 0 {
		return errIndex
	}
	if i <= uint32(staticCount) {
		f := &staticFields[i]
		if l.room(f.name, f.value) {
			off := uint32(len(l.Buf))
			l.Buf = append(l.Buf, f.wire...)
			l.Fields = append(l.Fields, Field{off, off + f.name, off + f.name + 2, off + f.name + 2 + f.value, f.id, f.flags})
		}
		return nil
	}
	e := d.at(i - uint32(staticCount) - 1)
	if e == nil {
		return errIndex
	}
	if l.room(e.name, e.value) {
		off := uint32(len(l.Buf))
		l.Buf = append(l.Buf, d.bytes(e)...)
		l.Fields = append(l.Fields, Field{off, off + e.name, off + e.name + 2, off + e.name + 2 + e.value, e.id, e.flags})
	}
	return nil
}

// literal reads a field that is spelled out, its name perhaps not.
func (d *Decoder) literal(b []byte, prefix uint8, flags Flags, index bool, l *List) ([]byte, *Error) {
	i, b, err := integer(b, prefix)
	if err != nil {
		return nil, err
	}
	if l.TooLarge && !index {
		return d.skip(i, b)
	}
	from := len(l.Buf)
	id := codec.NameOther
	switch {
	case i == 0:
		if l.Buf, b, err = appendString(l.Buf, b); err != nil {
			return nil, err
		}
		var f Flags
		id, f = classifyName(l.Buf[from:])
		flags |= f
	case i <= uint32(staticCount):
		f := &staticFields[i]
		l.Buf = append(l.Buf, f.wire[:f.name]...)
		id, flags = f.id, flags|f.flags
	default:
		e := d.at(i - uint32(staticCount) - 1)
		if e == nil {
			return nil, errIndex
		}
		l.Buf = append(l.Buf, d.bytes(e)[:e.name]...)
		id, flags = e.id, flags|e.flags&^BadValue
	}
	name := len(l.Buf) - from
	l.Buf = append(l.Buf, ": "...)
	at := len(l.Buf)
	if l.Buf, b, err = appendString(l.Buf, b); err != nil {
		return nil, err
	}
	value := l.Buf[at:]
	flags |= classifyValue(value)
	l.Buf = append(l.Buf, "\r\n"...)
	if l.TooLarge && !l.strain(len(l.Buf)-from) {
		return nil, ErrTooMuch
	}
	if index {
		d.insert(l.Buf[from:], uint32(name), uint32(len(value)), id, flags)
	}
	l.take(from, uint32(name), uint32(len(value)), id, flags)
	return b, nil
}

// skip passes over a literal that neither the list nor the table takes.
func (d *Decoder) skip(name uint32, b []byte) ([]byte, *Error) {
	switch {
	case name == 0:
		var err *Error
		if b, err = skipString(b); err != nil {
			return nil, err
		}
	case name > uint32(staticCount) && d.at(name-uint32(staticCount)-1) == nil:
		return nil, errIndex
	}
	return skipString(b)
}

func skipString(b []byte) ([]byte, *Error) {
	n, b, err := integer(b, 7)
	if err != nil {
		return nil, err
	}
	if int(n) > len(b) {
		return nil, errTruncated
	}
	return b[n:], nil
}

func classifyName(name []byte) (codec.Name, Flags) {
	if len(name) == 0 {
		return codec.NameOther, BadName
	}
	if name[0] == ':' {
		return codec.NameOther, Pseudo
	}
	for _, c := range name {
		if !codec.IsToken(c) || c >= 'A' && c <= 'Z' {
			return codec.NameOther, BadName
		}
	}
	return codec.LookupToken(name), 0
}

func classifyValue(v []byte) Flags {
	n := len(v)
	if n == 0 {
		return 0
	}
	if v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t' || !codec.ValidValue(v) {
		return BadValue
	}
	return 0
}

// maxInteger is far above any length or index that can be right.
const maxInteger = 1 << 28

// integer reads an integer with a prefix of that many bits (RFC 7541 §5.1).
func integer(b []byte, prefix uint8) (n uint32, rest []byte, err *Error) {
	if len(b) == 0 {
		return 0, nil, errTruncated
	}
	mask := uint32(1)<<prefix - 1
	if n = uint32(b[0]) & mask; n < mask {
		return n, b[1:], nil
	}
	for i, shift := 1, 0; ; i, shift = i+1, shift+7 {
		if i == len(b) {
			return 0, nil, errTruncated
		}
		if shift > 28 {
			return 0, nil, errInteger
		}
		wide := uint64(n) + uint64(b[i]&0x7f)<<shift
		if wide > maxInteger {
			return 0, nil, errInteger
		}
		n = uint32(wide)
		if b[i]&0x80 == 0 {
			return n, b[i+1:], nil
		}
	}
}

// appendString reads a string literal (RFC 7541 §5.2).
func appendString(dst, b []byte) (_, rest []byte, err *Error) {
	if len(b) == 0 {
		return dst, nil, errTruncated
	}
	coded := b[0]&0x80 != 0
	n, b, err := integer(b, 7)
	if err != nil {
		return dst, nil, err
	}
	if int(n) > len(b) {
		return dst, nil, errTruncated
	}
	if !coded {
		return append(dst, b[:n]...), b[n:], nil
	}
	dst, ok := appendHuffman(dst, b[:n])
	if !ok {
		return dst, nil, errHuffman
	}
	return dst, b[n:], nil
}
