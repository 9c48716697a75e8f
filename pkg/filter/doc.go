// SPDX-License-Identifier: Apache-2.0

// Package filter is the interface of HTTP filters: what a filter sees of an
// exchange, what it may answer, and how it is registered by type; and of those that
// also look on at connections which are passed on as bytes.
//
// A filter runs on a loop and follows the loop's rules: no goroutine, lock,
// clock read, allocation or blocking call per request. Filters live one to a
// folder below this one; filter/all lists them. What belongs to routing,
// balancing or retrying is no filter and lives in pkg/proxy.
package filter
