// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// forwarded are the signals that go to the command of `exec` as they come.
// SIGTERM and SIGINT go there too, after the inbound side has drained.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGALRM,
}

var errNotReady = errors.New("not ready in time")

// runExec starts the sidecar, runs the command when it is ready, and ends with
// the command's exit code.
func runExec(ctx context.Context, o Options, argv []string, readyTimeout time.Duration, p parts) error {
	signals := notify(forwarded...)
	defer signals.stop()
	s, err := startProcess(ctx, o, p)
	if err != nil {
		return &codeError{exitExecFailed, err}
	}
	defer s.close()
	if sig, err := s.awaitReady(signals, readyTimeout); err != nil {
		return &codeError{exitExecFailed, err}
	} else if sig != nil {
		return &codeError{code: 128 + int(sig.(syscall.Signal))} // ended before the command began
	}
	command, err := agent.StartCommand(argv, os.Environ())
	if err != nil {
		return err
	}
	s.log.Info("command started", "pid", command.Pid())
	s.notify.ready()
	s.watch(ctx)
	s.supervise(ctx, command, signals)
	code := command.ExitCode()
	s.log.Info("command ended", "code", code)
	// The application has gone, and with it whatever came for it: leave the mesh, let
	// what it has sent arrive (connections that it has closed behind their last bytes,
	// children of it), and hand over what is known. The code stays the application's.
	_ = s.wind(ctx, signals, signals.ended(), func(ctx context.Context) {
		s.deregister(ctx, hasteLimit, 0)
		s.drainOnly(ctx, proxy.DrainOutbound, s.o.DrainTime)
		s.flush(ctx, hasteLimit)
	})
	if code != exitOK {
		return &codeError{code: code}
	}
	return nil
}

// awaitReady waits for the first complete configuration, which the command's
// first request needs. A signal that ends the process is returned.
func (s *process) awaitReady(signals *signals, timeout time.Duration) (os.Signal, error) {
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	s.log.Info("waiting for the first complete configuration")
	for {
		select {
		case <-s.dp.Configured():
			return nil, nil
		case err := <-s.dp.Failed():
			return nil, fmt.Errorf("data path: %w", err)
		case <-expired:
			return nil, fmt.Errorf("--ready-timeout %v: %w", timeout, errNotReady)
		case <-s.quit:
			return syscall.SIGTERM, nil
		case sig := <-signals.received:
			if signals.ends(sig) {
				return sig, nil
			}
		}
	}
}

// supervise hands signals on until the command ends. The first SIGTERM or SIGINT
// is held back while the inbound side drains: the application goes on answering
// what it was sent, and its own calls go out until it has ended. A second one goes
// through at once.
func (s *process) supervise(ctx context.Context, command *agent.Command, signals *signals) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		held    os.Signal
		drained chan struct{}
		failed  = s.dp.Failed()
		quit    = s.quit
	)
	hold := func(sig os.Signal) {
		held, drained = sig, make(chan struct{})
		s.notify.stopping()
		s.log.Info("draining before the command is told", "signal", sig.String(), "limit", s.o.DrainTime)
		done := drained
		go func() { // cancelled when the command has ended, and waited for below
			defer close(done)
			s.drain(ctx, proxy.DrainInbound)
		}()
	}
	send := func(sig os.Signal) {
		if err := command.Signal(sig); err != nil {
			s.log.Error("command", "error", err)
		}
	}
	waiting := drained
	for {
		select {
		case <-command.Done():
			cancel()
			if drained != nil {
				<-drained
			}
			return
		case <-waiting:
			waiting = nil
			send(held)
		case sig := <-signals.received:
			if signals.echo(sig) {
				continue
			}
			if !signals.ends(sig) || held != nil {
				if sig == syscall.SIGUSR1 {
					s.dp.ReopenLogs()
				}
				waiting = stopWaiting(signals, sig, waiting)
				send(sig)
				continue
			}
			hold(sig)
			waiting = drained
		case <-quit:
			quit = nil
			if held == nil {
				hold(syscall.SIGTERM)
				waiting = drained
			}
		case err := <-failed:
			// Without its sidecar the application is cut off; whoever supervises this
			// process starts both again.
			failed = nil
			s.log.Error("data path", "error", err)
			send(syscall.SIGTERM)
		}
	}
}

// stopWaiting drops the signal that is held back when a second one went through.
func stopWaiting(signals *signals, sig os.Signal, waiting chan struct{}) chan struct{} {
	if signals.ends(sig) {
		return nil
	}
	return waiting
}
