// SPDX-License-Identifier: Apache-2.0

// Package resource holds what xDS configures, decoded and validated: listeners,
// filter chains, routes, clusters, endpoints, runtime. Plain immutable structs,
// no protobuf, no I/O.
//
// pkg/xds/decode makes them from protobuf and does everything that can fail;
// pkg/proxy compiles them into what loops execute. After a resource has been
// handed on, nobody writes to it: an update makes a new one, and unchanged
// resources keep their pointers from snapshot to snapshot.
//
// Field names follow Envoy's API; a comment gives the default where zero is not
// meant literally. Durations are time.Duration, sizes are bytes, fractions are
// parts of a million.
package resource
