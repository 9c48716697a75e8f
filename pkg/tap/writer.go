// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// WriterConfig says where a Writer takes records from and what it adds to them.
type WriterConfig struct {
	Hub *Hub
	// Node and Service go into every record.
	Node, Service string
	// Spool takes the records for the lake; nil refuses them: they are dropped
	// and counted. The writer closes it.
	Spool  *Spool
	Logger *slog.Logger
}

// Times of the writer.
const (
	busyPoll  = 20 * time.Millisecond  // where records would fill more than calmFill of a ring in calmPoll
	calmPoll  = 200 * time.Millisecond // otherwise: a wake-up, and a batch for the lake, is shared by many
	calmFill  = 0.25
	drainStep = 512             // records between two flushes
	openRetry = 5 * time.Second // of a sink that would not open
)

// Writer takes records out of the rings, redacts them and hands them to their
// sinks. Run is its goroutine; everything that is not said to be safe belongs to
// it.
type Writer struct {
	hub           *Hub
	node, service string
	log           *slog.Logger
	lake          Sink // nil without a spool
	sinks         map[SinkConfig]*sinkState

	rec  Record
	buf  []byte
	slow time.Time // when a failing sink was last spoken of

	mu    sync.Mutex // guards stats
	stats WriterStats
}

// WriterStats are the counts of a writer. Taken = Written + Failed.
type WriterStats struct {
	Taken    uint64 // out of the rings
	Written  uint64 // to a sink; what a spool drops later it counts itself
	Failed   uint64 // refused by their sink, or not decodable
	Redacted uint64 // values hidden
	Error    string // the last failure
}

type sinkState struct {
	sink  Sink
	err   error
	retry time.Time // when to open it again
}

// NewWriter makes a writer; Run starts it.
func NewWriter(c WriterConfig) (*Writer, error) {
	if c.Hub == nil {
		return nil, errors.New("tap writer: no hub")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Writer{hub: c.Hub, node: c.Node, service: c.Service, log: c.Logger, sinks: map[SinkConfig]*sinkState{}}
	if c.Spool != nil {
		w.lake = &lakeWriter{c.Spool}
	}
	return w, nil
}

// Run writes until ctx ends, then takes what is left in the rings, and closes the
// sinks.
func (w *Writer) Run(ctx context.Context) error {
	pause := calmPoll
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		pause = nextPoll(w.fill(), pause)
		w.drain()
		t.Reset(pause)
		select {
		case <-t.C:
		case <-w.hub.half:
		case <-ctx.Done():
			for w.drain() > 0 {
			}
			return w.close()
		}
	}
}

// nextPoll is how long to pause when that much of a ring was filled in the pause before.
func nextPoll(fill float64, pause time.Duration) time.Duration {
	if fill*float64(calmPoll) > calmFill*float64(pause) {
		return busyPoll
	}
	return calmPoll
}

// fill is that of the fullest ring.
func (w *Writer) fill() (most float64) {
	for i := range w.hub.rings {
		if g := w.hub.rings[i].Load(); g != nil {
			most = max(most, g.queue.Fill())
		}
	}
	return most
}

// drain takes what waits, in steps, so that one loop's flood does not keep the
// others waiting.
func (w *Writer) drain() (n int) {
	for i := range w.hub.rings {
		if g := w.hub.rings[i].Load(); g != nil {
			n += g.drain(drainStep, w.take)
		}
	}
	// Sinks have things to do by time too.
	for c, s := range w.sinks {
		if s.sink != nil {
			w.flush(c, s.sink)
		}
	}
	return n
}

func (w *Writer) flush(c SinkConfig, s Sink) {
	lost, err := s.Flush()
	w.mu.Lock()
	w.stats.Written -= lost
	w.stats.Failed += lost
	w.mu.Unlock()
	if err != nil { // else the Write that lost them has told why
		w.failed(0, fmt.Errorf("%s: %w", c.Kind, err))
	}
}

func (w *Writer) take(rule *Rule, b []byte) {
	r := &w.rec
	if err := r.Decode(b); err != nil {
		w.taken(1)
		w.failed(1, err)
		return
	}
	w.taken(1)
	r.Node, r.Service = w.node, w.service
	rule.Redactor.Apply(r)
	w.buf = r.Append(w.buf[:0])
	sink, err := w.sink(rule.Sink)
	if err == nil {
		err = sink.Write(r, w.buf)
	}
	if err != nil {
		w.failed(1, fmt.Errorf("tap %q: %w", rule.Name, err))
		return
	}
	w.mu.Lock()
	w.stats.Written++
	w.stats.Redacted += uint64(r.Redacted)
	w.mu.Unlock()
}

// sink opens a sink at its first use, and again some time after it failed to.
func (w *Writer) sink(c SinkConfig) (Sink, error) {
	s := w.sinks[c]
	if s == nil {
		s = &sinkState{}
		w.sinks[c] = s
	}
	if s.sink == nil && !time.Now().Before(s.retry) {
		s.sink, s.err = sinks[c.Kind].open(w, c)
		s.retry = time.Now().Add(openRetry)
		if s.err != nil {
			s.sink = nil
		}
	}
	return s.sink, s.err
}

func (w *Writer) taken(n uint64) {
	w.mu.Lock()
	w.stats.Taken += n
	w.mu.Unlock()
}

// failed counts, and says so in the log at most every ten seconds.
func (w *Writer) failed(n uint64, err error) {
	w.mu.Lock()
	w.stats.Failed += n
	w.stats.Error = err.Error()
	failed := w.stats.Failed
	w.mu.Unlock()
	if now := time.Now(); now.Sub(w.slow) > 10*time.Second {
		w.slow = now
		w.log.Warn("tapped traffic could not be written", "error", err, "lost", failed)
	}
}

// Stats are the counts so far. Any goroutine may ask.
func (w *Writer) Stats() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

func (w *Writer) close() error {
	var errs []error
	lake := false
	for c, s := range w.sinks {
		if s.sink != nil {
			lake = lake || s.sink == w.lake
			w.flush(c, s.sink)
			if err := s.sink.Close(); err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", c.Kind, c.Path, err))
			}
		}
	}
	if w.lake != nil && !lake {
		errs = append(errs, w.lake.Close())
	}
	return errors.Join(errs...)
}
