// SPDX-License-Identifier: Apache-2.0

// Package controlplane turns the mesh model into what each xDS client gets.
//
//	state → ControlPlane.Run (hold-off) → builder (processors) → xds/server
//
// A client belongs to groups ([Group]); a group is exactly the arguments that
// its resources are built from, so groups are built, not nodes. What all
// sidecars share, which is nearly everything, is the group "mesh"; a sidecar's
// listeners are a small group of their own.
//
// Processors (builder.go lists them) say which resources a group has as
// recipes: a name, what goes in, and how to make it. The recipes are pure.
// The builder makes only those whose input changed, so that an endpoint that
// comes or goes costs one resource, marshalled once, however large the mesh
// and the fleet are.
//
// What cannot be built does not unseat what is published: the old resource
// stays, the rest goes on, and the status says why.
//
// # Ownership
//
// One goroutine, Run's, owns the builder and the loop's state. The status is
// copied under a lock. Streams' goroutines only ask for groups.
//
// What does not belong here: the state and its durability (store, registry),
// the REST API (rest), the xDS protocol (xds/server), protobuf (xds/encode).
package controlplane
