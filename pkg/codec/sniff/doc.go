// SPDX-License-Identifier: Apache-2.0

// Package sniff tells protocols by the first bytes of a connection: a TLS
// ClientHello with its server name and ALPN list, HTTP/2's preface, HTTP/1's
// request line. What is none of these is plain TCP.
//
// Each question is a pure function of the bytes seen so far and answers Yes, No or
// More; the TLS one also Broken. Answers are the same however the bytes are cut:
// one that is not More is final, whatever comes after. Nothing is consumed: what
// was looked at is the first input of whoever handles the connection. The caller
// owns the clock and bounds how long More may last.
//
// What does not belong here: reading, timeouts, choosing what handles the
// connection, and validation beyond what telling the protocols apart needs.
//
// Nothing is allocated, but for the joined copy that a Hello keeps of a ClientHello that
// was cut over several TLS records; it is reused.
package sniff
