// SPDX-License-Identifier: Apache-2.0

// Package breaker decides when a cluster or a host gets no request: circuits with
// Hystrix's semantics, limits with Envoy's, and outlier detection.
//
// The loop side (Circuit.Allow and Report, Counts, Limits, Outlier.Result and
// Local) takes no lock, reads no clock and allocates nothing; whatever must be
// exact over workers is an atomic. Time is an argument, monotonic nanoseconds of
// any origin. The other side (Tick, Update, Metrics, Events) is for the control
// goroutine and the admin, which a mutex keeps apart; a loop never takes it.
//
// A circuit's counts go from loop-owned Counts by Flush into shared totals and by
// Tick into a window of buckets, in batches: exact, and free per request. The
// result is one atomic word that Allow reads.
//
// Which response counts as what is decided here (Classify); what a rejected
// request gets is not, and neither are retries, timeouts and fallbacks.
//
// This package does not import pkg/lb: outlier detection sees hosts through the
// interface Host. hystrix-go is not imported either, because it brings net/http
// along; its settings, its stream and the tests that hold its own circuit against
// ours are in the folders below.
//
// Sources: Netflix Hystrix wiki "How it works", hystrix-go; Envoy API
// envoy.config.cluster.v3.CircuitBreakers and OutlierDetection.
package breaker
