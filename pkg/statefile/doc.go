// SPDX-License-Identifier: Apache-2.0

// Package statefile keeps files that hold a state as a whole and survive a crash: each is
// replaced by a new one, and for its owner only, as those of keys have to be.
//
// What is in them does not belong here, nor do files that grow (the logs of pkg/lake and
// pkg/tap, which make their names durable by SyncFolder) or are for others to read.
//
// Concurrency: one process at a time writes a file.
package statefile
