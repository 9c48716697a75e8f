// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// table returns the cells of the rows of all tables of a page, without heads.
func table(t *testing.T, page string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		body := strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "|---")
		if !body || i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---") {
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no table", page)
	}
	return rows
}

// quoted are the words of a cell that stand between backquotes.
func quoted(cell string) (words []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		words = append(words, m[1])
	}
	return words
}

// The columns of limits.md.
const (
	limitName = iota
	limitDefault
	limitKnob
	limitAttack
	limitBeyond
	limitCounted
	limitConstant
)

// Every default of limits.md is that of the constant which it names, every knob is a
// field that the decoder knows, every statistic one that the sidecar has.
func TestTheLimitsThatAreDocumentedAreThoseOfTheCode(t *testing.T) {
	source := sources(t, "../../pkg")
	for _, row := range table(t, "limits.md") {
		if len(row) != limitConstant+1 {
			t.Errorf("%q has %d cells", row[0], len(row))
			continue
		}
		for _, name := range quoted(row[limitConstant]) {
			v, err := constant(name)
			if err != nil {
				t.Errorf("%s: %v", row[limitName], err)
			} else if !slices.Contains(spellings(v), row[limitDefault]) {
				t.Errorf("%s: %q, and %s is one of %q", row[limitName], row[limitDefault], name, spellings(v))
			}
		}
		for _, knob := range quoted(row[limitKnob]) {
			field := knob[strings.LastIndex(knob, ".")+1:]
			if !strings.Contains(source, `"`+field+`"`) && !strings.Contains(source, camel(field)+"()") && !strings.HasPrefix(knob, "--") {
				t.Errorf("%s: the code knows no field %q", row[limitName], knob)
			}
		}
		for _, stat := range quoted(row[limitCounted]) {
			name := stat[strings.LastIndex(stat, ">.")+1:]
			name = strings.TrimPrefix(name, ".")
			if !strings.Contains(source, name+`"`) && !known(name) {
				t.Errorf("%s: no statistic %q", row[limitName], stat)
			}
		}
	}
}

// known are the statistics whose names the code puts together.
func known(name string) bool {
	for kind := range http2.Floods {
		if name == "outrigger.http2.flood."+http2.FloodName(kind)+".connections_total" {
			return true
		}
	}
	return strings.HasPrefix(name, "outrigger.tls.failed_") || name == "http_local_rate_limit.enforced" || name == "fault.faults_overflow"
}

// Every kind of limit of the codecs is documented, and every kind of flood.
func TestNoLimitOfTheCodecsIsLeftOut(t *testing.T) {
	var all strings.Builder
	for _, row := range table(t, "limits.md") {
		all.WriteString(strings.Join(row, " ") + "\n")
	}
	for _, limits := range []any{http1.Limits{}, http2.Limits{}} {
		pkg := regexp.MustCompile(`http\d`).FindString(fmt.Sprintf("%T", limits))
		for _, f := range reflect.VisibleFields(reflect.TypeOf(limits)) {
			if !strings.Contains(all.String(), "`pkg/codec/"+pkg+".Default"+f.Name+"`") && !notLimits[f.Name] {
				t.Errorf("%s.Limits.%s has no row", pkg, f.Name)
			}
		}
	}
	for kind := range http2.Floods {
		if name := http2.FloodName(kind); !strings.Contains(all.String(), name) {
			t.Errorf("the flood %s has no row", name)
		}
	}
}

// notLimits are fields that choose, or that have no default.
var notLimits = map[string]bool{"Underscores": true, "AllowConnect": true, "BodyBytes": true, "TrailerBytes": true}

func sources(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// camel is the getter of a field of Protobuf.
func camel(field string) string {
	out := "Get"
	for _, word := range strings.Split(field, "_") {
		out += strings.ToUpper(word[:1]) + word[1:]
	}
	return out
}

// spellings are the ways to write a value.
func spellings(v int64) []string {
	list := []string{strconv.FormatInt(v, 10), strings.ReplaceAll(thousands(v), ",", " ")}
	for _, u := range []struct {
		name string
		size int64
	}{{" KiB", 1 << 10}, {" MiB", 1 << 20}, {" s", int64(time.Second)}, {" min", int64(time.Minute)}, {" h", int64(time.Hour)}} {
		if v%u.size == 0 {
			list = append(list, strconv.FormatInt(v/u.size, 10)+u.name)
		}
	}
	return list
}

func thousands(v int64) string {
	s := strconv.FormatInt(v, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// constant evaluates folder.Name.
func constant(name string) (int64, error) {
	folder, id, ok := strings.Cut(name[strings.LastIndex(name, "/")+1:], ".")
	if !ok {
		return 0, fmt.Errorf("%q is not folder.Name", name)
	}
	folder = name[:strings.LastIndex(name, "/")+1] + folder
	if parsed[folder] == nil {
		values, err := constants(folder)
		if err != nil {
			return 0, err
		}
		parsed[folder] = values
	}
	return evaluate(ast.NewIdent(id), parsed[folder])
}

// parsed has the constants of folders.
var parsed = map[string]map[string]ast.Expr{}

func constants(folder string) (map[string]ast.Expr, error) {
	files, err := filepath.Glob("../../" + folder + "/*.go")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no package %s", folder)
	}
	values := map[string]ast.Expr{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.ValueSpec); ok {
				for i, v := range s.Values {
					values[s.Names[i].Name] = v
				}
			}
			return true
		})
	}
	return values, nil
}

func evaluate(e ast.Expr, values map[string]ast.Expr) (int64, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return strconv.ParseInt(e.Value, 0, 64)
	case *ast.ParenExpr:
		return evaluate(e.X, values)
	case *ast.Ident:
		if v := values[e.Name]; v != nil {
			return evaluate(v, values)
		}
	case *ast.SelectorExpr:
		if d, ok := map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour, "Millisecond": time.Millisecond}[e.Sel.Name]; ok {
			return int64(d), nil
		}
	case *ast.BinaryExpr:
		x, err := evaluate(e.X, values)
		if err != nil {
			return 0, err
		}
		y, err := evaluate(e.Y, values)
		switch e.Op {
		case token.ADD:
			return x + y, err
		case token.MUL:
			return x * y, err
		case token.SHL:
			return x << y, err
		}
	}
	return 0, fmt.Errorf("no constant %v", e)
}
