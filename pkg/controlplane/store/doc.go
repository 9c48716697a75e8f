// SPDX-License-Identifier: Apache-2.0

// Package store keeps what must survive the control plane: objects and
// registered instances, in one bbolt file, and joins them into the mesh.Model
// that everything else reads.
//
// A State is the one place to ask for the current model and to be told of the
// next. Objects have one writer goroutine, instances another (the registry's);
// each commits its batch in one transaction and publishes only what is on disk.
// Readers take the model without a lock and never wait for a writer.
//
// A store that is damaged is an error that says what to do: it never opens empty
// in silence. A full or read-only disk fails writes and leaves reads alone.
//
// What does not belong here: HTTP, files of the configuration folder (they come
// in through SyncFiles), building of xDS resources.
package store
