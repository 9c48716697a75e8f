// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newTestSpawner(t *testing.T) (*spawner, int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !set.IsSet(cpu) {
		cpu++
	}
	return newSpawner(t.TempDir()), cpu
}

// await polls a condition until it holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for poll := time.NewTicker(time.Millisecond); !holds(); {
		select {
		case <-poll.C:
		case <-limit:
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestClosingEndsProcessesAndWhatTheyStarted(t *testing.T) {
	s, cpu := newTestSpawner(t)
	// The shell and its child ignore what asks them to end.
	p, err := s.start("stubborn", cpu, nil, "sh", "-c", `trap "" TERM; sleep 1000 & echo $!; wait; wait`)
	if err != nil {
		t.Fatal(err)
	}
	child := 0
	await(t, "the child's pid", func() bool {
		text, _ := os.ReadFile(p.log)
		child, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	pids, err := tree(p.pid())
	if err != nil || len(pids) != 2 || pids[1] != child {
		t.Errorf("the tree is %v, %v, want %d and %d", pids, err, p.pid(), child)
	}
	s.close()
	if !gone(p.pid()) {
		t.Error("the process is still there")
	}
	await(t, "the end of the child", func() bool { return gone(child) || zombie(child) })
}

// zombie is true for what has ended and nobody has waited for: here the child of a
// child is init's to reap.
func zombie(pid int) bool {
	state, ok := procValue("/proc/"+strconv.Itoa(pid)+"/status", "State")
	return ok && strings.HasPrefix(state, "Z")
}

func TestProcessesArePinned(t *testing.T) {
	s, cpu := newTestSpawner(t)
	defer s.close()
	out, err := s.runToEnd(t.Context(), "affinity", cpu, "grep", "Cpus_allowed_list", "/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out); len(got) != 2 || got[1] != strconv.Itoa(cpu) {
		t.Errorf("got %q, want CPU %d", out, cpu)
	}
}

func TestAnEarlyEndShowsTheLog(t *testing.T) {
	s, cpu := newTestSpawner(t)
	defer s.close()
	p, err := s.start("failing", cpu, nil, "sh", "-c", "echo what went wrong >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.ended(); err == nil || !strings.Contains(err.Error(), "what went wrong") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

func TestAnInterruptEndsWhatRuns(t *testing.T) {
	s, cpu := newTestSpawner(t)
	defer s.close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.runToEnd(ctx, "long", cpu, "sleep", "1000")
		ended <- err
	}()
	await(t, "the start", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.live) == 1
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if len(s.live) != 0 {
		t.Errorf("%d processes are still noted", len(s.live))
	}
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	s, cpu := newTestSpawner(t)
	defer s.close()
	if _, err := s.start("absent", cpu, nil, "/nowhere/absent"); err == nil || !strings.Contains(err.Error(), "start absent: ") {
		t.Errorf("got %v", err)
	}
}
