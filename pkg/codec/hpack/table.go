// SPDX-License-Identifier: Apache-2.0

package hpack

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// entryOverhead is what an entry counts above its bytes (RFC 7541 §4.1). It is
// also more than the entry needs here.
const entryOverhead = 32

// entry is a field in the dynamic table.
type entry struct {
	off         uint32 // in the table's stream of bytes, which wraps
	name, value uint32 // lengths
	hash        uint32 // encoders only
	id          codec.Name
	flags       Flags
}

func (e *entry) size() uint32 { return e.name + e.value + entryOverhead }

// wire is the number of bytes in the buffer: name ": " value CRLF.
func (e *entry) wire() uint32 { return e.name + e.value + 4 }

// table is a dynamic table: its bytes lie one behind the other, oldest first,
// and move to the front when the end is reached, so that an insertion copies
// each byte twice at most over time.
type table struct {
	buf     []byte
	base    uint32  // stream position of buf[0]
	entries []entry // ring, a power of two long
	head    uint32  // the oldest
	count   uint32
	size    uint32
	max     uint32
}

// at is the entry with that distance from the newest, nil if there is none.
func (t *table) at(i uint32) *entry {
	if i >= t.count {
		return nil
	}
	return &t.entries[(t.head+t.count-1-i)&uint32(len(t.entries)-1)]
}

func (t *table) bytes(e *entry) []byte {
	off := e.off - t.base
	return t.buf[off : off+e.wire()]
}

func (t *table) evict() {
	t.size -= t.entries[t.head].size()
	t.head = (t.head + 1) & uint32(len(t.entries)-1)
	t.count--
}

// resize sets the table's maximum (RFC 7541 §4.3).
func (t *table) resize(size uint32) {
	t.max = size
	for t.size > size {
		t.evict()
	}
}

// insert adds an entry, given in wire form, and reports whether it is there: one
// that is larger than the table empties it (RFC 7541 §4.4).
func (t *table) insert(wire []byte, name, value uint32, id codec.Name, flags Flags) bool {
	e := entry{name: name, value: value, id: id, flags: flags}
	for t.count > 0 && t.size+e.size() > t.max {
		t.evict()
	}
	if e.size() > t.max {
		return false
	}
	if len(t.buf)+len(wire) > cap(t.buf) {
		t.makeRoom(len(wire))
	}
	if int(t.count) == len(t.entries) {
		t.grow()
	}
	e.off = t.base + uint32(len(t.buf))
	t.buf = append(t.buf, wire...)
	t.entries[(t.head+t.count)&uint32(len(t.entries)-1)] = e
	t.count++
	t.size += e.size()
	return true
}

// makeRoom moves the live bytes to the front of a buffer with room for n more.
func (t *table) makeRoom(n int) {
	live := t.buf[len(t.buf):]
	if t.count > 0 {
		start := t.entries[t.head].off - t.base
		live = t.buf[start:]
	}
	t.base += uint32(len(t.buf) - len(live))
	to := t.buf[:0]
	if 2*(len(live)+n) > cap(t.buf) {
		to = make([]byte, 0, max(256, 2*(len(live)+n), min(2*cap(t.buf), 2*int(t.max))))
	}
	t.buf = append(to, live...)
}

func (t *table) grow() {
	ring := make([]entry, max(8, 2*len(t.entries)))
	for i := range t.count {
		ring[i] = t.entries[(t.head+i)&uint32(len(t.entries)-1)]
	}
	t.entries, t.head = ring, 0
}
