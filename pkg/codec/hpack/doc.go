// SPDX-License-Identifier: Apache-2.0

// Package hpack is header compression for HTTP/2 (RFC 7541), for a proxy: field
// lists are decoded into the form that HTTP/1 writes, so that a head bridged
// from HTTP/2 costs one copy, and what is costly to find out about a field (its
// known name, whether it may stand in a message) is found out once, when it
// enters the dynamic table.
//
// What belongs here: the two tables, integers, strings. What does not: frames,
// and the rules of pseudo-headers and messages, which are http2's.
//
// A Decoder and an Encoder belong to the loop that owns their connection. They
// allocate only until their tables have their size.
package hpack

// Error is why a block could not be decoded: the connection's state is lost
// (RFC 9113 §4.3). The values are static.
type Error struct{ Detail string }

// Error is the detail.
func (e *Error) Error() string { return e.Detail }

// ErrTooMuch: a block makes many times the bytes of the list that it may become.
var ErrTooMuch = &Error{"hpack.too_much_to_decode"}

var (
	errTruncated = &Error{"hpack.truncated"}
	errInteger   = &Error{"hpack.integer_overflow"}
	errIndex     = &Error{"hpack.invalid_index"}
	errHuffman   = &Error{"hpack.invalid_huffman"}
	errUpdate    = &Error{"hpack.invalid_table_size_update"}
	errNoUpdate  = &Error{"hpack.missing_table_size_update"}
)
