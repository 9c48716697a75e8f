// SPDX-License-Identifier: Apache-2.0

// Package gcpace chooses how much garbage a small heap may gather before the collector
// runs.
//
// A sidecar's requests allocate nothing, so its collector runs seldom and a tight heap
// costs nothing. Where something does allocate all the time (handshakes, connections
// that come and go, an attack), a heap of a few megabytes is collected several times a
// second. On the processor that a loop runs on that takes its time away for milliseconds
// each. A Pacer lets garbage gather for as long as that lasts, up to Headroom.
//
// What does not belong here: limits of memory (runtime/debug.SetMemoryLimit, which goes
// before all this, and pkg/overload).
package gcpace
