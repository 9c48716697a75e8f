// SPDX-License-Identifier: Apache-2.0

package filter

import "github.com/outrigger-mesh/outrigger/pkg/record"

// ConnectionSpec describes how a kind of filter looks on at connections that are passed
// on as bytes.
type ConnectionSpec struct {
	// Parse turns the configuration, JSON, into what New takes. It does everything that
	// can fail.
	Parse func(config []byte) (any, error)
	// New makes the filter for one worker.
	New func(config any, w Worker) ConnectionFilter
}

// ConnectionFilter looks on at the connections of one chain on one worker. It answers
// nothing, changes nothing and holds nothing up.
type ConnectionFilter interface {
	// OnConnection is told of a connection that begins; it returns who follows it, nil
	// where nobody does. The record is the connection's own: it changes meanwhile, and is
	// valid until OnDone has returned or OnReplaced has returned false. Now is monotonic, random is fresh.
	OnConnection(r *record.Record, now int64, random uint64) ConnectionObserver
}

// ConnectionObserver follows one connection.
type ConnectionObserver interface {
	// OnBytes sees the next bytes of one direction, from the first on, and may not keep
	// them. It reports whether it wants more of this direction: what it does not want
	// costs nothing, and may pass in the kernel.
	OnBytes(fromUpstream bool, b []byte, now int64) (more bool)
	// OnReplaced is told, while the connection goes on, that its filter is configured no
	// longer: by takes its place for connections to come, nil for none. What by does not
	// ask for must not be seen any more, and what was kept for it must go. It reports
	// whether it still follows the connection; if not, it is told nothing else, nor of the
	// end. Wall is in unix nanoseconds.
	OnReplaced(by ConnectionFilter, wall int64) (follows bool)
	// OnDone is told once that the connection has ended; the record is complete.
	OnDone(now int64)
}
