// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the lists of what the programs link")

// root is the module's folder.
const root = "../.."

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
}

// short is the path below the module.
func (p listed) short() string { return strings.TrimPrefix(p.ImportPath, module) }

var packages = sync.OnceValues(func() ([]listed, error) { return list("./...") })

func list(args ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Standard,Module"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(stderr.String()))
	}
	var all []listed
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

func ours(t *testing.T) []listed {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("go list knows %d packages: the test looks at the wrong folder", len(all))
	}
	return all
}

// covers says whether a path fits a pattern, which may end in /... .
func covers(pattern, path string) bool {
	prefix, all := strings.CutSuffix(pattern, "...")
	if !all {
		return pattern == path
	}
	return strings.HasPrefix(path+"/", prefix)
}

func coversAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, path) })
}

func layerOf(path string) (layer, bool) {
	best, found, length := layer(0), false, -1
	for pattern, l := range layers {
		n := len(pattern)
		if !strings.HasSuffix(pattern, "...") {
			n += 1000 // a path itself says more than any prefix
		}
		if covers(pattern, path) && n > length {
			best, found, length = l, true, n
		}
	}
	return best, found
}

func allowedSibling(from, to string) bool {
	return slices.ContainsFunc(siblings, func(s sibling) bool { return covers(s.from, from) && covers(s.to, to) })
}

func TestEveryPackageImportsOnlyFromBelow(t *testing.T) {
	for _, p := range ours(t) {
		from, ok := layerOf(p.short())
		if !ok {
			t.Errorf("%s: has no layer; place it in rules.go and docs/ARCHITECTURE.md", p.short())
			continue
		}
		for _, i := range p.Imports {
			to, isOurs := strings.CutPrefix(i, module)
			if !isOurs {
				continue
			}
			l, ok := layerOf(to)
			switch {
			case !ok: // reported where it is listed itself
			case l > from:
				t.Errorf("%s (layer %d) imports %s (layer %d): imports go down", p.short(), from, to, l)
			case l == from && !allowedSibling(p.short(), to):
				t.Errorf("%s imports %s of its own layer %d: siblings that need this are listed in rules.go with a reason", p.short(), to, l)
			}
		}
	}
}

func TestNoPackageHasAForbiddenImport(t *testing.T) {
	for _, p := range ours(t) {
		for _, rule := range forbiddens {
			if !coversAny(rule.not, p.short()) || coversAny(rule.except, p.short()) {
				continue
			}
			for _, i := range p.Imports {
				if covers(rule.imports, i) {
					t.Errorf("%s imports %s: %s", p.short(), i, rule.why)
				}
			}
		}
	}
}

func TestTheTablesNameNoPackageThatIsGone(t *testing.T) {
	planned := []string{"pkg/bootstrap", "pkg/health", "pkg/tap/...", "bench/..."} // their issues come next
	all := ours(t)
	exists := func(pattern string) bool {
		return slices.Contains(planned, pattern) ||
			slices.ContainsFunc(all, func(p listed) bool { return covers(pattern, p.short()) }) || strings.Contains(pattern, "testdata")
	}
	for pattern := range layers {
		if !exists(pattern) {
			t.Errorf("layers: %s is not there", pattern)
		}
	}
	for _, s := range siblings {
		if (!exists(s.from) || !exists(s.to)) && s.from != s.to {
			t.Errorf("siblings: %s → %s is not there", s.from, s.to)
		}
	}
	for _, rule := range forbiddens {
		for _, e := range rule.except {
			if !exists(e) {
				t.Errorf("forbidden %s: exception %s is not there", rule.imports, e)
			}
		}
	}
}

func TestProgramsDoNotLinkWhatIsNotTheirs(t *testing.T) {
	for _, p := range ours(t) {
		for _, rule := range links {
			if p.short() != rule.program {
				continue
			}
			for _, d := range p.Deps {
				if covers(rule.not, d) {
					t.Errorf("%s links %s: %s", rule.program, d, rule.why)
				}
			}
		}
	}
}

// TestTheListOfLinkedModulesIsCheckedIn makes a new dependency visible in review:
// run with -update, and say in the commit why it is there.
func TestTheListOfLinkedModulesIsCheckedIn(t *testing.T) {
	for _, program := range []string{"sidecar", "controlplane"} {
		all, err := list("-deps", "./cmd/"+program)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, p := range all {
			if p.Module != nil && p.Module.Path+"/" != module {
				seen[p.Module.Path] = true
			}
		}
		modules := make([]string, 0, len(seen))
		for m := range seen {
			modules = append(modules, m)
		}
		slices.Sort(modules)
		got := strings.Join(modules, "\n") + "\n"
		file := filepath.Join("testdata", program+".modules")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("cmd/%s links other modules than %s says; look at the difference and run: go test ./internal/archtest -update\ngot:\n%s", program, file, got)
		}
	}
}
