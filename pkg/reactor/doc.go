// SPDX-License-Identifier: Apache-2.0

// Package reactor runs connections on epoll loops: one Loop for each core, and
// on it the connections, listeners and timers that it alone owns. It is the
// only package that makes system calls on sockets of the data path, and it
// knows no protocol: bytes come in through a Handler, bytes go out through
// Conn.Write.
//
// # Rules of a loop
//
//   - One goroutine, locked to its thread, runs a loop. Everything it owns
//     (Conn, Listener, Timer, the counters) is touched by that goroutine only,
//     without locks. Methods that others may call end in OffLoop. Built with
//     -tags meshdebug, a call from a foreign goroutine panics.
//   - Nothing on a loop blocks, starts a goroutine, uses a channel, takes a lock
//     or reads the clock: Now and Wall are the time of the tick.
//   - A tick does, in this order: wait for events, read the clock, begin hook,
//     events, mailbox, timers, end hook, flush, close. Loop.Tick gives the
//     reasons. Only what Conn.Gather keeps back leaves later.
//   - Callbacks are never made from inside the verbs of a Conn, with one
//     exception: Write and Commit may call OnHighWater of the same connection,
//     since back-pressure that comes a tick late costs memory.
//   - A panic in a callback closes the connection that it was made for, is
//     counted and reported, and the other events of the tick go on.
//
// # Memory
//
// Input is read into one scratch buffer of the loop; only what a handler leaves
// over is copied, into a pooled buffer that is given back when it is empty.
// Output is copied into pooled chunks, or written through when it is large. An
// idle connection thus owns its Conn and nothing else. Input that waits is
// bounded by Conn.SetReadLimit; output is bounded by whoever heeds OnHighWater.
//
// # What does not belong here
//
// Framing, TLS, retries, connection pools, access to configuration, names: a
// loop connects to addresses. Below the loop is System; package sim implements
// it over a virtual clock and network.
package reactor
