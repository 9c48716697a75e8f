// SPDX-License-Identifier: Apache-2.0

// Package trace carries trace context through an exchange and makes a span of
// its record.
//
// A Plan is what one connection manager does. On the loop, Start extracts the
// caller's context, decides on sampling, makes this proxy's span id and injects
// it in every configured format; it allocates nothing and reads no clock. Off
// the loop, Consume turns the record of a sampled exchange into a Span and hands
// it to the exporters, which live in pkg/trace/export: this package knows no
// destination and no network.
//
// The application must forward the headers from the request it got to the
// requests it makes; no proxy can do that for it.
//
// A propagation format is one file with its extract and inject functions, and
// one entry in propagators.go.
package trace
