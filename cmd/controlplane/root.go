// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes; they are part of the command line's contract.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitConflict    = 5
	exitDiffers     = 6
	exitCannotServe = 7
	exitDenied      = 8
)

const exitCodesHelp = `Exit codes:
  0  done
  1  refused or failed; the message names the file, line and field.
     explain: no instance gets the request
     Ended by a signal too; serve drains at the first and is done with 0,
     and ends at once at a second
  2  wrong flags or arguments
  3  the control plane cannot be reached, or is not ready
  4  there is no such thing; explain: nothing is for the request
  5  conflict: another revision is current, or a file owns the object
  6  diff found differences
  7  serve cannot start: a port is taken, or the data folder cannot be used
  8  the token is missing, or is not this control plane's`

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exitError carries an exit code with the message.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, io streams, args []string) int {
	ctx, stop := untilSignal(ctx, io.err)
	defer stop()
	root := newRoot(io)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		coded = &exitError{exitUsage, err} // cobra's own: unknown command, wrong arguments
	}
	if cause := interrupted(ctx); cause != nil && errors.Is(err, context.Canceled) {
		coded = &exitError{exitFailed, cause}
	}
	if text := coded.Error(); text != "" {
		fmt.Fprintln(io.err, paint(io.err, red, "error:")+" "+text)
	}
	if coded.code == exitUsage {
		fmt.Fprintln(io.err, "Run with --help for the usage.")
	}
	return coded.code
}

func newRoot(io streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "controlplane",
		Short: "Control plane of the Outrigger service mesh",
		Long: `controlplane serves the control plane of an Outrigger mesh, and is the command
line that talks to a running one.

` + exitCodesHelp,
		Example: `  controlplane serve                                   # on this host, data in ./outrigger-data
  controlplane apply -f mesh.yaml                      # create or change objects
  controlplane get httproutes                          # what there is
  controlplane status                                  # what each sidecar made of it
  controlplane events --follow --service payments      # ejections, circuits and changes, with the numbers
  controlplane explain GET http://payments/v1/x --from orders`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	c := &client{io: io}
	for _, add := range []func(*client) *cobra.Command{
		newServe, newApply, newGet, newDelete, newDiff, newStatus, newEvents, newExplain, newTrace, newLake, newCA, newValidate, newVersion,
	} {
		root.AddCommand(add(c))
	}
	refuseUnknownShells(root)
	return root
}
