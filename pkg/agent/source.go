// SPDX-License-Identifier: Apache-2.0

package agent

import "context"

// The bounds of one batch. A batch beyond them cannot be handed over: it is
// dropped and counted in UploadStatus.Dropped.
const (
	MaxBatchBytes   = 3 << 20
	MaxBatchRecords = 16_384
)

// Source is a queue of encoded records that wait for the control plane: tapped
// traffic (pkg/tap) or spans (pkg/trace, each record one Zipkin version 2 JSON
// object). The source bounds its own memory and disk and drops by its own policy;
// the agent holds at most a window of batches that are under way.
//
// Both methods are called off the loops, Next from one goroutine at a time, Ack
// from another.
type Source interface {
	// Next waits for the next batch and returns its records and its sequence, which
	// is at least 1 and grows over the life of the process. Each batch is returned
	// once; the agent sends it again by itself where it must. The records must not
	// change until the batch is acknowledged.
	//
	// It returns an error only without having given a batch away: ctx.Err() when ctx
	// ends, and io.EOF when no batch will ever come.
	Next(ctx context.Context) (records [][]byte, sequence uint64, err error)
	// Ack says that this batch and all before it are durable at the control plane,
	// or can never be: the source may forget them.
	Ack(sequence uint64)
}

// Pender is a Source that knows how much of it has not been acknowledged, in
// records, so that Agent.Flush also waits for what Next has not yet returned.
type Pender interface{ Pending() int }
