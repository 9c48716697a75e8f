// SPDX-License-Identifier: Apache-2.0

// Package http2 reads and writes HTTP/2 (RFC 9113, RFC 8441) in both roles as a
// proxy must: bytes in, events out, and the reverse.
//
// What belongs here: frames, streams, flow control, header compression state,
// the rules of HTTP messages in HTTP/2, and the budgets that bound what a peer
// may make this side do. What does not: sockets, clocks, timeouts, retries, and
// every decision about a message as a whole.
//
// A message that breaks a rule ends its stream, because sidecars share
// connections; what breaks framing, header compression or a budget ends the
// connection, with GOAWAY. Priorities are read and ignored (RFC 9113 §5.3.2).
//
// A Conn is owned by the loop that owns its connection. It keeps nothing of the
// input but unfinished header blocks. The same bytes give the same events
// however they are cut, but for where a body is cut into Data. Decoding and
// encoding allocate nothing in steady state.
//
// Output has two ways. Append functions write into the caller's buffer, always
// behind what is pending, so that frames stay in order whatever is called when.
// What the peer's frames caused (acknowledgements, resets, credit) and bodies
// that waited for window are pending until AppendPending.
package http2
