// SPDX-License-Identifier: Apache-2.0

// Package decode turns protobuf configuration (xDS resources and the Envoy v3
// bootstrap) into pkg/xds/resource, and refuses what cannot be used.
//
// Everything that can fail happens here: message validation, regular
// expressions, format strings, limits, the Parse of HTTP filters. What decode
// hands on can be compiled and run without errors. Nothing is ignored in
// silence: every field of every message is either read, listed as harmless with
// a reason (fields.go), or refused with its path. All errors of a resource are
// collected before it is refused.
//
// Fetching configuration, versions, acknowledgements and the relation of
// resources to each other belong to pkg/xds/client. A Decoder keeps a table of
// interned strings and is for one goroutine at a time; what it returns is
// immutable and free for all.
package decode
