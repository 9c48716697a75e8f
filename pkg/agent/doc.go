// SPDX-License-Identifier: Apache-2.0

// Package agent is the sidecar's side of the sidecar service: it registers the
// instance once the data path can serve it, keeps its lease, checks the health of
// the application behind it, takes the instance out before the sidecar drains, and
// hands tapped traffic and spans to the control plane with acknowledgements. It
// also runs the command of `sidecar exec`.
//
// It knows no xDS and nothing of the data path. What it uploads comes from a
// Source, which owns the memory and the disk bounds; what it cannot hand over
// stays there.
//
// Concurrency: one goroutine for each of lease, health check and upload, all
// started by Run, ended by its context and waited for before Run returns. Nothing
// of it runs on a loop, and no loop ever waits for it. The exported methods may be
// called from any goroutine.
package agent
