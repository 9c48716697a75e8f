// SPDX-License-Identifier: Apache-2.0

package codec

// Name identifies a header field name that the data path looks up. Fields with
// any other name have NameOther and are found by their bytes.
type Name uint8

// span is a piece of a Header's buffer.
type span struct{ off, end uint32 }

// field is one header field: where its name and value lie in the buffer, and
// which known name it has. A removed field keeps its place with id nameRemoved,
// so that removal is O(1) and the order of the others stays.
type field struct {
	name  span
	value span
	id    Name
}

const nameRemoved Name = 255

var _ [128 - nameCount]struct{} // Header.seen has room for all names

// Header is a list of header fields in wire order, case kept, in one buffer.
// The zero value is an empty list. Reset keeps the memory for the next message,
// so a pooled Header allocates nothing once it is warm.
//
// Values and names returned are slices of the buffer: valid until the next
// Add, Set, Reset or CopyFrom, and not to be written to.
//
// A Header holds nothing that must not go on the wire: decoders check what they
// add as spans, and the functions that copy drop a field whose name is no token
// and put a space for each control byte of a value (RFC 9110 §5.5).
type Header struct {
	buf      []byte
	fields   []field
	seen     [2]uint64 // by Name: a field of that name was added; it may be removed again
	live     int
	borrowed bool // buf is a decoder's input: never to be written to
}

// mayHave reports whether a field of that name may be there. Most names that are
// looked up are absent, and then there is no list to walk.
func (h *Header) mayHave(id Name) bool { return h.seen[id>>6&1]&(1<<(id&63)) != 0 }

// record appends a field.
func (h *Header) record(f field) {
	h.fields = append(h.fields, f)
	h.seen[f.id>>6&1] |= 1 << (f.id & 63)
	h.live++
}

// Reset empties h and keeps its memory.
func (h *Header) Reset() {
	h.release()
	h.buf = h.buf[:0]
	h.fields = h.fields[:0]
	h.seen = [2]uint64{}
	h.live = 0
}

// release lets go of a buffer that is not h's own. A put into a borrowed buffer
// needs no such care: the buffer has no spare capacity, so append copies it.
func (h *Header) release() {
	if h.borrowed {
		h.buf = nil
		h.borrowed = false
	}
}

// Len is the number of fields.
func (h *Header) Len() int { return h.live }

// Size is the number of bytes of memory the fields use, removed ones included.
func (h *Header) Size() int { return len(h.buf) }

// CopyFrom makes h an independent copy of src.
func (h *Header) CopyFrom(src *Header) {
	h.release()
	h.buf = append(h.buf[:0], src.buf...)
	h.fields = append(h.fields[:0], src.fields...)
	h.seen, h.live = src.seen, src.live
}

// Shrink lets go of memory above limit bytes, so that one huge message does not
// stay pinned in a pool.
func (h *Header) Shrink(limit int) {
	if cap(h.buf) > limit {
		h.buf = nil
	}
	if cap(h.fields)*24 > limit {
		h.fields = nil
	}
}

// SetBuffer makes buf the buffer that AddSpan refers to, and empties the list.
// It is for decoders: the fields of one head are spans of the bytes read. The
// buffer is borrowed: h never writes to it.
func (h *Header) SetBuffer(buf []byte) {
	h.buf = buf[:len(buf):len(buf)]
	h.borrowed = true
	h.fields = h.fields[:0]
	h.seen = [2]uint64{}
	h.live = 0
}

// TrimBuffer cuts the buffer given to SetBuffer to the bytes that spans refer to.
func (h *Header) TrimBuffer(end int) { h.buf = h.buf[:end:end] }

// AddSpan appends a field whose name and value are spans of the buffer, which
// the decoder has found valid.
func (h *Header) AddSpan(nameOff, nameEnd, valueOff, valueEnd int, id Name) {
	h.record(field{
		name:  span{uint32(nameOff), uint32(nameEnd)},
		value: span{uint32(valueOff), uint32(valueEnd)},
		id:    id,
	})
}

// Add appends a field. Name and value are copied.
func (h *Header) Add(name, value []byte) {
	if ValidName(name) {
		h.add(Lookup(name), h.put(name), value)
	}
}

// AddString is Add for strings.
func (h *Header) AddString(name, value string) {
	n := h.putString(name)
	if !ValidName(h.bytes(n)) {
		h.buf = h.buf[:n.off]
		return
	}
	h.buf = append(h.buf, ": "...)
	v := h.putString(value)
	h.finish(LookupString(name), n, v)
}

// AddValue appends a field whose name is in lower case. The value is copied.
func (h *Header) AddValue(lowerName string, value []byte) {
	h.add(LookupString(lowerName), h.putString(lowerName), value)
}

// AddKnown appends a field with a known name, written in its canonical
// lower-case form.
func (h *Header) AddKnown(id Name, value []byte) { h.add(id, h.putString(names[id]), value) }

// add completes a field in its wire form, so that AppendFields can copy runs of
// added fields as it does runs of decoded ones.
func (h *Header) add(id Name, name span, value []byte) {
	h.buf = append(h.buf, ": "...)
	h.finish(id, name, h.put(value))
}

func (h *Header) finish(id Name, name, value span) {
	value = h.clean(value)
	h.buf = append(h.buf[:value.end], "\r\n"...)
	h.record(field{name: name, value: value, id: id})
}

// clean makes a value that was just copied fit for the wire: no white space
// around it, no control byte in it.
func (h *Header) clean(v span) span {
	for v.end > v.off && (h.buf[v.end-1] == ' ' || h.buf[v.end-1] == '\t') {
		v.end--
	}
	b := h.buf[v.off:v.end]
	for i := IndexControl(b, 0); i < len(b); i = IndexControl(b, i+1) {
		b[i] = ' '
	}
	for v.end > v.off && h.buf[v.end-1] == ' ' {
		v.end--
	}
	lead := uint32(0)
	for v.off+lead < v.end && (h.buf[v.off+lead] == ' ' || h.buf[v.off+lead] == '\t') {
		lead++
	}
	if lead > 0 {
		copy(h.buf[v.off:], h.buf[v.off+lead:v.end])
		v.end -= lead
	}
	return v
}

func (h *Header) putValue(b []byte) span { return h.clean(h.put(b)) }

func (h *Header) put(b []byte) span {
	off := uint32(len(h.buf))
	h.buf = append(h.buf, b...)
	return span{off, uint32(len(h.buf))}
}

func (h *Header) putString(s string) span {
	off := uint32(len(h.buf))
	h.buf = append(h.buf, s...)
	return span{off, uint32(len(h.buf))}
}

// AppendFields appends the fields in order in the form of HTTP/1, each with its
// line end. Fields that lie in the buffer as they go out, one behind the other,
// are copied in one piece: an untouched head costs one copy.
func (h *Header) AppendFields(dst []byte) []byte {
	buf := h.buf
	runOff, runEnd := uint32(0), uint32(0)
	for i := range h.fields {
		f := &h.fields[i]
		if f.id == nameRemoved {
			continue
		}
		ne, ve := f.name.end, f.value.end
		if f.value.off == ne+2 && int(ve)+2 <= len(buf) &&
			buf[ne] == ':' && buf[ne+1] == ' ' && buf[ve] == '\r' && buf[ve+1] == '\n' {
			if f.name.off != runEnd {
				dst = append(dst, buf[runOff:runEnd]...)
				runOff = f.name.off
			}
			runEnd = ve + 2
			continue
		}
		dst = append(dst, buf[runOff:runEnd]...)
		runOff, runEnd = 0, 0
		dst = append(dst, buf[f.name.off:ne]...)
		dst = append(dst, ": "...)
		dst = append(dst, buf[f.value.off:ve]...)
		dst = append(dst, "\r\n"...)
	}
	return append(dst, buf[runOff:runEnd]...)
}

// Known returns the first value of a known name, nil if there is none. An empty
// value is non-nil.
func (h *Header) Known(id Name) []byte {
	if !h.mayHave(id) {
		return nil
	}
	for i := range h.fields {
		if h.fields[i].id == id {
			v := h.fields[i].value
			return h.buf[v.off:v.end:v.end]
		}
	}
	return nil
}

// HasKnown reports whether a known name is present.
func (h *Header) HasKnown(id Name) bool {
	if !h.mayHave(id) {
		return false
	}
	for i := range h.fields {
		if h.fields[i].id == id {
			return true
		}
	}
	return false
}

// NameSet is a set of known names, as MayHaveAny asks for it.
type NameSet [2]uint64

// NewNameSet returns the set of some known names.
func NewNameSet(names ...Name) (s NameSet) {
	for _, id := range names {
		s[id>>6&1] |= 1 << (id & 63)
	}
	return s
}

// MayHaveAny is false where no name of the set is present. It costs next to nothing, and
// is true also of names that were removed.
func (h *Header) MayHaveAny(s *NameSet) bool { return h.seen[0]&s[0]|h.seen[1]&s[1] != 0 }

// Get returns the first value of the name, compared without case, and nil if
// there is none. The name must be in lower case.
func (h *Header) Get(lowerName string) []byte {
	if id := LookupString(lowerName); id != NameOther {
		return h.Known(id)
	}
	for i := range h.fields {
		f := &h.fields[i]
		if f.id == NameOther && EqualFold(h.buf[f.name.off:f.name.end], lowerName) {
			return h.buf[f.value.off:f.value.end:f.value.end]
		}
	}
	return nil
}

// Index returns the position of the next field with that lower-case name at or
// after from, or -1. With At it walks all values of a name.
func (h *Header) Index(lowerName string, from int) int {
	id := LookupString(lowerName)
	if !h.mayHave(id) {
		return -1
	}
	for i := from; i < len(h.fields); i++ {
		f := &h.fields[i]
		if f.id != id {
			continue
		}
		if id != NameOther || EqualFold(h.buf[f.name.off:f.name.end], lowerName) {
			return i
		}
	}
	return -1
}

// NextOther returns the position of the next field at or after from whose name is not
// a known one and begins with that lower-case letter, or -1.
func (h *Header) NextOther(from int, first byte) int {
	for i := from; i < len(h.fields); i++ {
		if f := &h.fields[i]; f.id == NameOther && f.name.end > f.name.off && h.buf[f.name.off]|0x20 == first {
			return i
		}
	}
	return -1
}

// Slots is the number of positions that At accepts; removed fields count.
func (h *Header) Slots() int { return len(h.fields) }

// At returns the field at a position; ok is false where it was removed.
func (h *Header) At(i int) (name, value []byte, id Name, ok bool) {
	f := &h.fields[i]
	if f.id == nameRemoved {
		return nil, nil, 0, false
	}
	return h.buf[f.name.off:f.name.end:f.name.end], h.buf[f.value.off:f.value.end:f.value.end], f.id, true
}

// AppendJoined appends all values of the name joined with "," (RFC 9110 §5.3):
// what matchers see, so that a second field of the same name cannot pass by
// them. It reports whether there was any.
func (h *Header) AppendJoined(dst []byte, lowerName string) ([]byte, bool) {
	found := false
	for i := h.Index(lowerName, 0); i >= 0; i = h.Index(lowerName, i+1) {
		if found {
			dst = append(dst, ',')
		}
		v := h.fields[i].value
		dst = append(dst, h.buf[v.off:v.end]...)
		found = true
	}
	return dst, found
}

// RemoveAt removes the field at a position.
func (h *Header) RemoveAt(i int) {
	if h.fields[i].id != nameRemoved {
		h.fields[i].id = nameRemoved
		h.live--
	}
}

// Remove removes every field of the lower-case name and reports how many.
func (h *Header) Remove(lowerName string) int {
	n := 0
	for i := h.Index(lowerName, 0); i >= 0; i = h.Index(lowerName, i+1) {
		h.RemoveAt(i)
		n++
	}
	return n
}

// RemoveKnown removes every field of a known name.
func (h *Header) RemoveKnown(id Name) {
	if !h.mayHave(id) {
		return
	}
	for i := range h.fields {
		if h.fields[i].id == id {
			h.fields[i].id = nameRemoved
			h.live--
		}
	}
}

// SetValueAt replaces the value at a position.
func (h *Header) SetValueAt(i int, value []byte) { h.fields[i].value = h.putValue(value) }

// SetKnown makes value the only value of a known name, in the place of the
// first one where there was one.
func (h *Header) SetKnown(id Name, value []byte) {
	if !h.mayHave(id) {
		h.AddKnown(id, value)
		return
	}
	for i := range h.fields {
		if h.fields[i].id == id {
			h.fields[i].value = h.putValue(value)
			for j := i + 1; j < len(h.fields); j++ {
				if h.fields[j].id == id {
					h.RemoveAt(j)
				}
			}
			return
		}
	}
	h.AddKnown(id, value)
}

// Set makes value the only value of the lower-case name.
func (h *Header) Set(lowerName string, value []byte) {
	if id := LookupString(lowerName); id != NameOther {
		h.SetKnown(id, value)
		return
	}
	i := h.Index(lowerName, 0)
	if i < 0 {
		if n := h.putString(lowerName); ValidName(h.bytes(n)) {
			h.add(NameOther, n, value)
		}
		return
	}
	h.fields[i].value = h.putValue(value)
	for j := h.Index(lowerName, i+1); j >= 0; j = h.Index(lowerName, j+1) {
		h.RemoveAt(j)
	}
}
