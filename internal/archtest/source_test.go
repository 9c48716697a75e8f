// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// source is one Go file.
type source struct {
	path  string // from the module's folder, with slashes
	text  []byte
	lines int
	tree  *ast.File
	set   *token.FileSet
}

func (s source) folder() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) generated() bool { return ast.IsGenerated(s.tree) }

var sources = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(rel), text, bytes.Count(text, []byte("\n")), tree, set})
		return nil
	})
	return all, err
})

func read(t *testing.T) []source {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files: the test looks at the wrong folder", len(all))
	}
	return all
}

func TestFilesAreOfReadableLength(t *testing.T) {
	long := map[string]bool{}
	for _, s := range read(t) {
		switch {
		case s.generated():
		case s.lines > mostLines:
			t.Errorf("%s has %d lines, the limit is %d", s.path, s.lines, mostLines)
		case s.lines > usualLines && !s.isTest():
			long[s.path] = true
			if longFiles[s.path] == "" {
				t.Errorf("%s has %d lines: one concern has at most %d, or a reason in source.go", s.path, s.lines, usualLines)
			}
		}
	}
	for path := range longFiles {
		if !long[path] {
			t.Errorf("longFiles: %s is not long any more", path)
		}
	}
}

func TestEveryFileBeginsWithItsLicence(t *testing.T) {
	for _, s := range read(t) {
		if !s.generated() && !bytes.HasPrefix(s.text, []byte("// SPDX-License-Identifier: Apache-2.0\n")) {
			t.Errorf("%s: the first line is not the SPDX line", s.path)
		}
	}
}

func TestPackagesAreNamedForWhatTheyHold(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range read(t) {
		if slices.Contains(noPackageNames, s.tree.Name.Name) {
			t.Errorf("%s: package %s is no noun of the field", s.path, s.tree.Name.Name)
		}
		if s.isTest() || s.generated() || !strings.HasPrefix(s.path, "pkg/") {
			continue
		}
		documented[s.folder()] = documented[s.folder()] || s.tree.Doc != nil
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment that says what belongs there", folder)
		}
	}
}

func TestSourceKeepsToTheRulesOfItsPackage(t *testing.T) {
	excused := map[string]bool{}
	for _, s := range read(t) {
		if s.generated() {
			continue
		}
		for _, found := range s.constructs() {
			for _, b := range bans {
				switch {
				case b.what != found.what || !coversAny(b.in, s.folder()):
				case s.isTest() && !b.tests, found.polling && b.polling:
				case b.except[s.path] != "":
					excused[s.path] = true
				default:
					t.Errorf("%s:%d: %s: %s", s.path, found.line, b.what, b.why)
				}
			}
		}
	}
	for _, b := range bans {
		for path := range b.except {
			if !excused[path] {
				t.Errorf("source.go: the exception of %s is not needed any more", path)
			}
		}
	}
}

type finding struct {
	what    construct
	line    int
	polling bool // inside a for statement
}

// selected are the names of packages that are constructs.
var selected = map[string]construct{
	"time.Now": clock, "time.Since": clock, "time.Until": clock, "time.After": clock, "time.AfterFunc": clock,
	"time.NewTimer": clock, "time.NewTicker": clock, "time.Tick": clock, "time.Sleep": sleep,
	"sync.Mutex": mutex, "sync.RWMutex": mutex, "sync.Cond": mutex, "sync.Pool": mutex, "sync.Map": mutex,
	"context.Background": background, "context.TODO": background,
}

func (s source) constructs() []finding {
	var out []finding
	var loops []ast.Node
	add := func(what construct, at token.Pos) {
		polling := slices.ContainsFunc(loops, func(l ast.Node) bool { return l.Pos() <= at && at < l.End() })
		out = append(out, finding{what, s.set.Position(at).Line, polling})
	}
	ast.Inspect(s.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ForStmt:
			loops = append(loops, n)
		case *ast.GoStmt:
			add(goStatement, n.Pos())
		case *ast.ChanType:
			add(channel, n.Pos())
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				add(initFunc, n.Pos())
			}
		case *ast.InterfaceType:
			if bytes.HasPrefix(s.text[s.set.Position(n.Pos()).Offset:], []byte("interface{}")) {
				add(anyLiteral, n.Pos())
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				if what, ok := selected[x.Name+"."+n.Sel.Name]; ok {
					add(what, n.Pos())
				}
			}
		}
		return true
	})
	return out
}

func TestTheRulesSeeWhatTheyForbid(t *testing.T) {
	text := "package p\n" +
		"import (\"context\"; \"sync\"; \"time\")\n" +
		"var mu sync.Mutex\n" +
		"func init() { go f(nil) }\n" +
		"func f(c chan int) any { time.Sleep(1); _ = time.Now(); _ = context.Background(); var x interface{}; return x }\n"
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[construct]int{}
	for _, f := range (source{text: []byte(text), tree: tree, set: set}).constructs() {
		got[f.what] = f.line
	}
	for what, line := range map[construct]int{mutex: 3, initFunc: 4, goStatement: 4, channel: 5, sleep: 5, clock: 5, background: 5, anyLiteral: 5} {
		if got[what] != line {
			t.Errorf("%s: found in line %d, want %d", what, got[what], line)
		}
	}
}
