// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stopLimit is how long a process may take to end in order.
const stopLimit = 15 * time.Second

// Process is one running program. Its methods may be called from any goroutine.
type Process struct {
	Name string
	// Log is the file that takes what it prints, standard output and error.
	Log string

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when it was waited for
	stop sync.Once
}

// Start runs a program until the test ends. A failed test shows the end of its
// log. Extra environment variables are given as NAME=value.
func Start(t testing.TB, name, logFile string, env []string, argv ...string) *Process {
	t.Helper()
	return startWith(t, name, logFile, env, nil, argv...)
}

// startWith is Start with files that become descriptors 3 and up.
func startWith(t testing.TB, name, logFile string, env []string, files []*os.File, argv ...string) *Process {
	t.Helper()
	p := &Process{Name: name, Log: logFile, t: t, done: make(chan struct{})}
	f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // the child has its own descriptor
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = filepath.Dir(logFile)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.ExtraFiles = files
	if err := starter.Start(p.cmd, syscall.SIGKILL); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { // ends with the process
		_ = p.cmd.Wait() // how it ended is read from its state
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("end of the log of %s (%s):\n%s", name, p.cmd.ProcessState, p.tail(4<<10))
		}
	})
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive reports whether it still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal; a process that has ended is left alone.
func (p *Process) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop ends the process in order, and after a limit by force.
func (p *Process) Stop() {
	p.stop.Do(func() {
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(stopLimit):
			p.t.Errorf("%s did not end within %v of SIGTERM", p.Name, stopLimit)
			p.Kill()
		}
	})
}

// Wait waits for the process to end by itself and returns its exit code.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s did not end within %v\n%s", p.Name, limit, p.tail(2<<10))
	}
	return p.cmd.ProcessState.ExitCode()
}

// Output is what it has printed so far.
func (p *Process) Output() string {
	p.t.Helper()
	b, err := os.ReadFile(p.Log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *Process) tail(limit int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-limit):]))
}

// Await polls until check gives nil. The test ends if the process does, or if
// the limit is over; what says what was waited for.
func (p *Process) Await(limit time.Duration, what string, check func() error) {
	p.t.Helper()
	err := Poll(max(limit, patience), func() error {
		if !p.Alive() {
			return fmt.Errorf("%w: %s ended by itself: %s", errFinal, p.Name, p.cmd.ProcessState)
		}
		return check()
	})
	if err != nil {
		p.t.Fatalf("waited for: %s: %v\nend of the log of %s:\n%s", what, err, p.Name, p.tail(4<<10))
	}
}

// Finished is the result of a program that ran to its end.
type Finished struct {
	Code   int
	Output string // standard output and error
}

// Run runs a program to its end, which has to come within half a minute.
func Run(t testing.TB, stdin string, argv ...string) Finished {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q: %v\n%s", argv, errors.Join(err, ctx.Err()), out)
	}
	return Finished{cmd.ProcessState.ExitCode(), string(out)}
}

// Program is the path of a program under test.
func Program(name string) string { return filepath.Join(programsDir, name) }
