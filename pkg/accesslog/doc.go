// SPDX-License-Identifier: Apache-2.0

// Package accesslog turns the records of finished exchanges and connections
// into access log lines.
//
// A Plan is what one connection manager, TCP proxy or listener logs: its formats
// and filters, compiled. The loop asks it only which header values to capture
// (Captures, AppendCaptures); formatting, filtering and writing happen off the
// loop, where the reader of the record ring calls Consume.
//
// Lines go into the buffers of Writers, one file each, shared by all plans.
// A goroutine per file writes them, so that a slow disk delays nobody: what a
// full buffer cannot take is dropped and counted. Writers.Flush hands on what a
// batch of records left.
//
// Values that come from the traffic are escaped: JSON by its rules, text with
// \xNN for controls, quotes, backslashes and everything above ASCII, so that a
// request cannot forge a line or drive a terminal.
//
// Destinations other than files are behind the Remote interface; the gRPC access
// log service is pkg/accesslog/als.
package accesslog
