// SPDX-License-Identifier: Apache-2.0

// Package programs makes the programs of this module, for what runs them as processes:
// tests, benchmarks and examples.
//
// What does not belong here: what is released, which the Makefile builds.
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
		if err := build(ctx, p, filepath.Join(dir, path.Base(p)), nil); err != nil {
			return err
		}
	}
	return nil
}

// BuildGuided puts the sidecar into the folder as make build and the image have it:
// guided by its profile. The first time that compiles all that it links once more, for
// minutes.
func BuildGuided(ctx context.Context, dir string) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	profile := filepath.Join(filepath.Dir(string(bytes.TrimSpace(mod))), sidecarProfile)
	if _, err := os.Stat(profile); err != nil {
		return fmt.Errorf("the sidecar's profile: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs are no secret
		return err
	}
	return build(ctx, "cmd/sidecar", filepath.Join(dir, "sidecar"), []string{"CGO_ENABLED=0"}, "-trimpath", "-pgo="+profile)
}

// sidecarProfile is by the Makefile and docs/adr/0023-builds-guided-by-a-profile.md.
const sidecarProfile = "cmd/sidecar/sidecar.pgo"

func build(ctx context.Context, pkg, to string, env []string, flags ...string) error {
	argv := append(append([]string{"run"}, flags...), "-exec", "cp", module+"/"+pkg, to)
	cmd := exec.CommandContext(ctx, "go", argv...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}
