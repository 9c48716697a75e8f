// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// The exit codes of a command that could not be run, and what is added to the
// number of the signal that ended one: what shells and env(1) use.
const (
	ExitNotExecutable = 126
	ExitNotFound      = 127
	exitSignalBase    = 128
)

// CommandError says that a command could not be started.
type CommandError struct {
	Name string
	Code int // ExitNotExecutable or ExitNotFound
	Err  error
}

func (e *CommandError) Error() string { return fmt.Sprintf("command %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// Command is the application that `sidecar exec` runs: one child process with the
// standard streams of this one.
type Command struct {
	cmd  *exec.Cmd
	done chan struct{}
	code int // valid when done is closed
}

// StartCommand starts the program argv[0] with its arguments. The child gets a
// process group of its own, so that a signal from the terminal or from kill does
// not reach it twice, and, where standard input is a terminal, its foreground, so
// that it can read and be interrupted there. The error is a *CommandError.
func StartCommand(argv, env []string) (*Command, error) {
	if len(argv) == 0 {
		return nil, &CommandError{Code: ExitNotFound, Err: errors.New("no command given")}
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // the user's own command line
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = processGroup(os.Stdin)
	if err := cmd.Start(); err != nil {
		code := ExitNotExecutable
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			code = ExitNotFound
		}
		return nil, &CommandError{Name: argv[0], Code: code, Err: err}
	}
	c := &Command{cmd: cmd, done: make(chan struct{})}
	go c.wait() // ends with the child
	return c, nil
}

func (c *Command) wait() {
	defer close(c.done)
	err := c.cmd.Wait()
	state := c.cmd.ProcessState
	if state == nil {
		c.code = ExitNotExecutable
		return
	}
	c.code = state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		c.code = exitSignalBase + int(status.Signal())
	} else if c.code < 0 && err != nil {
		c.code = ExitNotExecutable
	}
}

// Done is closed when the child has ended.
func (c *Command) Done() <-chan struct{} { return c.done }

// ExitCode is the child's exit code, or 128 and the number of the signal that
// ended it. It waits for the child.
func (c *Command) ExitCode() int {
	<-c.done
	return c.code
}

// Pid is the child's process id.
func (c *Command) Pid() int { return c.cmd.Process.Pid }

// Signal sends a signal to the child, and to nothing else. A child that has ended
// is no error.
func (c *Command) Signal(sig os.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to command %q: %w", sig, c.cmd.Path, err)
	}
	return nil
}
