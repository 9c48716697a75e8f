// SPDX-License-Identifier: Apache-2.0

// Package sessionkeys makes, keeps and rolls over the keys that sidecars encrypt sessions
// with (sessionPersistence of a TrafficPolicy or an HTTPRoute). There are one or two: the
// first encrypts, both decrypt.
//
//	made:      A       at the first start
//	announced: A B     after a life of A: all sidecars come to know B
//	rolled:    B A     after the overlap: B encrypts, and what A has encrypted is read
//	announced: B C     after a life of B: A is gone
//
// So a session of A is read for at least a life after A encrypted for the last time, and a
// sidecar that is out of reach for less than the overlap never meets a value that it cannot
// read. One that is for longer treats what it cannot read as no session.
//
// The keys are in a file of mode 0600 that is replaced whole, beside those of the
// authority, and for the same reason not in the store of objects. No method that prints,
// marshals or logs shows them.
//
// Concurrency: Keys may be used by any goroutine; Run is one goroutine of its own.
//
// What does not belong here: who is given the keys (pkg/xds/server, cmd/controlplane), and
// what is done with them (pkg/filter/statefulsession).
package sessionkeys
