// SPDX-License-Identifier: Apache-2.0

// Package mtls secures connections of reactor loops with TLS 1.2 and 1.3, in both
// directions, and says who the peer is.
//
// The protocol is crypto/tls. A handshake runs in a goroutine that is parked on a
// connection in memory: the loop hands on the peer's bytes, owns the deadline and
// writes the answers. The goroutine starts with the first whole record, so that
// silent clients cost a Handshake and nothing else. Only as many handshakes
// compute at a time as Limits.CPU says. Once it is done, the tls.Conn belongs to
// the loop: Session feeds it records from memory, as a reactor.Transport below the
// handler that Owner names.
//
// ServerContext and ClientContext are immutable. They are compiled from
// pkg/xds/resource off the loops and swapped by whoever holds them: handshakes
// begun before end with what they began with.
//
// A Gate belongs to one loop, with all that it makes. Contexts are free for all.
//
// What does not belong here: fetching secrets (pkg/xds/client), issuing
// certificates (the control plane), what a listener or cluster does with an
// identity (pkg/proxy), and telling TLS from other protocols.
package mtls
