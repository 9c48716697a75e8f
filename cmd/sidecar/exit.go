// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
)

// The exit codes, which scripts may rely on. `exec` ends with the code of its
// command once that has run.
const (
	exitOK            = 0
	exitConfiguration = 1 // a flag's value, a file or the bootstrap is wrong
	exitUsage         = 2 // the command line cannot be read
	exitBusy          = 3 // an address or the data folder is in use, or may not be used
	exitFailed        = 4 // the sidecar ended by itself, or at a second signal
	exitUnreachable   = 5 // explain, events: no sidecar answers
	exitExecFailed    = 125
)

const exitCodesHelp = `Exit codes:
  0    ended in order, or the configuration is valid
  1    a value, a file or the bootstrap is wrong; each error names its place
  2    the command line cannot be read
  3    an address or the data folder is in use, or may not be used
  4    the sidecar ended by itself, or a second signal cut its end short
  5    explain, events: no sidecar answers at --admin
  exec: the command's own code, or 128 and the number of the signal that ended it;
  125 when the sidecar failed before the command began, 126 when the command
  cannot be run, 127 when it was not found`

// usageError is a command line that cannot be read.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// codeError carries the exit code of what ran; without an error in it nothing is
// printed.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var (
		code    *codeError
		usage   usageError
		command *agent.CommandError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &command):
		return command.Code
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.EACCES), errors.Is(err, errDataBusy):
		return exitBusy
	default:
		return exitConfiguration
	}
}

func failed(format string, args ...any) error {
	return &codeError{code: exitFailed, err: fmt.Errorf(format, args...)}
}
