// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAGuidedBuildNeedsTheProfile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir) // it is looked for in the module that one is in
	if err := BuildGuided(t.Context(), dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), sidecarProfile) {
		t.Errorf("got %v, want an error that names the profile", err)
	}
}

func TestBuildMakesProgramsAndSaysWhatItCannot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	if err := Build(t.Context(), dir, "cmd/controlplane"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "controlplane")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("got %v, %v, want a program", info, err)
	}
	if err := Build(t.Context(), dir, "cmd/nothing"); err == nil || !strings.Contains(err.Error(), "build cmd/nothing: ") {
		t.Errorf("got %v, want an error that names the package", err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Build(ctx, dir, "cmd/controlplane"); !errors.Is(err, why) {
		t.Errorf("got %v, want why the context has ended", err)
	}
}
