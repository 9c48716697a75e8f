// SPDX-License-Identifier: Apache-2.0

// Package record is what is known about one finished exchange or connection,
// and the ring (pkg/ring) in which it goes from a loop to the readers off the loop
// (access log, trace export).
package record
