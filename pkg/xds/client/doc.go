// SPDX-License-Identifier: Apache-2.0

// Package client gets configuration over xDS and makes complete snapshots of it.
//
// A Stream is the protocol of one xDS stream as a pure state machine: events in,
// requests and updates out, no I/O, no clock. Sources (gRPC streams, REST
// polling, files) feed streams; the assembler holds resources back until all
// that they need is there (warming) and keeps what is still in use (make before
// break). Client ties them together: one goroutine, that of Run, owns streams,
// store and assembler and calls Config.Publish; each source has goroutines for
// its I/O that only exchange events with it and end before Run returns.
//
// What a resource means belongs to pkg/xds/decode; what is done with a snapshot
// belongs to pkg/proxy.
package client
