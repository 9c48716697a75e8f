// SPDX-License-Identifier: Apache-2.0

// Package sidecarservice is the control plane's end of the sidecar service: the
// registration of instances and their leases, the upload of tapped traffic, of
// spans and of events, and what sidecars report of their state. It is registered on the gRPC server that serves xDS.
//
// It translates between the wire (api/sidecar/v1) and what stands behind it: a
// Registry, a TapSink and a SpanSink, each declared here and small. It keeps no
// state of its own but the last sequence stored for each uploading sidecar,
// which makes "at least once" into "once" while the control plane runs, and the last
// reports of ejected endpoints, until they are stale.
//
// What does not belong here: leases, their ends and durability (pkg/registry),
// the lake's files (pkg/lake), xDS (pkg/xds/server).
//
// Concurrency: gRPC calls from many goroutines; what stands behind must allow it.
package sidecarservice
