// SPDX-License-Identifier: Apache-2.0

// Package proxy is the data path: workers, exchanges with their attempts, the
// phases a request's head walks, routing, upstream pools, retries, local replies.
//
// Three kinds of state, told apart by who may touch them:
//
//   - compiled configuration (listener, routeTable, clusterSpec, …) is immutable
//     and made off the loops by Compile;
//   - shared state (cluster, routeSlot, what hangs on them) lives as long as its
//     name is in use, is process-wide and holds only atomics: an update of a
//     route table or a cluster is one pointer store into its slot;
//   - everything with a worker in it (worker, downstreamConn, exchange, attempt,
//     upstreamConn, hostPool) is owned by that worker's loop and needs no lock.
//
// A request's path is the list in phases.go; bodies flow beside it, see body.go.
// What does not belong here: bytes (pkg/codec), syscalls (pkg/reactor), protobuf
// (pkg/xds), which endpoint (pkg/lb), whether at all (pkg/breaker).
package proxy
