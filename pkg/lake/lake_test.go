// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is 2026-01-02T03:04:05.678901234Z.
const start = 1767323045678901234

func clock() time.Time { return time.Unix(0, start+1e9) }

func exampleRecord(n int) *tap.Record {
	return &tap.Record{
		Tap: "errors", ID: [16]byte{1}, Node: "claims~to~be", Service: "orders", Direction: "inbound", Start: start,
		Duration: 5e6, RequestEnd: 1e6, UpstreamResponse: -1, ResponseStart: 4e6,
		Method: []byte("POST"), Scheme: []byte("http"), Authority: []byte("orders"), Path: fmt.Appendf(nil, "/v1/%d", n), Protocol: "HTTP/1.1",
		Status: 503, Flags: "UF", Attempts: 1, Route: "r", Cluster: "c", Upstream: "10.0.0.1:1", TraceID: "ab",
		RequestHeaders:  []tap.Header{{Name: []byte("a"), Value: []byte("1")}, {Name: []byte("a"), Value: []byte("2\xff")}},
		ResponseHeaders: []tap.Header{{Name: []byte("c"), Value: []byte("3")}},
		RequestBody:     []byte("\x00\xffbody"), ResponseBody: []byte(`{"a":1}`), RequestBytes: 100, ResponseBytes: 7, RequestTruncated: true,
	}
}

func records(from, to int) (out [][]byte) {
	for i := from; i < to; i++ {
		out = append(out, exampleRecord(i).Append(nil))
	}
	return out
}

func mustOpen(t testing.TB, c Config) *Lake {
	t.Helper()
	if c.Now == nil {
		c.Now = clock
	}
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Lake, node, boot string, seq uint64, recs [][]byte) {
	t.Helper()
	if err := l.Append(context.Background(), node, boot, seq, recs); err != nil {
		t.Fatal(err)
	}
}

// rows reads every row of a lake back, as Cat gives them.
func rows(t testing.TB, dir string) (out []map[string]any) {
	t.Helper()
	var b bytes.Buffer
	if err := Cat(&b, filepath.Join(dir, "raw"), FormatJSON); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for d := json.NewDecoder(&b); ; {
		var m map[string]any
		if err := d.Decode(&m); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

// paths are the rows' paths in order, each of which tests make unique.
func paths(t testing.TB, dir string) (out []string) {
	for _, r := range rows(t, dir) {
		out = append(out, r["path"].(string))
	}
	slices.Sort(out)
	return out
}

func wantPaths(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("/v1/%d", i))
	}
	slices.Sort(out)
	return out
}

func TestABatchBecomesAPartitionedFile(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "orders~1", "b1", 7, records(0, 3))
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	files, err := List(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	f := files[0]
	if f.Rows != 3 || f.Service != "orders" || f.Date != "2026-01-02" || f.Hour != "03" ||
		!strings.HasPrefix(f.Path, "raw/service=orders/date=2026-01-02/hour=03/part-") {
		t.Errorf("got %+v", f)
	}
	got := rows(t, dir)[0]
	want := map[string]any{
		"time": "2026-01-02T03:04:05.678901Z", "node": "orders~1", "boot": "b1", "sequence": 7.0, "position": 0.0, "status": 503.0, "duration_us": 5000.0,
		"upstream_response_us": nil, "response_start_us": 4000.0, "request_body_base64": "AP9ib2R5", "response_body": `{"a":1}`, "request_truncated": true,
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: got %v, want %v", k, got[k], v)
		}
	}
	if h := fmt.Sprint(got["request_headers"]); h != "[map[name:a value:1] map[name:a value:2\uFFFD]]" {
		t.Errorf("headers: %s", h)
	}
	var text bytes.Buffer
	if err := Cat(&text, filepath.Join(dir, f.Path), FormatText); err != nil || !strings.Contains(text.String(), "orders   POST    /v1/0  503     5ms") {
		t.Errorf("%v: %s", err, text.String())
	}
}

func TestABatchThatComesAgainIsStoredOnce(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 2))
	mustAppend(t, l, "n", "b", 1, records(0, 2))
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "n", "b", 1, records(0, 2)) // after its generation became a file
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 2)) // after a restart
	mustAppend(t, l, "n", "b", 2, records(2, 4))
	mustAppend(t, l, "n", "other boot", 1, records(4, 5))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, dir); !slices.Equal(got, wantPaths(5)) {
		t.Errorf("got %v", got)
	}
	if s := l.Stats(); s.Duplicates != 1 || s.Batches != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestRunMakesFilesByAgeAndSize(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir, MaxAge: 10 * time.Millisecond, Now: time.Now})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	mustAppend(t, l, "n", "b", 1, records(0, 1))
	deadline := time.Now().Add(10 * time.Second)
	for l.Stats().Files == 0 && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := l.Stats(); got.Files != 1 || got.Rows != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestManyPartitionsAndSendersLoseNothing(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir, MaxBytes: 50_000})
	var wg sync.WaitGroup
	const senders, batches = 8, 10
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for b := range batches {
				r := exampleRecord(s*batches + b)
				r.Service = fmt.Sprintf("svc-%d", (s*batches+b)%40) // more than are open at once
				r.Start += int64(b%3) * int64(time.Hour)
				if err := l.Append(context.Background(), fmt.Sprint("node", s), "b", uint64(b+1), [][]byte{r.Append(nil)}); err != nil {
					t.Error(err)
				}
				if b == 5 {
					if err := l.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, dir); !slices.Equal(got, wantPaths(senders*batches)) {
		t.Errorf("got %d rows, want %d", len(got), senders*batches)
	}
}

func TestNamesAndTimesOfSidecarsCannotLeaveTheLake(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	for i, name := range []string{"../../etc", "..", "", "a/b", "a=b", strings.Repeat("x", 500), "\x00\n"} {
		r := exampleRecord(i)
		r.Service = name
		r.Start = []int64{0, 1 << 62, -1 << 62}[i%3]
		mustAppend(t, l, "n", "b", uint64(i+1), [][]byte{r.Append(nil), []byte("no record")})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := List(dir)
	if err != nil || len(files) != 7 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if f.Date != "2026-01-02" || strings.Count(f.Path, "/") != 4 {
			t.Errorf("%+v", f)
		}
	}
	if s := l.Stats(); s.Damaged != 7 {
		t.Errorf("got %+v", s)
	}
}

func TestReadersSeeOnlyCompleteFiles(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := List(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	half := filepath.Join(dir, filepath.Dir(files[0].Path), ".part-0.parquet.tmp")
	if err := os.WriteFile(half, []byte("PAR1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if files, err := List(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	if got := len(rows(t, dir)); got != 1 {
		t.Errorf("%d rows", got)
	}
}

func TestADamagedLogGivesWhatIsWhole(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	for i := range 10 {
		mustAppend(t, l, "n", "b", uint64(i+1), records(i, i+1))
	}
	wal := l.current.path
	// As after kill -9: the lock goes with the process, the log stays.
	crashed := copyLake(t, dir)
	st, err := os.Stat(wal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(crashed, "wal", filepath.Base(wal)), st.Size()-3); err != nil {
		t.Fatal(err)
	}
	l2 := mustOpen(t, Config{Dir: crashed})
	mustAppend(t, l2, "n", "b", 10, records(9, 10)) // it was not whole: stored now
	if err := l2.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, crashed); !slices.Equal(got, wantPaths(10)) {
		t.Errorf("got %v", got)
	}
}

// copyLake is what a crash at this moment would leave.
func copyLake(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// A crash between the renaming of files and the removal of their log makes the
// same files again.
func TestTurningTwiceMakesNoSecondCopy(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 5))
	wal := l.current.path
	keep, err := os.ReadFile(wal)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wal, keep, 0o600); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 5))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, dir); !slices.Equal(got, wantPaths(5)) {
		t.Errorf("got %v", got)
	}
}

func TestBadBatchesAreRefusedForGood(t *testing.T) {
	l := mustOpen(t, Config{Dir: t.TempDir()})
	for _, err := range []error{
		l.Append(context.Background(), "", "b", 1, nil), l.Append(context.Background(), "n", "b", 0, nil),
		l.Append(context.Background(), strings.Repeat("n", 2000), "b", 1, nil), l.Append(context.Background(), "n", "b", 1, [][]byte{make([]byte, maxEntry)}),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v", err)
		}
	}
}

// mountSmall mounts a file system of that size, or skips.
func mountSmall(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestAFullDiskRefusesAndLosesNothingAccepted(t *testing.T) {
	dir := mountSmall(t, "1m")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 400<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	now := clock()
	l := mustOpen(t, Config{Dir: dir, Now: func() time.Time { return now }})
	accepted := 0
	var full error
	for i := 0; full == nil && i < 10_000; i++ {
		if full = l.Append(context.Background(), "n", "b", uint64(i+1), records(i, i+1)); full == nil {
			accepted++
		}
	}
	if !errors.Is(full, syscall.ENOSPC) || accepted < 100 {
		t.Fatalf("after %d: %v", accepted, full)
	}
	if err := l.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("there was room for files: %v", err)
	}
	if s := l.Stats(); s.Refused == 0 || !strings.Contains(s.Error, "no space left") {
		t.Errorf("got %+v", s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	mustAppend(t, l, "n", "b", uint64(accepted+1), records(accepted, accepted+1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, dir); !slices.Equal(got, wantPaths(accepted+1)) {
		t.Errorf("got %d rows, want %d", len(got), accepted+1)
	}
}

func TestAReadOnlyLakeSaysSoAndRecovers(t *testing.T) {
	dir := mountSmall(t, "10m")
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	now := clock()
	l = mustOpen(t, Config{Dir: dir, Now: func() time.Time { return now }}) // starts all the same
	if err := l.Append(context.Background(), "n", "b", 2, records(1, 2)); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("got %v", err)
	}
	if err := l.Append(context.Background(), "n", "b", 1, records(0, 1)); err != nil {
		t.Errorf("what is stored was not acknowledged: %v", err)
	}
	remount(0)
	now = now.Add(time.Minute)
	mustAppend(t, l, "n", "b", 2, records(1, 2))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, dir); !slices.Equal(got, wantPaths(2)) {
		t.Errorf("got %v", got)
	}
}

func TestAFileInPlaceOfTheFolderIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(Config{Dir: path}); err == nil {
		l.Close()
		t.Error("no error")
	}
	if _, err := List(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds no lake") {
		t.Errorf("got %v", err)
	}
	if err := Cat(io.Discard, path, "xml"); err == nil || !strings.Contains(err.Error(), `unknown format "xml"`) {
		t.Errorf("got %v", err)
	}
}

// What was acknowledged is there after kill -9, once.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	if dir := os.Getenv("LAKE_CHILD_DIR"); dir != "" {
		l, err := Open(Config{Dir: dir, MaxAge: 20 * time.Millisecond, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		go l.Run(context.Background())
		for i := 0; ; i++ {
			if err := l.Append(context.Background(), "n", "b", uint64(i+1), records(i, i+1)); err != nil {
				t.Fatal(err)
			}
			fmt.Println("stored", i)
		}
	}
	for _, kill := range []int{1, 50, 150, 400} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKillLosesNothingAcknowledged$")
		cmd.Env = append(os.Environ(), "LAKE_CHILD_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stored := -1
		for stored < kill {
			if _, err := fmt.Fscanf(out, "stored %d\n", &stored); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		for line := range strings.Lines(string(rest)) {
			fmt.Sscanf(line, "stored %d\n", &stored)
		}
		l := mustOpen(t, Config{Dir: dir, Now: time.Now})
		// The sender comes again with what it has no acknowledgement of.
		mustAppend(t, l, "n", "b", uint64(stored+2), records(stored+1, stored+2))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := paths(t, dir); !slices.Equal(got, wantPaths(stored+2)) {
			t.Errorf("%d acknowledged, %d rows", stored+1, len(got))
		}
	}
}

func FuzzLogRecovery(f *testing.F) {
	b := batch{sender: sender{"n", "b"}, sequence: 1, at: start, records: records(0, 1)}
	whole := appendBatch([]byte(walMagic), &b)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(appendSeen([]byte(walMagic), b.sender, seenState{3, 4}))
	f.Add([]byte(walMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := scan(bytes.NewReader(b), func(p []byte) error {
			if !bytes.Contains(b, p) {
				t.Fatal("an entry that is not there")
			}
			switch p[0] {
			case kindSeen:
				decodeSeen(p)
			case kindBatch:
				decodeBatch(p)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
