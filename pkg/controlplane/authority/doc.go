// SPDX-License-Identifier: Apache-2.0

// Package authority runs the mesh's certificate authority in the control plane: it
// keeps the state of an identity.Authority in the data folder, does what time makes
// due, reads an outside authority's files again when they change, and holds the
// certificate that the control plane itself serves with.
//
// What does not belong here: what an authority may do and when (pkg/identity), who
// may ask it (pkg/controlplane/sidecarservice).
//
// Concurrency: one goroutine, in Run; the other methods may be called from any.
package authority
