// SPDX-License-Identifier: Apache-2.0

// Package launch starts processes that must not outlive this one, whatever becomes of
// it: for tests, benchmarks and examples.
//
// The kernel's parent-death signal is bound to the thread that forked, and comes when
// that thread ends, which Go's threads do when they like. So a Launcher forks from one
// thread, which lives until it is closed.
//
// What does not belong here: waiting for processes, their logs, and ending them in
// order.
//
// Concurrency: a Launcher may be used by any number of goroutines until it is closed.
package launch

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Launcher is a thread that starts processes.
type Launcher struct {
	work  chan func()
	ended chan struct{}
}

// New makes a Launcher. Close ends it.
func New() *Launcher {
	l := &Launcher{work: make(chan func()), ended: make(chan struct{})}
	go func() { // ends with Close
		defer close(l.ended)
		runtime.LockOSThread()
		for f := range l.work {
			f()
		}
	}()
	return l
}

// Close ends the Launcher. What it has started is to have ended before: whether it
// does with the thread depends on which thread that was.
func (l *Launcher) Close() {
	close(l.work)
	<-l.ended
}

// Start starts a command in a process group of its own, so that Ctrl-C reaches it
// through this process alone. It is sent the signal should this process end before
// it. before, if any, runs on the thread that forks.
func (l *Launcher) Start(cmd *exec.Cmd, death syscall.Signal, before ...func() error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
	done := make(chan error, 1)
	l.work <- func() {
		for _, f := range before {
			if err := f(); err != nil {
				done <- err
				return
			}
		}
		done <- cmd.Start()
	}
	return <-done
}
