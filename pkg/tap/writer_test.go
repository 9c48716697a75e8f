// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func mustRule(t testing.TB, sink string) *Rule {
	t.Helper()
	c, err := ParseConfig([]byte(`{"taps":[{"name":"t","sink":` + sink + `}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return c.Rules[0]
}

// start runs a writer and returns what stops it.
func start(t testing.TB, c WriterConfig) (*Writer, func() error) {
	t.Helper()
	w, err := NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop := func() (err error) {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return w, stop
}

func TestRecordsReachTheFileRedacted(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 2})
	path := filepath.Join(t.TempDir(), "tap.json")
	name, err := json.Marshal(path)
	if err != nil {
		t.Fatal(err)
	}
	rule := mustRule(t, `{"file":{"path":`+string(name)+`}}`)
	w, stop := start(t, WriterConfig{Hub: hub, Node: "orders~1", Service: "orders"})
	rec := Record{Tap: "t", Path: []byte("/?token=SECRET"), RequestHeaders: fields2("Authorization", "SECRET")}
	for i := range 100 {
		hub.Ring(i%2).Push(rule, rec.Append(nil))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
		var line map[string]any
		if err := json.Unmarshal(s.Bytes(), &line); err != nil || line["node"] != "orders~1" || line["service"] != "orders" || strings.Contains(s.Text(), "SECRET") {
			t.Fatalf("%v: %s", err, s.Text())
		}
	}
	if st := w.Stats(); n != 100 || st.Written != 100 || st.Redacted != 200 {
		t.Errorf("%d lines, %+v", n, st)
	}
}

func TestRecordsForTheLakeWaitInTheSpool(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 1})
	dir := t.TempDir()
	spool := mustSpool(t, SpoolConfig{Dir: dir})
	_, stop := start(t, WriterConfig{Hub: hub, Service: "orders", Spool: spool})
	rule := mustRule(t, `"lake"`)
	hub.Ring(0).Push(rule, exampleRecord().Append(nil))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	recs, seq, err := spool.Next(ctx)
	if err != nil || len(recs) != 1 {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	var r Record
	if err := r.Decode(recs[0]); err != nil || r.Service != "orders" {
		t.Errorf("%+v, %v", r, err)
	}
	spool.Ack(seq)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// T1, T3: sinks that fail cost records, each counted, and nothing else.
func TestProducedIsDeliveredOrCounted(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 1, RingBytes: 64 << 10})
	good, bad := mustRule(t, `"lake"`), mustRule(t, `{"file":{"path":"/no/such/folder/x"}}`)
	spool := mustSpool(t, SpoolConfig{Dir: t.TempDir()})
	w, stop := start(t, WriterConfig{Hub: hub, Spool: spool})
	g := hub.Ring(0)
	rec := (&Record{Tap: "t", RequestBody: make([]byte, 2000)}).Append(nil)
	for i := range 2000 {
		if i%2 == 0 {
			g.Push(good, rec)
		} else {
			g.Push(bad, rec)
		}
		if i == 1000 {
			eventually(t, "the ring is empty", func() bool { return g.queue.Len() == 0 })
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	h, s := hub.Counts(), w.Stats()
	if h.Produced != 2000 || h.Produced != h.Dropped+s.Taken || s.Taken != s.Written+s.Failed || h.Dropped == 0 || s.Failed == 0 || s.Written == 0 {
		t.Errorf("hub %+v, writer %+v", h, s)
	}
	if st := spool.Stats(); st.Appended != s.Written {
		t.Errorf("spool %+v, writer %+v", st, s)
	}
	if !strings.Contains(s.Error, "no such file") {
		t.Errorf("error: %s", s.Error)
	}
}

func TestWithoutASpoolTheLakeIsRefusedByName(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 1})
	w, stop := start(t, WriterConfig{Hub: hub})
	hub.Ring(0).Push(mustRule(t, `"lake"`), exampleRecord().Append(nil))
	eventually(t, "the record is counted as failed", func() bool { return w.Stats().Failed == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if s := w.Stats(); !strings.Contains(s.Error, "no data folder") {
		t.Errorf("got %q", s.Error)
	}
}

// The Writer, which looks seldom, is told of a burst, once, whichever ring has it.
func TestAHalfFullRingWakesTheWriter(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 2, RingBytes: 64})
	for lap := range 3 {
		for worker := range 2 {
			g := hub.Ring(worker)
			for i := range 7 {
				g.Push(&Rule{}, make([]byte, 8))
				if got, want := len(hub.half) == 1, i+1 >= 4 || worker == 1; got != want {
					t.Errorf("lap %d, worker %d: told %v after record %d, want %v", lap, worker, got, i+1, want)
				}
			}
			g.drain(64, func(*Rule, []byte) {})
		}
		<-hub.half
	}
}

func TestARingCountsWhatWasMadeAndWhatFoundNoRoom(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 1, RingBytes: 64})
	g, rules := hub.Ring(0), [3]Rule{}
	for i := range rules {
		g.Push(&rules[i], make([]byte, 20), nil, make([]byte, i)) // the third finds 23 bytes left
	}
	for range 2 {
		g.Push(&rules[0], make([]byte, 20))
	}
	if got, want := hub.Counts(), (Counts{Produced: 5, Dropped: 2, Waiting: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	n := 0
	g.drain(64, func(r *Rule, rec []byte) {
		if r != &rules[n] || len(rec) != 20+n {
			t.Errorf("record %d: %d bytes of rule %p", n, len(rec), r)
		}
		n++
	})
	if got, want := hub.Counts(), (Counts{Produced: 5, Dropped: 2}); n != 3 || got != want {
		t.Errorf("got %d and %+v, want %+v", n, got, want)
	}
}

func TestTheWriterComesOftenOnlyWhereARingWouldFill(t *testing.T) {
	for _, tc := range []struct {
		fill        float64
		pause, want time.Duration
	}{
		{0, busyPoll, calmPoll},
		{calmFill, calmPoll, calmPoll},
		{calmFill + .01, calmPoll, busyPoll},
		{calmFill / 10, busyPoll, calmPoll}, // as full a pause later
		{calmFill/10 + .01, busyPoll, busyPoll},
	} {
		if got := nextPoll(tc.fill, tc.pause); got != tc.want {
			t.Errorf("%v filled in %v: got %v, want %v", tc.fill, tc.pause, got, tc.want)
		}
	}
}

func TestPushAllocatesNothing(t *testing.T) {
	g := NewRing(1024, 1<<20, 0)
	rule, a, b := &Rule{}, make([]byte, 100), make([]byte, 200)
	if n := testing.AllocsPerRun(500, func() {
		g.Push(rule, a, b, nil, a)
		g.drain(1, func(*Rule, []byte) {})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// stuckSink blocks until it is released.
type stuckSink struct{ entered, release chan struct{} }

func (s *stuckSink) Write(*Record, []byte) error {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.release
	return nil
}
func (s *stuckSink) Flush() (uint64, error) { return 0, nil }
func (s *stuckSink) Close() error           { return nil }

// T3: a disk that hangs costs records, each counted; the loop's side returns.
func TestAStuckSinkDoesNotStopTheLoop(t *testing.T) {
	hub := NewHub(HubConfig{Workers: 1, RingBytes: 64 << 10})
	w, err := NewWriter(WriterConfig{Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	s := &stuckSink{make(chan struct{}, 1), make(chan struct{})}
	w.sinks[SinkConfig{Kind: "lake"}] = &sinkState{sink: s}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	rule, rec := mustRule(t, `"lake"`), exampleRecord().Append(nil)
	hub.Ring(0).Push(rule, rec)
	<-s.entered
	for range 10_000 {
		hub.Ring(0).Push(rule, rec)
	}
	if c := hub.Counts(); c.Produced != 10_001 || c.Dropped == 0 || c.Dropped+c.Waiting != c.Produced {
		t.Errorf("got %+v", c)
	}
	close(s.release)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c, st := hub.Counts(), w.Stats(); c.Waiting != 0 || st.Written+c.Dropped != c.Produced {
		t.Errorf("got %+v, %+v", c, st)
	}
}

func TestAFileSinkOnAFullDiskCountsWhatIsLost(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	hub := NewHub(HubConfig{Workers: 1})
	w, stop := start(t, WriterConfig{Hub: hub})
	rule := mustRule(t, `{"file":{"path":"/dev/full"}}`)
	for range 3000 {
		hub.Ring(0).Push(rule, exampleRecord().Append(nil))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Taken != 3000 || s.Failed != 3000 || s.Written != 0 || !strings.Contains(s.Error, "no space left") {
		t.Errorf("got %+v", s)
	}
}

// A batch that cannot be written is reported by the last of its records, the others
// by the next flush, which has no error of its own.
func TestRecordsLostWithAnotherKeepTheReasonOfTheLoss(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	w, err := NewWriter(WriterConfig{Hub: NewHub(HubConfig{Workers: 1})})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	rule := mustRule(t, `{"file":{"path":"/dev/full"}}`)
	for w.Stats().Failed == 0 {
		w.take(rule, exampleRecord().Append(nil))
	}
	w.drain()
	if s := w.Stats(); s.Written != 0 || s.Failed != s.Taken || !strings.Contains(s.Error, "no space left") {
		t.Errorf("got %+v", s)
	}
}
