// SPDX-License-Identifier: Apache-2.0

// Package identity is what the mesh knows of identities: SPIFFE IDs, the
// certificate authority that vouches for them, the check of what a sidecar asks it
// to sign, and the check of what a peer shows.
//
// An Authority is pure: time is an argument, and what must survive is handed to
// Config.Save before it takes effect, so that a process killed at any moment starts
// again with a consistent authority. Folder keeps it in one file, which is replaced
// whole. Roots roll over with overlap: a new root is in the trust bundle before it
// signs, and an old one stays until all that it signed has expired.
//
// Private keys of the authority leave this package only into the file (mode 0600):
// no method returns one, and no type that holds one prints it.
//
// What does not belong here: connections and TLS contexts (pkg/mtls), gRPC
// (pkg/controlplane/sidecarservice, pkg/agent), timers and files of an outside
// authority (pkg/controlplane/authority).
//
// Concurrency: an Authority may be used by any number of goroutines; all other
// types are values that do not change.
package identity
