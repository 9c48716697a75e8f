// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func mustSpool(t testing.TB, c SpoolConfig) *Spool {
	t.Helper()
	s, err := OpenSpool(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// numbered is the n-th record, of a size that varies.
func numbered(n int) []byte { return fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", n%300)) }

func numberOf(t testing.TB, rec []byte) int {
	t.Helper()
	text, _, _ := strings.Cut(string(rec), " ")
	n, err := strconv.Atoi(text)
	if err != nil || !bytes.Equal(rec, numbered(n)) {
		t.Fatalf("not a record of ours: %q", rec)
	}
	return n
}

func appendAll(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Append(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// take takes batches until the spool has no more at hand.
func take(t testing.TB, s *Spool) (got []int, last uint64) {
	t.Helper()
	for {
		recs, seq, err := s.take()
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return got, last
		}
		if seq <= last {
			t.Fatalf("sequence %d after %d", seq, last)
		}
		last = seq
		for _, r := range recs {
			got = append(got, numberOf(t, r))
		}
	}
}

func ints(from, to int) (out []int) {
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

// balance checks that every record is accounted for.
func balance(t testing.TB, s *Spool) {
	t.Helper()
	if st := s.Stats(); st.Appended+st.Recovered != st.Acked+st.Dropped+st.Waiting {
		t.Fatalf("the counts do not add up: %+v", st)
	}
}

func TestWhatIsPutInComesOutInOrder(t *testing.T) {
	s := mustSpool(t, SpoolConfig{Dir: t.TempDir()})
	appendAll(t, s, 0, 10_000)
	got, last := take(t, s)
	if !slices.Equal(got, ints(0, 10_000)) {
		t.Fatalf("got %d records", len(got))
	}
	s.Ack(last)
	balance(t, s)
	if st := s.Stats(); st.Acked != 10_000 || st.Waiting != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestNextWaitsForRecords(t *testing.T) {
	s := mustSpool(t, SpoolConfig{Dir: t.TempDir()})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	type result struct {
		n   int
		err error
	}
	results := make(chan result)
	go func() {
		for range 2 {
			recs, _, err := s.Next(ctx)
			results <- result{len(recs), err}
		}
	}()
	appendAll(t, s, 0, 1)
	if r := <-results; r.n != 1 || r.err != nil {
		t.Errorf("got %+v", r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.err != io.EOF {
		t.Errorf("after Close: %+v", r)
	}
}

func TestWhatWasNotAcknowledgedComesAgainAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := mustSpool(t, SpoolConfig{Dir: dir, MaxBytes: 2 << 20})
	appendAll(t, s, 0, 3000)
	recs, seq, err := s.take()
	if err != nil {
		t.Fatal(err)
	}
	s.Ack(seq)
	if _, _, err := s.take(); err != nil { // given out, never acknowledged
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustSpool(t, SpoolConfig{Dir: dir, MaxBytes: 2 << 20})
	if st := s.Stats(); st.Recovered != uint64(3000-len(recs)) {
		t.Errorf("got %+v, want %d recovered", st, 3000-len(recs))
	}
	appendAll(t, s, 3000, 3100)
	got, last := take(t, s)
	if !slices.Equal(got, ints(len(recs), 3100)) {
		t.Errorf("got %d records from %d on, want those from %d on", len(got), got[0], len(recs))
	}
	s.Ack(last)
	balance(t, s)
}

func TestATornTailIsCutAndTheRestKept(t *testing.T) {
	for _, cut := range []int{1, 7, 8, 100, 301} {
		dir := t.TempDir()
		s := mustSpool(t, SpoolConfig{Dir: dir})
		appendAll(t, s, 0, 300)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		path := segmentPath(dir, 1)
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, st.Size()-int64(cut)); err != nil {
			t.Fatal(err)
		}
		s = mustSpool(t, SpoolConfig{Dir: dir})
		if got := s.Stats().Torn; got != 1 {
			t.Errorf("cut by %d: %d torn segments", cut, got)
		}
		appendAll(t, s, 1000, 1010)
		got, last := take(t, s)
		whole := len(got) - 10
		if whole < 297 || whole > 299 || !slices.Equal(got, append(ints(0, whole), ints(1000, 1010)...)) {
			t.Errorf("cut by %d: got %v", cut, got)
		}
		s.Ack(last)
		balance(t, s)
		s.Close()
	}
}

func TestAFullSpoolDropsByItsPolicyAndCountsExactly(t *testing.T) {
	for policy, name := range map[Policy]string{DropOldest: "oldest", DropNewest: "newest"} {
		t.Run(name, func(t *testing.T) {
			const n = 10_000
			s := mustSpool(t, SpoolConfig{Dir: t.TempDir(), MaxBytes: 1 << 20, Policy: policy})
			refused := 0
			for i := range n {
				if s.Append(numbered(i)) != nil {
					refused++
				}
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			st := s.Stats()
			if st.Bytes > 1<<20 {
				t.Errorf("%d bytes on disk", st.Bytes)
			}
			if int(st.Appended)+refused != n || int(st.Refused) != refused {
				t.Errorf("got %+v, %d refused", st, refused)
			}
			got, last := take(t, s)
			if policy == DropOldest && (refused > 0 || !slices.Equal(got, ints(n-len(got), n)) || int(st.Dropped)+len(got) != n) {
				t.Errorf("got %d records from %d on, %+v", len(got), got[0], st)
			}
			if policy == DropNewest && (len(got) != n-refused || !slices.IsSorted(got) || refused == 0) {
				t.Errorf("got %d records, %d refused", len(got), refused)
			}
			s.Ack(last)
			balance(t, s)
			if st := s.Stats(); st.Waiting != 0 {
				t.Errorf("got %+v", st)
			}
			appendAll(t, s, n, n+5) // there is room again
			if got, _ := take(t, s); !slices.Equal(got, ints(n, n+5)) {
				t.Errorf("after the acknowledgement: got %v", got)
			}
		})
	}
}

// Random operations, restarts among them, against a list: nothing comes twice in
// one run, nothing is lost but what is counted, order holds.
func TestAnySequenceOfOperationsAccountsForEveryRecord(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := SpoolConfig{Dir: t.TempDir(), MaxBytes: 512 << 10, Policy: Policy(seed % 2)}
		s := mustSpool(t, c)
		next, last := 0, -1
		var seqs []uint64
		for range 300 {
			switch rnd.IntN(6) {
			case 0, 1, 2:
				for range rnd.IntN(100) {
					if s.Append(numbered(next)) == nil {
						next++
					}
				}
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			case 3:
				recs, seq, err := s.take()
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range recs {
					n := numberOf(t, r)
					if n <= last {
						t.Fatalf("seed %d: %d after %d", seed, n, last)
					}
					last = n
				}
				if len(recs) > 0 {
					seqs = append(seqs, seq)
				}
			case 4:
				if len(seqs) > 0 {
					k := rnd.IntN(len(seqs))
					s.Ack(seqs[k])
					seqs = seqs[k+1:]
				}
			case 5:
				if rnd.IntN(10) == 0 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = mustSpool(t, c)
					seqs, last = nil, -1
				}
			}
			balance(t, s)
		}
		s.Close()
	}
}

func TestTwoProcessesCannotShareASpool(t *testing.T) {
	dir := t.TempDir()
	mustSpool(t, SpoolConfig{Dir: dir})
	if s, err := OpenSpool(SpoolConfig{Dir: dir}); err == nil {
		s.Close()
		t.Error("a second one was opened")
	} else if !strings.Contains(err.Error(), "in use by another process") {
		t.Error(err)
	}
}

func TestASpoolIsReadableByItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	appendAll(t, mustSpool(t, SpoolConfig{Dir: dir}), 0, 1)
	for path, want := range map[string]os.FileMode{dir: 0o700, segmentPath(dir, 1): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

// T3: a disk that is full refuses and counts; what was accepted stays.
func TestAFullDiskRefusesAndKeepsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=300k"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s := mustSpool(t, SpoolConfig{Dir: dir, MaxBytes: 64 << 20})
	accepted := 0
	var full error
	for i := range 5000 {
		if err := s.Append(numbered(i)); err != nil {
			full = err
		} else {
			accepted++
		}
		if err := s.Flush(); err != nil {
			full = err
		}
	}
	if !errors.Is(full, syscall.ENOSPC) {
		t.Fatalf("got %v, want that no space is left", full)
	}
	balance(t, s)
	got, last := take(t, s)
	if st := s.Stats(); len(got)+int(st.Dropped) != accepted || len(got) < 500 {
		t.Errorf("%d accepted, %d came out, %+v", accepted, len(got), st)
	}
	s.Ack(last)
	balance(t, s)
	appendAll(t, s, 0, 10)
	if got, _ := take(t, s); len(got) != 10 {
		t.Errorf("after room was made: got %v", got)
	}
	s.Close()
}

// T2: a process that is killed loses nothing that it had flushed.
func TestKillLosesNothingFlushed(t *testing.T) {
	if dir := os.Getenv("SPOOL_CHILD_DIR"); dir != "" {
		s, err := OpenSpool(SpoolConfig{Dir: dir, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			if err := s.Append(numbered(i)); err != nil {
				t.Fatal(err)
			}
			if i%50 == 49 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				fmt.Println("flushed", i)
			}
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKillLosesNothingFlushed$")
	cmd.Env = append(os.Environ(), "SPOOL_CHILD_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	flushed := -1
	for flushed < 20_000 {
		if _, err := fmt.Fscanf(out, "flushed %d\n", &flushed); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	cmd.Wait()
	s := mustSpool(t, SpoolConfig{Dir: dir, MaxBytes: 1 << 30})
	got, _ := take(t, s)
	if len(got) <= flushed || !slices.Equal(got, ints(0, len(got))) {
		t.Errorf("flushed up to %d, recovered %d", flushed, len(got))
	}
}

// Records hold what clients send, frames among it: damage must not make a frame
// of a record's inside.
func TestDamageNeverMakesRecordsOfContents(t *testing.T) {
	forged := appendFrame(nil, []byte("forged"))
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		dir := t.TempDir()
		s := mustSpool(t, SpoolConfig{Dir: dir})
		for range 20 {
			if err := s.Append(bytes.Repeat(forged, 5)); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		path := segmentPath(dir, 1)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[segmentHeader+rnd.IntN(len(b)-segmentHeader)] ^= byte(1 + rnd.IntN(255))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s = mustSpool(t, SpoolConfig{Dir: dir})
		for {
			recs, _, err := s.take()
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				if !bytes.Equal(r, bytes.Repeat(forged, 5)) {
					t.Fatalf("got %q", r)
				}
			}
		}
		s.Close()
	}
}

func FuzzSpoolRecovery(f *testing.F) {
	good := []byte(segmentMagic + "\x00\x00\x00\x00\x00\x00\x00\x01")
	f.Add(appendFrame(good, []byte("one")))
	f.Add(append(good, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSpool(SpoolConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for {
			recs, seq, err := s.take()
			if err != nil {
				t.Fatal(err)
			}
			if len(recs) == 0 {
				break
			}
			for _, r := range recs {
				if !bytes.Contains(b, appendFrame(nil, r)) {
					t.Fatalf("%q is no frame of the file", r)
				}
			}
			s.Ack(seq)
		}
		balance(t, s)
	})
}

func BenchmarkSpoolAppend1KiB(b *testing.B) {
	s := mustSpool(b, SpoolConfig{Dir: b.TempDir()})
	rec := make([]byte, 1024)
	b.ReportAllocs()
	b.SetBytes(1024)
	for i := 0; b.Loop(); i++ {
		if err := s.Append(rec); err != nil {
			b.Fatal(err)
		}
		if i%100 == 0 {
			s.Flush()
		}
	}
}
