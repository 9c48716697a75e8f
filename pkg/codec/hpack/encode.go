// SPDX-License-Identifier: Apache-2.0

package hpack

import (
	"bytes"
	"encoding/binary"
)

// Policy is how a field may be represented.
type Policy uint8

// The policies.
const (
	// Auto: from the tables where the field is there. It enters the dynamic
	// table when it is seen for the second time within a while, so that values
	// that never come again (identifiers, paths with parameters) push nothing out.
	Auto Policy = iota
	// Once: the value never comes again.
	Once
	// Sensitive: no table, here and further on (RFC 7541 §7.1.3).
	Sensitive
)

const (
	slotCount = 256
	seenCount = 128
)

// memory is what an encoder needs once it has something to remember.
type memory struct {
	slots [slotCount]uint32 // hash → number of the insertion
	seen  [seenCount]uint32 // hashes of fields seen once
}

// Encoder encodes the blocks of one direction of a connection. Strings are not
// Huffman coded: between sidecars bytes are cheaper than the time that takes,
// and what repeats is one byte from the table anyway.
type Encoder struct {
	table
	*memory
	inserted uint32 // number of the newest entry
	lowest   uint32 // smallest size set since the last block
	resized  bool
	limit    uint32
	scratch  []byte
}

// Init makes e ready. limit is the largest dynamic table it keeps, whatever the
// peer allows; until the peer says otherwise that is 4 096 bytes.
func (e *Encoder) Init(limit uint32) {
	e.limit = limit
	e.max = 4096
	if limit < e.max {
		e.SetPeerMax(limit)
	}
}

// SetPeerMax is the peer's SETTINGS_HEADER_TABLE_SIZE. The next block tells it
// what size is used (RFC 7541 §4.2).
func (e *Encoder) SetPeerMax(size uint32) {
	size = min(size, e.limit)
	if size == e.max && !e.resized {
		return
	}
	if !e.resized || size < e.lowest {
		e.lowest = size
	}
	e.resized = true
	e.resize(size)
}

// Begin starts a block: size updates come first.
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.resized {
		return dst
	}
	e.resized = false
	if e.lowest < e.max {
		// Lowered and raised again: both are to be said. There are decoders that
		// take the second only for an empty table.
		size := e.max
		e.resize(0)
		e.resize(size)
		dst = append(dst, 0x20)
	}
	return appendInteger(dst, 0x20, 5, e.max)
}

// AppendStatic appends a field of the static table.
func AppendStatic(dst []byte, index int) []byte { return append(dst, 0x80|byte(index)) }

// AppendField appends a field. The name is in lower case.
func (e *Encoder) AppendField(dst, name, value []byte, p Policy) []byte {
	return e.append(dst, StaticIndex(name), name, value, p)
}

// AppendNamed appends a field whose name the static table has at index.
func (e *Encoder) AppendNamed(dst []byte, index int, value []byte, p Policy) []byte {
	return e.append(dst, index, nil, value, p)
}

func (e *Encoder) append(dst []byte, static int, name, value []byte, p Policy) []byte {
	if p == Sensitive {
		return appendLiteral(dst, 0x10, 4, static, name, value)
	}
	size := len(name) + len(value) + entryOverhead
	if static > 0 {
		if i := staticMatch(static, value); i > 0 {
			return AppendStatic(dst, i)
		}
		name = nil // the same field, however it is named
		size = len(staticTable[static].name) + len(value) + entryOverhead
	}
	if p == Once || 4*size > 3*int(e.max) {
		return appendLiteral(dst, 0, 4, static, name, value)
	}
	h := hash(uint64(static), name, value)
	if i := e.find(h, static, name, value); i > 0 {
		return appendInteger(dst, 0x80, 7, i)
	}
	if !e.again(h) {
		return appendLiteral(dst, 0, 4, static, name, value)
	}
	e.remember(h, static, name, value)
	return appendLiteral(dst, 0x40, 6, static, name, value)
}

// find is the index of a field in the dynamic table, 0 if it is not there.
func (e *Encoder) find(h uint32, static int, name, value []byte) uint32 {
	if e.memory == nil {
		return 0
	}
	age := e.inserted - e.slots[h%slotCount]
	f := e.at(age)
	if f == nil || f.hash != h || int(f.value) != len(value) {
		return 0
	}
	b := e.bytes(f)
	if static > 0 {
		if string(b[:f.name]) != staticTable[static].name {
			return 0
		}
	} else if !bytes.Equal(b[:f.name], name) {
		return 0
	}
	if !bytes.Equal(b[f.name+2:f.name+2+f.value], value) {
		return 0
	}
	return age + uint32(staticCount) + 1
}

// again reports whether the field was seen a while ago, and notes it.
func (e *Encoder) again(h uint32) bool {
	if e.memory == nil {
		e.memory = &memory{}
	}
	// The slot must not hang on the bits that choose the place in slots alone.
	s := &e.seen[h>>16%seenCount]
	if *s == h {
		return true
	}
	*s = h
	return false
}

// remember inserts a field as the literal with indexing makes the peer do.
func (e *Encoder) remember(h uint32, static int, name, value []byte) {
	b := e.scratch[:0]
	if static > 0 {
		b = append(b, staticTable[static].name...)
	} else {
		b = append(b, name...)
	}
	n := len(b)
	b = append(b, ": "...)
	b = append(b, value...)
	b = append(b, "\r\n"...)
	e.scratch = b
	e.insert(b, uint32(n), uint32(len(value)), 0, 0) // fits: append looked
	e.at(0).hash = h
	e.inserted++
	e.slots[h%slotCount] = e.inserted
}

func appendLiteral(dst []byte, kind byte, prefix uint8, static int, name, value []byte) []byte {
	dst = appendInteger(dst, kind, prefix, uint32(static))
	if static == 0 {
		dst = appendInteger(dst, 0, 7, uint32(len(name)))
		dst = append(dst, name...)
	}
	dst = appendInteger(dst, 0, 7, uint32(len(value)))
	return append(dst, value...)
}

func appendInteger(dst []byte, kind byte, prefix uint8, n uint32) []byte {
	mask := uint32(1)<<prefix - 1
	if n < mask {
		return append(dst, kind|byte(n))
	}
	dst = append(dst, kind|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// hash mixes eight bytes at a time. Who makes fields collide on purpose loses
// their compression and nothing else.
func hash(seed uint64, name, value []byte) uint32 {
	h := mix(mix(seed+1, name), value)
	h ^= h >> 32
	if h := uint32(h); h != 0 {
		return h
	}
	return 1 // 0 is an empty slot
}

func mix(h uint64, b []byte) uint64 {
	const k = 0x9e3779b97f4a7c15
	h = (h ^ uint64(len(b))) * k
	for len(b) >= 8 {
		h = (h ^ binary.LittleEndian.Uint64(b)) * k
		h ^= h >> 29
		b = b[8:]
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * k
	}
	return h ^ h>>31
}
