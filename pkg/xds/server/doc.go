// SPDX-License-Identifier: Apache-2.0

// Package server serves xDS: state of the world and delta, aggregated and
// single-type streams, and REST-JSON polling.
//
// The stream protocol (nonces, the queue between cache and socket) is
// go-control-plane's server. What it serves comes from this package's own
// cache, because the caches that come with it marshal once per watcher and
// compare whole snapshots per change. Here a resource is marshalled once, when
// [Server.NewResource] makes it, and the same bytes go to every stream; a
// change costs its subscribers, not the fleet.
//
// # Sets
//
// Resources live in sets. A set is named by a type URL and a group; the groups
// of a node for a type are what [Config.Groups] answers. A group should be
// exactly the arguments that its resources are built from: what does not
// differ between nodes is one set for the whole fleet, and what does is a small
// set beside it.
//
// # Subscriptions
//
// A subscription is one type on one stream. It remembers what the client was
// last sent and which names may differ from that ("dirty"). A push marks names
// dirty and answers where a watch is open; where the client has not
// acknowledged yet, names gather, and its acknowledgement is answered with the
// latest state: nothing is queued, the latest wins. On an aggregated stream
// types are answered in the order clusters, endpoints, listeners, routes, and
// a type waits while an earlier one is behind (make before break); removed
// clusters and endpoints linger for [Config.RemovalGrace] so that routes leave
// first.
//
// # Ownership
//
// All state is guarded by Server.mu, which is held for short, bounded work and
// never over I/O or callbacks to the user. One goroutine fires timers; it ends
// with [Server.Close]. Streams' goroutines belong to gRPC.
//
// What does not belong here: building resources (package controlplane), the
// mesh model, and what resources mean. This package treats them as bytes with
// a type, a name and a version.
package server
