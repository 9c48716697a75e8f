// SPDX-License-Identifier: Apache-2.0

// Package spans keeps the most recent trace spans in a bounded memory and
// answers Zipkin's query API (version 2) from them, so that a mesh shows its
// traces without another server.
//
// Spans come from sidecars through the sidecar service and from any Zipkin
// reporter through POST /api/v2/spans. The store is bounded in bytes and forgets
// whole traces, the one that began to arrive first before the others. Nothing is
// written to disk: for keeping traces there are Zipkin and OTLP backends.
//
// It does not record spans (pkg/trace does), sample, or correct clock skew.
//
// Concurrency: a Store may be used from any goroutine. Spans given to it must
// not be changed afterwards, and those it returns are shared and read-only.
package spans
