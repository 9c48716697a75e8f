// SPDX-License-Identifier: Apache-2.0

// Package tap carries copies of exchanges from the loops to a sink.
//
//	loop: filter/tap ── Ring (one per worker, bounded in bytes) ──┐
//	off the loops: Writer ── redaction ── Sink: spool or file ────┘
//
// The filter (pkg/filter/tap) decides what is tapped and pushes one encoded
// record for each exchange and rule into its worker's Ring. The Writer, one
// goroutine, drains all rings, takes out what must not leave the process, and
// hands the record to the rule's sink. The sink "lake" is a bounded spool on
// disk, from which the agent takes batches and which it tells what has become
// durable at the control plane (Source: Next and Ack, at least once).
//
// Nothing here makes a loop wait: a full ring, an exhausted body budget, a full
// spool and a sink that fails all drop, and every drop is counted, so that
// produced = delivered + dropped + waiting at any time.
//
// Secrets are redacted before anything reaches a disk. See Redactor.
//
// A sink is one file and one entry in sinks.go.
package tap
