// SPDX-License-Identifier: Apache-2.0

// Package ring is the bounded queue from one loop to one reader off the loop.
// The loop never waits: what a full queue cannot take is counted and dropped.
//
// What is queued does not belong here: records of exchanges are pkg/record's, taps
// pkg/tap's. Nor do queues with several writers, or ones that a writer may wait for.
//
// One goroutine, the loop, pushes, and one, the reader, drains. What others may call
// says so.
package ring
