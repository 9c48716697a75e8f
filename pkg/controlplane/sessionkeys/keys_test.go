// SPDX-License-Identifier: Apache-2.0

package sessionkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1e9, 0)

func opened(t *testing.T, dir string, at time.Time, log *slog.Logger) *Keys {
	t.Helper()
	k, err := Open(Config{Dir: dir, Life: 24 * time.Hour, Now: func() time.Time { return at }, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// names gives each key that is seen for the first time the next letter.
type names map[string]string

func (n names) of(k *Keys) string {
	out := ""
	for b := k.Bytes(); len(b) > 0; b = b[keyBytes:] {
		name := string(b[:keyBytes])
		if n[name] == "" {
			n[name] = string(rune('A' + len(n)))
		}
		out += n[name]
	}
	return out
}

func TestKeysRollOverByDates(t *testing.T) {
	var log bytes.Buffer
	dir, seen := t.TempDir(), names{}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	k := opened(t, dir, start, logger)
	changed, stop := k.Changes()
	defer stop()
	for _, step := range []struct {
		hours   float64
		want    string
		changes bool
		restart bool
	}{
		{hours: 0, want: "A"},
		{hours: 23.9, want: "A"},
		{hours: 24, want: "AB", changes: true},
		{hours: 24.9, want: "AB"},
		{hours: 24.9, want: "AB", restart: true},
		{hours: 25, want: "BA", changes: true},
		{hours: 48.9, want: "BA", restart: true},
		{hours: 49, want: "BC", changes: true},
		// It did not run for a year: the step that is due first, with all of its wait.
		{hours: 9000, want: "CB", restart: true},
		{hours: 9023.9, want: "CB"},
		{hours: 9024, want: "CD", changes: true},
	} {
		at := start.Add(time.Duration(step.hours * float64(time.Hour)))
		if step.restart {
			stop()
			k = opened(t, dir, at, logger)
			changed, stop = k.Changes()
		}
		next, err := k.Step(at)
		if err != nil || !next.After(at) {
			t.Fatalf("after %v hours: next at %v, %v", step.hours, next, err)
		}
		if got := seen.of(k); got != step.want {
			t.Errorf("after %v hours: %s, want %s", step.hours, got, step.want)
		}
		select {
		case <-changed:
			if !step.changes {
				t.Errorf("after %v hours: told of a change", step.hours)
			}
		default:
			if step.changes {
				t.Errorf("after %v hours: not told of the change", step.hours)
			}
		}
	}
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s", k.state, k.state, k.state, k.state.Keys)
	for secret := range seen {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))[1:40]} {
			if strings.Contains(shown, form) {
				t.Errorf("a key is shown: %s", shown)
			}
		}
	}
}

func TestBadFilesOfKeysAreRefused(t *testing.T) {
	dir := t.TempDir()
	opened(t, dir, start, nil)
	path := filepath.Join(dir, fileName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file has mode %v, %v", info.Mode(), err)
	}
	for name, spoil := range map[string]func() error{
		"can be read by others": func() error { return os.Chmod(path, 0o644) },
		"damaged: is not":       func() error { return os.WriteFile(path, []byte("{"), 0o600) },
		"keys[0]: want 32":      func() error { return os.WriteFile(path, []byte(`{"Keys":[{"Secret":"c2VjcmV0"}]}`), 0o600) },
		"want one or two keys":  func() error { return os.WriteFile(path, []byte(`{}`), 0o600) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A key whose dates were written by a clock that was years ahead lives no longer than others.
func TestAClockThatIsSetBackKeepsNoKeyInForce(t *testing.T) {
	dir, seen := t.TempDir(), names{}
	ahead := start.Add(20 * 365 * 24 * time.Hour)
	k := opened(t, dir, ahead, nil)
	for _, step := range []struct {
		at   time.Time
		want string
	}{
		{ahead, "A"},
		{start, "A"},
		{start.Add(24 * time.Hour), "AB"},
		{ahead.Add(time.Hour), "BA"},
		{ahead.Add(25 * time.Hour), "BC"}, // and C is to encrypt in an hour of that clock
		{start, "BC"},
		{start.Add(59 * time.Minute), "BC"},
		{start.Add(time.Hour), "CB"},
	} {
		next, err := k.Step(step.at)
		if err != nil || !next.After(step.at) || next.After(step.at.Add(24*time.Hour)) {
			t.Fatalf("at %v: next at %v, %v", step.at, next, err)
		}
		if got := seen.of(k); got != step.want {
			t.Errorf("at %v: %s, want %s", step.at, got, step.want)
		}
	}
}

func TestWhoHasALeftOverOpenReadsNoKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName+".new")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	opened(t, dir, start, nil)
	if got, err := io.ReadAll(reader); err != nil || len(got) > 0 {
		t.Errorf("it reads %d bytes, %v", len(got), err)
	}
	if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

func TestWhatACrashHasLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, fileName+".new")
	if err := os.WriteFile(left, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err != nil { // nothing to save
		t.Fatal(err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

func TestAKeyThatCannotBeKeptIsNotGivenOut(t *testing.T) {
	dir, seen := t.TempDir(), names{}
	k := opened(t, dir, start, nil)
	k.config.Dir = filepath.Join(dir, "gone")
	seen.of(k)
	if _, err := k.Step(start.Add(25 * time.Hour)); err == nil {
		t.Error("a step without a folder has succeeded")
	}
	if got := seen.of(k); got != "A" {
		t.Errorf("the keys are %s after a step that failed", got)
	}
}
