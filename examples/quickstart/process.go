// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/launch"
	"github.com/outrigger-mesh/outrigger/internal/programs"
)

// errEnded says that a process ended by itself.
var errEnded = errors.New("ended by itself")

// stopLimit is how long a process may take to end in order.
const stopLimit = 8 * time.Second

// process is one running program of the mesh.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file of its standard error and output
	done chan struct{} // closed when it was waited for
}

// start runs a program in a process group of its own, so that Ctrl-C reaches it
// through this program alone. Standard output goes to out if it is not nil.
func start(l *launch.Launcher, name, logFile string, out io.Writer, argv ...string) (*process, error) {
	f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the child has its own descriptor
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = filepath.Dir(logFile)
	cmd.Stdout, cmd.Stderr = f, f
	if out != nil {
		cmd.Stdout = out
	}
	p := &process{name: name, cmd: cmd, log: logFile, done: make(chan struct{})}
	if err := l.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process
		_ = cmd.Wait() // how it ended is read from its state and its log
		close(p.done)
	}()
	return p, nil
}

// alive reports whether the process still runs.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may be gone
	<-p.done
}

// stop ends the process in order, and after stopLimit by force. A nil process was
// never started.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		p.kill()
	}
}

// ended describes a process that ended by itself, with the end of its log.
func (p *process) ended() error {
	return fmt.Errorf("%s: %w: %s\n%s", p.name, errEnded, p.cmd.ProcessState, tail(p.log, 1<<10))
}

// await polls until check is nil, the process ends, or the time is over.
func (p *process) await(ctx context.Context, what string, limit time.Duration, check func() error) error {
	err := poll(ctx, limit, func() error {
		if !p.alive() {
			return p.ended()
		}
		return check()
	})
	if err != nil && !errors.Is(err, errEnded) && ctx.Err() == nil {
		return fmt.Errorf("%s: %s within %v: %w\n%s", p.name, what, limit, err, tail(p.log, 1<<10))
	}
	return err
}

// pollEvery is short: what is measured by polling is measured to this.
const pollEvery = 5 * time.Millisecond

// poll calls check until it is nil or tells of an ended process, ctx ends, or the
// limit is over; the last error is returned.
func poll(ctx context.Context, limit time.Duration, check func() error) error {
	end := time.Now().Add(limit)
	for {
		err := check()
		if err == nil || errors.Is(err, errEnded) || time.Now().After(end) {
			return err
		}
		if wait(ctx, pollEvery) != nil {
			return context.Cause(ctx)
		}
	}
}

// wait sleeps, but not beyond the end of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func tail(path string, limit int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > limit {
		b = b[len(b)-limit:]
	}
	return string(bytes.TrimSpace(b))
}

// build makes the programs from this module's source.
func build(ctx context.Context, dir string) error {
	err := programs.Build(ctx, filepath.Join(dir, "bin"), "cmd/sidecar", "cmd/controlplane", "examples/quickstart/service")
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run this inside the checkout of Outrigger: %w", err)
	}
	return err
}
