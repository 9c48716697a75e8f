// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// book are the pages that go through the code.
var book = []string{"docs/ARCHITECTURE.md", "docs/life-of-a-request.md", "docs/life-of-an-update.md", "docs/flow-control.md"}

// pages are all that the repository has, by path from its folder.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "results"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".md"):
			return nil
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		all[filepath.ToSlash(rel)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range book {
		if all[name] == "" {
			t.Fatalf("there is no %s", name)
		}
	}
	return all
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	quotes  = regexp.MustCompile("`([^`\n]+)`")
	inTree  = regexp.MustCompile(`^(?:pkg|cmd|internal|test|docs|api|examples|bench)/[\w./-]+$`)
	// constantOf is what follows a folder in pkg/mtls.maxUnread, say.
	constantOf = regexp.MustCompile(`\.\w+$`)
	goFile     = regexp.MustCompile(`^\w+\.go$`)
	// name is an identifier of another package, or one that can be nothing else.
	name = regexp.MustCompile(`^(?:(\w+)\.)?([A-Z]\w*[a-z]\w*)$`)
)

// anchor is what the usual renderers make of a heading.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteRune('-')
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, part, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.ToSlash(filepath.Join(filepath.Dir(page), target))
			}
			if !exists(file) {
				t.Errorf("%s: there is no %s", page, m[1])
				continue
			}
			there := slices.ContainsFunc(heading.FindAllStringSubmatch(all[file], -1), func(h []string) bool { return anchor(h[1]) == part })
			if part != "" && !there {
				t.Errorf("%s: %s has no heading for #%s", page, file, part)
			}
		}
	}
}

func TestPathsThatPagesNameExist(t *testing.T) {
	for page, text := range pages(t) {
		for _, m := range quotes.FindAllStringSubmatch(text, -1) {
			path := strings.TrimSuffix(m[1], "/...")
			if folder := constantOf.ReplaceAllString(path, ""); inTree.MatchString(path) && !exists(path) && !exists(folder) {
				t.Errorf("%s: there is no %s", page, path)
			}
		}
	}
}

// Files that are named without their folder, and identifiers, are somewhere in the code.
func TestTheBookNamesWhatTheCodeHas(t *testing.T) {
	all, words, files := pages(t), map[string]bool{}, map[string]bool{}
	word := regexp.MustCompile(`\w+`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		files[d.Name()] = true
		text, err := os.ReadFile(path)
		for _, w := range word.FindAllString(string(text), -1) {
			words[w] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range book {
		for _, m := range quotes.FindAllStringSubmatch(all[page], -1) {
			n := name.FindStringSubmatch(m[1])
			switch {
			case goFile.MatchString(m[1]) && !files[m[1]]:
				t.Errorf("%s: there is no file %s", page, m[1])
			case n != nil && (!words[n[2]] || n[1] != "" && !words[n[1]]):
				t.Errorf("%s: the code has no %s", page, m[1])
			}
		}
	}
}

// Every package of the data path and the control plane has its place on the page.
func TestTheArchitectureHasEveryPackage(t *testing.T) {
	page := pages(t)["docs/ARCHITECTURE.md"]
	table := page[strings.Index(page, "## Packages"):strings.Index(page, "## Import layers")]
	err := filepath.WalkDir(root+"/pkg", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if inside, _ := filepath.Glob(path + "/*.go"); len(inside) > 0 && !strings.Contains(table, d.Name()+"`") && !strings.Contains(table, "`"+d.Name()) {
			t.Errorf("%s is not in the table", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The phases are those of the code, in its order.
func TestThePhasesAreThoseOfTheCode(t *testing.T) {
	code, err := os.ReadFile(root + "/pkg/proxy/phases.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^\t\(\*exchange\)\.(\w+),`).FindAllSubmatch(code, -1) {
		want = append(want, string(m[1]))
	}
	for _, m := range regexp.MustCompile(`(?m)^   \| ([a-z]\w+(?:, \w+)*) \|`).FindAllStringSubmatch(pages(t)["docs/life-of-a-request.md"], -1) {
		if m[1] != "phase" {
			got = append(got, strings.Split(m[1], ", ")...)
		}
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("the page has %q, the code %q", got, want)
	}
}
