// SPDX-License-Identifier: Apache-2.0

// Package broadcast tells any number of goroutines that something has changed.
//
// What has changed does not belong here: who is told looks. Nor do events that each
// have to arrive (pkg/event), or anything on a loop.
package broadcast
