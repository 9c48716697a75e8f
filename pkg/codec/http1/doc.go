// SPDX-License-Identifier: Apache-2.0

// Package http1 reads and writes HTTP/1.1 (RFC 9110, RFC 9112) as a proxy must:
// bytes in, events out, and the reverse.
//
// What belongs here: the grammar, message framing, the rules that keep two
// parsers from disagreeing about where a message ends, hop-by-hop fields. What
// does not: sockets, clocks, timeouts, retries, and every decision about a
// message as a whole.
//
// Nothing is guessed. A message that two implementations might frame in two ways
// is refused with a static *Error, after which the connection must be closed.
// A head that was accepted is end-to-end only: framing and hop-by-hop fields are
// gone from its list and stand in its flags, and the encoders write them anew.
//
// Decoders are plain structs without heap memory, owned by the loop that owns
// their connection. They keep nothing of the input: a head that has not come in
// whole stays with the caller, who presents it again with more bytes behind it.
// The same bytes give the same events however they are cut, but for where a body
// is cut into Data. Decoding and encoding allocate nothing in steady state.
package http1
