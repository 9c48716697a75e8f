// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every class has a rule and tests, and those tests are there.
func TestEveryClassOfAttackNamesTestsThatExist(t *testing.T) {
	there := tests(t)
	seen := map[string]bool{}
	for _, row := range table(t, "attack-classes.md") {
		const class, rule, names = 0, 2, 3
		if len(row) != 4 || row[rule] == "" {
			t.Errorf("%q has no rule, or %d cells", row[class], len(row))
			continue
		}
		if seen[row[class]] {
			t.Errorf("%s: listed twice", row[class])
		}
		seen[row[class]] = true
		list := quoted(row[names])
		if len(list) == 0 {
			t.Errorf("%s: no test", row[class])
		}
		for _, name := range list {
			if !there[name] {
				t.Errorf("%s: there is no %s", row[class], name)
			}
		}
	}
}

// tests are the names of all tests and fuzz targets.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
