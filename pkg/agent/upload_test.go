// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
)

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// source is a queue of batches in memory, with the rules of agent.Source.
type source struct {
	mu      sync.Mutex
	queue   [][][]byte
	next    uint64
	acked   []uint64
	pending int
	ended   bool
	more    chan struct{}
	returns int
}

func newSource() *source { return &source{more: make(chan struct{}, 1)} }

func (s *source) put(records ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b [][]byte
	for _, r := range records {
		b = append(b, []byte(r))
	}
	s.queue = append(s.queue, b)
	s.pending++
	s.signal()
}

func (s *source) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *source) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *source) Next(ctx context.Context) ([][]byte, uint64, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			b := s.queue[0]
			s.queue = s.queue[1:]
			s.next++
			s.returns++
			n := s.next
			s.mu.Unlock()
			return b, n, nil
		}
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return nil, 0, io.EOF
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-s.more:
		}
	}
}

func (s *source) Ack(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := uint64(0)
	if len(s.acked) > 0 {
		last = s.acked[len(s.acked)-1]
	}
	s.acked = append(s.acked, sequence)
	s.pending -= int(sequence - last)
}

func (s *source) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

func (s *source) given() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.returns
}

// uploading is the configuration of a sidecar that registers nothing.
func uploading(cp *controlPlane) agent.Config {
	c := config(cp)
	c.Instance, c.Configured = nil, nil
	return c
}

func flush(t *testing.T, a *agent.Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestTapAndSpansArriveInOrderAndAreAcknowledged(t *testing.T) {
	cp := startControlPlane(t)
	c := uploading(cp)
	tap, spans := newSource(), newSource()
	c.Tap, c.Spans = tap, spans
	a := running(t, c)
	var want []string
	for i := range 200 {
		r := fmt.Sprintf("r%d", i)
		want = append(want, r)
		tap.put(r)
	}
	spans.put(`{"traceId":"a","id":"1"}`, `nonsense`)
	flush(t, a)
	if got := cp.lake.stored(); got != strings.Join(want, " ") {
		t.Errorf("the lake holds %q", got)
	}
	if got := cp.spans.Trace("000000000000000a"); len(got) != 1 {
		t.Errorf("the span store holds %v", got)
	}
	s := a.Status()
	if s.Uploads[0].AckedRecords != 200 || s.Uploads[1].AckedRecords != 2 || s.Uploads[1].Refused != 1 {
		t.Errorf("got %+v", s.Uploads)
	}
}

func TestWhatWasNotAcknowledgedIsSentAgainAfterTheControlPlanesReturn(t *testing.T) {
	cp := startControlPlane(t)
	c := uploading(cp)
	tap := newSource()
	c.Tap = tap
	a := running(t, c)
	tap.put("before")
	flush(t, a)
	cp.lake.setFail(errors.New("disk full"))
	tap.put("a")
	tap.put("b")
	eventually(t, "the sink was tried", func() bool { return cp.lake.tried() > 2 })
	cp.stop()
	tap.put("c")
	cp.lake.setFail(nil)
	cp.start()
	flush(t, a)
	if got := cp.lake.stored(); got != "before a b c" {
		t.Errorf("the lake holds %q, want each record once, in order", got)
	}
}

func TestABatchThatIsNeverTakenDoesNotBlockTheOthers(t *testing.T) {
	cp := startControlPlane(t)
	c := uploading(cp)
	tap := newSource()
	c.Tap = tap
	a := running(t, c)
	tap.put("a")
	tap.put("poison", "x")
	tap.put(strings.Repeat("l", agent.MaxBatchBytes+1))
	tap.put("b")
	flush(t, a)
	if got := cp.lake.stored(); got != "a b" {
		t.Errorf("the lake holds %q", got)
	}
	if got := a.Status().Uploads[0].Dropped; got != 3 {
		t.Errorf("%d records counted as dropped, want 3", got)
	}
}

func TestAStuckControlPlaneHoldsOnlyAWindow(t *testing.T) {
	cp := startControlPlane(t)
	cp.stop()
	c := uploading(cp)
	tap := newSource()
	c.Tap = tap
	a := running(t, c)
	for range 100 {
		tap.put(strings.Repeat("x", 1<<20))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.Flush(ctx); err == nil || !strings.Contains(err.Error(), "flush tap: 100 not yet acknowledged") {
		t.Errorf("got %v, want what is left", err)
	}
	if got := tap.given(); got > 5 {
		t.Errorf("the agent took %d MiB out of the source, want at most the window", got)
	}
	cp.start()
	flush(t, a)
}

func TestASourceThatEndsIsUploadedToItsEnd(t *testing.T) {
	cp := startControlPlane(t)
	c := uploading(cp)
	tap := newSource()
	c.Tap = tap
	tap.put("a")
	tap.put("b")
	tap.end()
	a, err := agent.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a.Run(ctx) // returns by itself
	if ctx.Err() != nil {
		t.Fatal("Run did not return at the end of its only source")
	}
	if got := cp.lake.stored(); got != "a b" {
		t.Errorf("the lake holds %q", got)
	}
}
