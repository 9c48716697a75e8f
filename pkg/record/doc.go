// SPDX-License-Identifier: Apache-2.0

// Package record is what is known about one finished exchange or connection,
// and the ring that carries it from a loop to the readers off the loop (access
// log, trace export).
//
// One loop writes a ring, one goroutine reads it. The writer never waits: what
// a full ring cannot take is counted and dropped.
package record
