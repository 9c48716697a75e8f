// SPDX-License-Identifier: Apache-2.0

// Package programs makes the programs of this module, for what runs them as processes:
// tests, benchmarks and examples.
//
// What does not belong here: programs as they are released, which the Makefile builds
// with a profile.
//
// Concurrency: any number of goroutines and processes.
package programs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"syscall"
)

const module = "github.com/outrigger-mesh/outrigger"

// Build makes the programs of the packages, such as cmd/sidecar, from this module's
// source and puts each into the folder, which it makes if need be, under the last element
// of its path. It has to run inside the module. When the context ends so does the build.
//
// It goes by go run, whose programs Go's cache keeps, those of go build it does not: who
// comes next with the same source gets a copy in place of linking again. They have no
// tables for debuggers, nor the revision in them.
func Build(ctx context.Context, dir string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs are no secret
		return err
	}
	for _, p := range packages {
		cmd := exec.CommandContext(ctx, "go", "run", "-exec", "cp", module+"/"+p, filepath.Join(dir, path.Base(p)))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		if out, err := cmd.CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("build %s: %w\n%s", p, err, bytes.TrimSpace(out))
		}
	}
	return nil
}
