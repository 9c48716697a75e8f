// SPDX-License-Identifier: Apache-2.0

// Package handover passes the sockets of a running process to its successor: listening
// ones, so that none is closed and no connection in a backlog lost, then those of idle
// connections (docs/adr/0024).
//
// Two processes speak over a Unix socket of packets that keep their bounds. Each packet
// is one Message of at most MaxMessage bytes with at most MaxFiles descriptors. The
// order of them is a Parent's and a Successor's own, and nothing in it is optional:
//
//	successor               parent
//	Hello               →             which version, whose
//	                    ←  Sockets…   all listening sockets; or Refused
//	Ready               →             configured, has bound the rest, accepts nothing yet
//	                    ←  Go         the files are yours, with the lock of the data folder
//	Serving             →             accepts
//	                    ←  Counters…  what was counted so far, if both ends know it
//	                    ←  Conns…     idle connections, as they become idle
//	                    ←  Counters…  what was counted in the end
//	                    ←  Done       none are left
//
// Up to Serving the parent serves as if nothing was, and goes on if the other end
// closes, says anything else or takes too long. From Serving on it drains.
//
// Both ends must be of the same user, which the kernel says (SO_PEERCRED). A Link is for
// one goroutine at a time in each direction. What does not belong here: what to do with
// the sockets, and when.
package handover
