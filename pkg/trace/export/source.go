// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"io"
	"sync"

	"github.com/outrigger-mesh/outrigger/pkg/trace"
)

// Source holds spans, as Zipkin v2 JSON objects, until the control plane has
// them: the agent takes batches with Next and says with Ack what has arrived.
// Its memory is bounded; spans that find it full are dropped and counted.
type Source struct {
	wake chan struct{}

	mu       sync.Mutex // guards the rest
	items    [][]byte
	flying   []flight
	sequence uint64
	bytes    int
	closed   bool
	stats    Stats
}

// flight is a batch that was given out and not yet acknowledged.
type flight struct {
	sequence uint64
	spans    int
	bytes    int
}

// sourceBytes bounds the spans of a Source, given out or not.
const sourceBytes = 8 << 20

func newSource() *Source { return &Source{wake: make(chan struct{}, 1)} }

// Export implements trace.Exporter.
func (s *Source) Export(span *trace.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes >= sourceBytes || s.closed {
		s.stats.Dropped++
		return
	}
	b := AppendZipkin(nil, span)
	s.items = append(s.items, b)
	s.bytes += len(b)
	s.stats.Accepted++
	if len(s.items) == 1 {
		s.signal()
	}
}

func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next waits for spans and returns a batch and its sequence, which grows. It
// returns io.EOF when the source is closed and empty. One goroutine may call it.
func (s *Source) Next(ctx context.Context) (records [][]byte, sequence uint64, err error) {
	for {
		records, sequence, closed := s.take()
		if len(records) > 0 {
			return records, sequence, nil
		}
		if closed {
			return nil, 0, io.EOF
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (s *Source) take() (records [][]byte, sequence uint64, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.items), batchSpans)
	if n == 0 {
		return nil, 0, s.closed
	}
	records = append(records, s.items[:n]...)
	clear(s.items[:n])
	if s.items = s.items[n:]; len(s.items) == 0 {
		s.items = nil
	} else {
		s.signal()
	}
	s.sequence++
	f := flight{sequence: s.sequence, spans: n}
	for _, r := range records {
		f.bytes += len(r)
	}
	s.flying = append(s.flying, f)
	return records, s.sequence, false
}

// Ack forgets this batch and all before it.
func (s *Source) Ack(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.flying) > 0 && s.flying[0].sequence <= sequence {
		s.bytes -= s.flying[0].bytes
		s.stats.Sent += uint64(s.flying[0].spans)
		s.flying = s.flying[1:]
	}
}

// Pending is the number of spans that are not acknowledged.
func (s *Source) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.items)
	for _, f := range s.flying {
		n += f.spans
	}
	return n
}

func (s *Source) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

func (s *Source) read() Stats {
	n := s.Pending()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Destination, st.Waiting = "control plane", n
	return st
}

var _ trace.Exporter = (*Source)(nil)
