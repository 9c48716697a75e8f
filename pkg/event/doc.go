// SPDX-License-Identifier: Apache-2.0

// Package event is what a sidecar remembers of its decisions: which endpoint was
// ejected, which circuit opened, what was refused, with the numbers that led to it.
//
// A Log is a ring of a fixed size for each kind, so that a flood of one kind does not
// push the others out. Readers go by the id of the last event that they have seen:
// nothing is kept for a slow one, and it learns that it has missed some.
//
// What does not belong here: the decisions themselves, HTTP, and Envoy's own event
// logs of outlier detection and health checks (pkg/breaker, pkg/health), which have
// formats of their own.
//
// Concurrency: a Log may be used by any goroutine but a loop, because it has a lock.
// Loops leave what they know where the merge tick finds it.
package event
