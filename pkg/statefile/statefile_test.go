// SPDX-License-Identifier: Apache-2.0

package statefile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFileIsReplacedWholeAndForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if _, err := Read(path, 10, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v before it is there", err)
	}
	for _, text := range []string{"longer one", "short"} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 10, ""); string(got) != text || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

func TestFilesThatMustNotBeTrustedAreRefusedByName(t *testing.T) {
	dir := t.TempDir()
	for name, make := range map[string]func(path string) error{
		"is not a file": func(path string) error { return os.Mkdir(path, 0o700) },
		"is not a file ": func(path string) error {
			if err := os.WriteFile(path+".other", nil, 0o600); err != nil {
				return err
			}
			return os.Symlink(path+".other", path)
		},
		"can be read by others (mode -rw-r-----): hide it": func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o640)
		},
		"11 bytes, the limit is 10": func(path string) error { return os.WriteFile(path, []byte("12345678901"), 0o600) },
	} {
		path := filepath.Join(dir, strings.NewReplacer(" ", "", ":", "").Replace(name)+strings.Repeat("x", len(name)))
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 10, "hide it"); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("got %v, want one that says %q", err, name)
		}
	}
}

func TestWhoHasALeftOverOpenReadsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path+newSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+newSuffix, 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path + newSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := Replace(path, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(reader); err != nil || len(got) > 0 {
		t.Errorf("it reads %q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestAReplacementThatFailsLeavesWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := Replace(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	// What cannot be removed stands where the new file is to be written.
	if err := os.MkdirAll(filepath.Join(path+newSuffix, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("new")); err == nil || !strings.Contains(err.Error(), "left by a crash") {
		t.Errorf("got %v", err)
	}
	if got, err := Read(path, 10, ""); string(got) != "old" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
