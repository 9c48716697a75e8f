// SPDX-License-Identifier: Apache-2.0

// Package mesh is the control plane's model: services, the instances that the
// registry knows, and the objects that users write.
//
// A Model is an immutable snapshot. Apply returns a new one that shares what did
// not change, so a reader may keep and walk a Model without a lock for as long
// as it likes; nobody may change what a Model points to. Objects are values of
// the same kind: parsed once, never modified after they entered a Model.
//
// Each kind of object is one file (its fields, defaults that belong to parsing,
// and checks) and one line in kinds.go. The field tags are the single source of
// what a field accepts: the strict decoder enforces them and the JSON Schemas
// are generated from them.
//
// What does not belong here: protobuf and xDS (pkg/xds/encode), files, sockets,
// clocks and the store. Times that matter are arguments or fields.
package mesh
