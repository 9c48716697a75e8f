// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// inside is where a tls.Conn keeps what it has read. Fed by Read alone, crypto/tls
// copies each record once more, allocates twice per read and keeps the buffer of
// the largest record for the life of the connection (16 kB of an idle one). Given
// its input in place it does none of that. The fields have been there since Go 1.4
// (input as a bytes.Reader since 1.12); where they are not what is expected, records
// are fed by Read.
type inside struct {
	raw, input, hand uintptr
	ok               bool
}

var layout = findLayout(reflect.TypeFor[tls.Conn]())

func findLayout(t reflect.Type) (l inside) {
	raw, ok1 := t.FieldByName("rawInput")
	input, ok2 := t.FieldByName("input")
	hand, ok3 := t.FieldByName("hand")
	buffer := reflect.TypeFor[bytes.Buffer]()
	l.ok = ok1 && ok2 && ok3 && raw.Type == buffer && hand.Type == buffer && input.Type == reflect.TypeFor[bytes.Reader]()
	l.raw, l.input, l.hand = raw.Offset, input.Offset, hand.Offset
	return l
}

// rawInput holds records that are not decrypted.
func rawInput(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), layout.raw))
}

// input holds plaintext that Read has not returned; it lies in rawInput's memory.
func input(c *tls.Conn) *bytes.Reader {
	return (*bytes.Reader)(unsafe.Add(unsafe.Pointer(c), layout.input))
}

// handshakeInput holds parts of handshake messages.
func handshakeInput(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), layout.hand))
}
