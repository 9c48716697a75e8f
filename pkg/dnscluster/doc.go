// SPDX-License-Identifier: Apache-2.0

// Package dnscluster finds the endpoints of clusters of types STRICT_DNS and
// LOGICAL_DNS: it looks their names up, again and again, and hands over assignments
// as EDS would.
//
// A set is the state machine: what is to be looked up when, what an answer changes.
// It has no clock and does no I/O. Resolver runs it: one goroutine owns the set and
// starts lookups, of which there are at most lookupsAtATime for one list of
// resolvers, so that thousands of names do not ask at once, and one that is dead
// does not hold up the others. All of them end before Run returns.
//
// What does not belong here: the protocol (pkg/dns), and holding clusters back until
// there is an answer (pkg/xds/client).
package dnscluster
