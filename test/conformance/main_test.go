// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestThePageHasExactlyTheRowsOfTheTable(t *testing.T) {
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	got, err := render(string(text), parse(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got != string(text) {
		t.Errorf("%s is not what rows.go makes of it; run: go run ./test/conformance -render", page)
	}
}

func TestTheEnvironmentMakesTheLongFormOfARow(t *testing.T) {
	set := map[string]string{"SOAK": "20m"}
	lookup := func(name string) (string, bool) { v, ok := set[name]; return v, ok }
	for command, want := range map[string]string{
		"SOAK=15s go test -run 'A=B' .":        "go test -run 'A=B' .",
		"PEERS=1 SOAK=15s go test -count=1 .":  "PEERS=1 go test -count=1 .",
		"SOAK=15s PEERS=1 go test SOAK=1 ./x.": "PEERS=1 go test SOAK=1 ./x.",
		"go run ./examples/quickstart":         "go run ./examples/quickstart",
	} {
		if got := withoutSet(command, lookup); got != want {
			t.Errorf("%q: got %q, want %q", command, got, want)
		}
	}
}

func TestEveryRowNamesTestsThatExist(t *testing.T) {
	pattern := regexp.MustCompile(`-run '([^']+)' (.+)$`)
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.id] {
			t.Errorf("%s: listed twice", r.id)
		}
		seen[r.id] = true
		m := pattern.FindStringSubmatch(r.command)
		if m == nil {
			continue
		}
		names := regexp.MustCompile(m[1])
		found := false
		for _, folder := range strings.Fields(m[2]) {
			found = found || slices.ContainsFunc(tests(t, folder), names.MatchString)
		}
		if !found {
			t.Errorf("%s: no test matches %s in %s", r.id, m[1], m[2])
		}
	}
}

// tests lists the tests of a package pattern.
func tests(t *testing.T, pattern string) (names []string) {
	t.Helper()
	top, deep := strings.CutSuffix(pattern, "/...")
	err := filepath.WalkDir(filepath.Join("../..", top), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && !deep && path != filepath.Join("../..", top):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestAResultSaysWhatTheCommandPrinted(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := row{}
	for _, tc := range []struct {
		name, out string
		row       row
		err       error
		want      string
	}{
		{"a logged figure", "    a_test.go:7: starting\n    a_test.go:9: 37 ms | 1 marshalled\n--- PASS: TestA (0.1s)\n", r, nil, "37 ms / 1 marshalled; holds (2026-01-02)"},
		{"no figure", "--- PASS: TestA (0.1s)\n    --- PASS: TestA/x (0.0s)\n", r, nil, "2 tests and cases; holds (2026-01-02)"},
		{"an own pattern", "ads pass 12\nxds pass 9\n", row{figure: regexp.MustCompile(`(?m)^(\S+ pass \d+)$`)}, nil, "ads pass 12; xds pass 9; holds (2026-01-02)"},
		{"failed", "37 ms", r, errors.New("exit status 1"), "**fails** (2026-01-02)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.row.result([]byte(tc.out), tc.err, day); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResultsSurviveAnotherRun(t *testing.T) {
	text, err := render("intro\n"+begin+end+"outro\n", map[string]string{"D5": "12 MiB; holds (2026-01-02)"})
	if err != nil {
		t.Fatal(err)
	}
	results := parse(text)
	if results["D5"] != "12 MiB; holds (2026-01-02)" || results["D6"] != notRun {
		t.Errorf("got %v", results)
	}
	again, err := render(text, results)
	if err != nil || again != text {
		t.Errorf("another rendering differs: %v", err)
	}
	if _, err := render("no marks", nil); err == nil {
		t.Error("a page without marks was accepted")
	}
}
