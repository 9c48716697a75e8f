// SPDX-License-Identifier: Apache-2.0

// Package lake keeps tapped traffic as a folder of Parquet files:
//
//	raw/service=orders/date=2026-01-31/hour=23/part-….parquet
//	wal/….wal
//
// Append writes a batch to the write-ahead log and syncs it before it returns:
// what was acknowledged survives kill -9 and a crash of the machine. Every 30
// seconds, or 64 MiB, the log begins a new generation, and the finished one is
// turned into Parquet: read back from the log, split by partition, written under
// a name that readers do not look at, synced and renamed. The names of the files
// follow from the generation, so that doing it again after a crash makes the same
// files and no second copy of a row.
//
// A batch is known by its sender's node and boot and its sequence; one that comes
// again is acknowledged and not stored.
//
// A disk that is full or read-only makes Append fail with an error that says so;
// the sender keeps the batch and comes again. Nothing that was acknowledged is
// given up: generations that cannot be turned wait in the log.
//
// The package knows no network; the control plane's sidecar service calls it.
package lake
