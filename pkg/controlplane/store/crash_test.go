// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// The test runs itself again as a child that writes, to be killed or starved.
const (
	childDirEnv  = "STORE_TEST_DIR"
	childSizeEnv = "STORE_TEST_FILE_LIMIT"
)

// child writes objects and instances and prints each name once it is acknowledged.
func child(dir string) int {
	if os.Getenv(childScriptEnv) != "" {
		return script(dir)
	}
	if os.Getenv(childReadOnlyEnv) != "" {
		return readOnlyChild(dir)
	}
	s, err := Open(Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if limit, err := strconv.ParseUint(os.Getenv(childSizeEnv), 10, 64); err == nil {
		return starve(s, limit)
	}
	start := s.db.revision.Load()
	var mu sync.Mutex
	say := func(what, name string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what, name)
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("s%d-%d-%d", start, w, i)
				if w%2 == 0 {
					o, err := mesh.ParseOne([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"` + name + `"}}`))
					if err == nil {
						_, err = s.PutObject(ctx, o, registry.Match{})
					}
					if err != nil {
						say("error", err.Error())
						return
					}
					say("object", name)
					continue
				}
				if _, _, err := s.Registry().Register(ctx, inst("x", name), 0, registry.Match{}); err != nil {
					say("error", err.Error())
					return
				}
				say("instance", name)
			}
		})
	}
	wg.Wait()
	return 1
}

func rerun(dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childDirEnv+"="+dir)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestAKilledProcessLosesNoAcknowledgedWrite kills a writing child again and
// again, over the same folder, and looks for everything it said was stored.
func TestAKilledProcessLosesNoAcknowledgedWrite(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]bool{}
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		cmd := rerun(dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, stop := bufio.NewScanner(out), 20+rand.IntN(200)
		for n := 0; lines.Scan(); n++ {
			what, name, _ := strings.Cut(lines.Text(), " ")
			if what == "error" {
				t.Errorf("round %d: %s", round, name)
			}
			acked[what+" "+name] = true
			if n == stop {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		verify(t, dir, acked)
	}
	t.Logf("%d acknowledged writes over %d kills", len(acked), rounds)
	if len(acked) < rounds*20 {
		t.Errorf("only %d writes: the test shows nothing", len(acked))
	}
}

func verify(t *testing.T, dir string, acked map[string]bool) {
	t.Helper()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	m := s.Model()
	for a := range acked {
		what, name, _ := strings.Cut(a, " ")
		if what == "object" && m.Object(mesh.Key{Kind: "Service", Name: name}) == nil ||
			what == "instance" && m.Instance(mesh.InstanceKey{Service: "x", ID: name}) == nil {
			t.Errorf("lost: %s", a)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// starve lets no file grow beyond limit, writes until that is refused, and then
// shows that reads and heartbeats go on, and writes too once there is space.
func starve(s *State, limit uint64) int {
	signal.Ignore(syscall.SIGXFSZ)
	set := func(n uint64) {
		var old syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			fmt.Println("error", err)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: min(n, old.Max), Max: old.Max}); err != nil {
			fmt.Println("error", err)
		}
	}
	ctx := context.Background()
	if _, _, err := s.Registry().Register(ctx, inst("x", "first"), 0, registry.Match{}); err != nil {
		fmt.Println("error", err)
		return 1
	}
	set(limit)
	put := func(i int) error {
		o, err := mesh.ParseOne([]byte(fmt.Sprintf(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"s%d","labels":{"fill":"%s"}}}`, i, strings.Repeat("x", 4000))))
		if err != nil {
			return err
		}
		_, err = s.PutObject(ctx, o, registry.Match{})
		return err
	}
	stored := 0
	var err error
	for err == nil && stored < 10_000 {
		if err = put(stored); err == nil {
			stored++
		}
	}
	fmt.Println("refused", errors.Is(err, ErrNoSpace))
	fmt.Println("readable", len(s.Model().Objects["Service"]) == stored)
	_, err = s.Registry().Renew(ctx, mesh.InstanceKey{Service: "x", ID: "first"}, mesh.HealthUnknown)
	fmt.Println("heartbeat", err == nil)
	_, _, err = s.Registry().Register(ctx, inst("x", "second"), 0, registry.Match{})
	fmt.Println("instance", err == nil || errors.Is(err, ErrNoSpace))
	set(1 << 40)
	err = put(stored)
	fmt.Println("again", err == nil)
	if err == nil {
		stored++
	}
	fmt.Println("closed", s.Close() == nil)
	fmt.Println("stored", stored)
	return 0
}

func TestAFullDiskRefusesWritesAndServesReads(t *testing.T) {
	dir := t.TempDir()
	out, err := rerun(dir, childSizeEnv+"="+strconv.Itoa(512<<10)).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stored := ""
	for line := range strings.Lines(string(out)) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "stored" {
			stored = value
		} else if value != "true" {
			t.Errorf("%s: got %s", what, value)
		}
	}
	s := open(t, Config{Dir: dir})
	if got := strconv.Itoa(len(s.Model().Objects["Service"])); got != stored || stored == "" || stored == "0" {
		t.Errorf("after a restart: got %s objects, %s were acknowledged", got, stored)
	}
}

func TestAFolderThatCannotBeWrittenIsAClearError(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: file + "/data"}); err == nil || !strings.Contains(err.Error(), "data folder") {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfTheDiskAreToldApart(t *testing.T) {
	for _, c := range []struct{ in, want error }{
		{syscall.ENOSPC, ErrNoSpace}, {syscall.EDQUOT, ErrNoSpace}, {syscall.EROFS, ErrReadOnly}, {syscall.EIO, ErrReadOnly},
	} {
		if err := classify(fmt.Errorf("write: %w", c.in)); !errors.Is(err, c.want) || !errors.Is(err, c.in) {
			t.Errorf("%v: got %v, want %v", c.in, err, c.want)
		}
	}
}
