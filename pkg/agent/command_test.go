// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
)

// childMode makes the test binary a child process that does what it says.
const childMode = "OUTRIGGER_AGENT_TEST_CHILD"

// child is the program that these tests run as a command.
func child() {
	switch mode := os.Getenv(childMode); {
	case strings.HasPrefix(mode, "exit "):
		code, _ := strconv.Atoi(strings.TrimPrefix(mode, "exit "))
		os.Exit(code)
	case mode == "trap":
		// Says each signal into the pipe it was given and ends with SIGTERM.
		out := os.NewFile(3, "out")
		signals := make(chan os.Signal, 8)
		signal.Notify(signals)
		fmt.Fprintln(out, "ready", syscall.Getpgrp() == os.Getpid())
		for s := range signals {
			if s == syscall.SIGURG { // the Go runtime's own
				continue
			}
			fmt.Fprintln(out, s)
			if s == syscall.SIGTERM {
				os.Exit(7)
			}
		}
	case mode == "hang":
		select {}
	}
}

func start(t *testing.T, mode string) *agent.Command {
	t.Helper()
	c, err := agent.StartCommand([]string{os.Args[0]}, append(os.Environ(), childMode+"="+mode))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Signal(syscall.SIGKILL)
		<-c.Done()
	})
	return c
}

func exitCode(t *testing.T, c *agent.Command) int {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.Done():
		return c.ExitCode()
	case <-timer.C:
		t.Fatal("the command has not ended")
		return 0
	}
}

func TestTheCommandsExitCodeIsHandedOn(t *testing.T) {
	for _, want := range []int{0, 1, 42, 255} {
		if got := exitCode(t, start(t, fmt.Sprintf("exit %d", want))); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}

func TestACommandEndedByASignalCountsFrom128(t *testing.T) {
	c := start(t, "hang")
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := exitCode(t, c); got != 128+9 {
		t.Errorf("got %d, want 137", got)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to a command that has ended: %v", err)
	}
}

func TestACommandThatCannotBeRunIsTold(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notExecutable, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		argv []string
		code int
	}{
		{nil, agent.ExitNotFound},
		{[]string{"no-such-program-anywhere"}, agent.ExitNotFound},
		{[]string{"/no/such/program"}, agent.ExitNotFound},
		{[]string{notExecutable}, agent.ExitNotExecutable},
	} {
		_, err := agent.StartCommand(tc.argv, nil)
		var got *agent.CommandError
		if !errors.As(err, &got) || got.Code != tc.code {
			t.Errorf("%v: got %v, want code %d", tc.argv, err, tc.code)
		}
	}
}

// The child inherits the standard streams only, so its words come through a
// second process: a shell that redirects descriptor 3 into a named pipe.
func TestSignalsReachTheCommandOnceAndInItsOwnGroup(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "out")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := agent.StartCommand([]string{"/bin/sh", "-c", `exec "$0" 3>"$1"`, os.Args[0], pipe},
		append(os.Environ(), childMode+"=trap"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Signal(syscall.SIGKILL); <-c.Done() })
	out, err := os.Open(pipe)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lines := bufio.NewScanner(out)
	read := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the command said nothing more: %v", lines.Err())
		}
		return lines.Text()
	}
	if got := read(); got != "ready true" {
		t.Errorf("got %q, want the command to lead its own process group", got)
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGTERM} {
		if err := c.Signal(s); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != s.String() {
			t.Errorf("the command saw %q, want %q", got, s)
		}
	}
	if got := exitCode(t, c); got != 7 {
		t.Errorf("got %d, want the code that the command chose", got)
	}
	if lines.Scan() {
		t.Errorf("the command saw more: %q", lines.Text())
	}
}
