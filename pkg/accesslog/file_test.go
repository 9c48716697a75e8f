// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// eventually waits for a condition, and fails with what it waited for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
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

func content(t testing.TB, path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFlushWritesAndReopenFollowsRotation(t *testing.T) {
	p, w, path := fileLog(t, &resource.AccessLog{File: &resource.FileLog{Format: textFormat(t, "%RESPONSE_CODE%\n")}}, Options{})
	defer w.Close()
	log := func(status uint16) {
		r := exampleRecord()
		r.Status = status
		p.Consume(r)
		w.Flush()
	}
	log(201)
	eventually(t, "the line is in the file", func() bool { return content(t, path) == "201\n" })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	eventually(t, "the file is there again", func() bool { _, err := os.Stat(path); return err == nil })
	log(202)
	eventually(t, "the line is in the new file", func() bool { return content(t, path) == "202\n" })
	if got := content(t, path+".1"); got != "201\n" {
		t.Errorf("old file: got %q", got)
	}
}

// stuckWriter blocks until it is released.
type stuckWriter struct {
	entered, release chan struct{}
	once             sync.Once
	mu               sync.Mutex
	got              bytes.Buffer
}

func (s *stuckWriter) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.entered) })
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(b)
}

func TestAStuckDiskDropsAndCountsAndDoesNotBlock(t *testing.T) {
	s := &stuckWriter{entered: make(chan struct{}), release: make(chan struct{})}
	w := NewWriters(10_000)
	w.stdout = s
	p, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: "/dev/stdout", Format: textFormat(t, strings.Repeat("x", 99)+"\n")}}}, w, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := exampleRecord()
	p.Consume(r)
	w.Flush()
	<-s.entered
	for range 1000 {
		p.Consume(r) // returns, or the test hangs
		w.Flush()
	}
	st := w.Stats()[0]
	if st.Lines+st.Dropped != 1001 || st.Dropped < 800 {
		t.Errorf("got %+v, want all 1001 lines accounted for and most dropped", st)
	}
	close(s.release)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := uint64(s.got.Len() / 100); got != st.Lines {
		t.Errorf("written %d lines, accepted %d", got, st.Lines)
	}
}

func TestAFullDiskIsCountedAndSaid(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	w := NewWriters(0)
	p, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: "/dev/full"}}}, w, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Consume(exampleRecord())
	w.Flush()
	eventually(t, "the failure shows", func() bool { s := w.Stats()[0]; return s.Failed == 1 && strings.Contains(s.Error, "no space left") })
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlansOfOneFileShareIt(t *testing.T) {
	w := NewWriters(0)
	path := t.TempDir() + "/log"
	var plans []*Plan
	for range 2 {
		p, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: path, Format: textFormat(t, "line\n")}}}, w, Options{})
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, p)
	}
	var wg sync.WaitGroup
	for _, p := range plans {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 500 {
				p.Consume(exampleRecord())
				w.Flush()
			}
		}()
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != strings.Repeat("line\n", 1000) {
		t.Errorf("got %d bytes, want 1000 whole lines", len(got))
	}
}

// sixteen is the format that performance is spoken of with.
func sixteen(t testing.TB) *resource.LogFormat {
	return &resource.LogFormat{JSON: []resource.LogField{
		field(t, "authority", "%REQ(:AUTHORITY)%"), field(t, "bytes_received", "%BYTES_RECEIVED%"), field(t, "bytes_sent", "%BYTES_SENT%"),
		field(t, "duration", "%DURATION%"), field(t, "method", "%REQ(:METHOD)%"), field(t, "path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
		field(t, "protocol", "%PROTOCOL%"), field(t, "request_id", "%REQ(X-REQUEST-ID)%"), field(t, "response_code", "%RESPONSE_CODE%"),
		field(t, "response_flags", "%RESPONSE_FLAGS%"), field(t, "start_time", "%START_TIME%"), field(t, "upstream_cluster", "%UPSTREAM_CLUSTER%"),
		field(t, "upstream_host", "%UPSTREAM_HOST%"), field(t, "upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
		field(t, "user_agent", "%REQ(USER-AGENT)%"), field(t, "x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
	}}
}

func benchmarkPlan(t testing.TB) (*Plan, *Writers, *record.Record) {
	w := NewWriters(64 << 20)
	p, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: os.DevNull, Format: sixteen(t)}}}, w, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := exampleRecord()
	req, resp := exampleHeads()
	capture(r, p, req, resp, nil)
	return p, w, r
}

func TestALineAllocatesNothing(t *testing.T) {
	p, w, r := benchmarkPlan(t)
	defer w.Close()
	f := w.files[os.DevNull]
	f.pending, f.spare = make([]byte, 0, 1<<20), make([]byte, 0, 1<<20)
	if n := testing.AllocsPerRun(500, func() { p.Consume(r) }); n != 0 {
		t.Errorf("%v allocations per line", n)
	}
	req, resp := exampleHeads()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(500, func() { buf = AppendCaptures(buf[:0], p.Captures(), req, resp, nil) }); n != 0 {
		t.Errorf("%v allocations per capture", n)
	}
}

func BenchmarkJSONLineOf16Fields(b *testing.B) {
	p, w, r := benchmarkPlan(b)
	defer w.Close()
	f := w.files[os.DevNull]
	b.ReportAllocs()
	for b.Loop() {
		p.Consume(r)
		f.mu.Lock()
		if len(f.pending) > 32<<10 {
			f.pending = f.pending[:0]
		}
		f.mu.Unlock()
		r.Start += 1e5
	}
}

// A file is closed behind the last record of the plans that write to it.
func TestAFileThatNoPlanWritesToAnyMoreIsClosed(t *testing.T) {
	w := NewWriters(0)
	defer w.Close()
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	const times = maxFiles + 10
	for i := range times {
		p, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: path(i), Format: textFormat(t, "%RESPONSE_CODE%\n")}}}, w, Options{})
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		p.Consume(exampleRecord())
	}
	eventually(t, "all files are closed", func() bool {
		runtime.GC()
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.files) == 0 && !slices.ContainsFunc(w.leaving, func(f *File) bool { return !f.ended() })
	})
	for i := range times {
		if got := content(t, path(i)); strings.Count(got, "\n") != 1 {
			t.Fatalf("file %d: got %q", i, got)
		}
	}
}
