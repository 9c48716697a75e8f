// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// bomb doubles a list at each of n levels by aliases.
func bomb(n int) string {
	var b strings.Builder
	b.WriteString("apiVersion: outrigger.io/v1\nkind: Service\na0: &a0 [x, x]\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String()
}

func TestHostileDocumentsAreRefusedQuickly(t *testing.T) {
	head := "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: x}\nspec: "
	cases := []struct{ name, text, want string }{
		{"alias bomb", bomb(12), "after aliases are expanded"},
		{"deep brackets", head + strings.Repeat("[", 200_000), "nested more than"},
		{"deep braces", head + strings.Repeat("{a: ", 100_000), "nested more than"},
		{"deep dashes", head + "\n" + strings.Repeat("- ", 200_000), "nested more than"},
		{"deep questions", head + "\n" + strings.Repeat("? ", 200_000), "nested more than"},
		{"deep blocks", "kind: a\n" + deepBlocks(700), "nested more than"},
		{"many keys", strings.Repeat("k: v\n", 60_000), "more than 32768 tokens"},
		{"many keys below the limit", manyKeys(10_000), "unknown field"},
		{"many strings", strings.Repeat(`"a" `, 30_000), "yaml:"},
		{"many aliases", strings.Repeat("*a ", 15_000), "yaml:"},
		{"many anchors", strings.Repeat("&a ", 15_000), "yaml:"},
		{"many tags", strings.Repeat("!a ", 15_000), "yaml:"},
		{"deep JSON", `{"kind":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, "nested more than"},
		{"too large", head + "'" + strings.Repeat("a", MaxDocumentBytes) + "'", "the limit is 1048576"},
		{"long regex", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"r"},"spec":{"parentRefs":[{"kind":"Service","name":"a"}],"rules":[{"matches":[{"headers":[{"type":"RegularExpression","name":"a","value":"` + strings.Repeat("a?", 600) + `"}]}],"backendRefs":[{"name":"a"}]}]}}`, "the limit is 1024"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now() // far above what it takes, far below what the parser takes without the limits
			_, err := Parse("f", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: got %.200v, want one with %q", err, c.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			if err != nil && len(err.Error()) > 64<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func manyKeys(n int) string {
	b := bytes.NewBufferString("apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: x}\n")
	for i := range n {
		fmt.Fprintf(b, "k%d: v\n", i)
	}
	return b.String()
}

func deepBlocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func TestTooManyDocumentsAreRefused(t *testing.T) {
	if _, err := Parse("f", bytes.Repeat([]byte("---\n"), maxDocuments+1)); err == nil {
		t.Error("accepted")
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.[yj]*", "testdata/good/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(examples))
	f.Add([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"a","labels":{}},"spec":{"ports":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range ParseEach("f", data) {
			if (p.Object == nil) == (len(p.Errors) == 0) {
				t.Fatalf("neither an object nor errors, or both: %+v", p)
			}
			if p.Object == nil {
				continue
			}
			// What is accepted survives being stored and read again, unchanged.
			first, err := json.Marshal(p.Object)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseOne(first)
			if err != nil {
				t.Fatalf("accepted, and refused when read again: %v\n%s", err, first)
			}
			if second, err := json.Marshal(again); err != nil || !bytes.Equal(first, second) {
				t.Fatalf("changed when read again: %v\n%s\n%s", err, first, second)
			}
			Review(Empty().Apply(Change{Put: p.Object}), p.Object)
		}
	})
}

func TestTheRulesOfEveryKindAreSound(t *testing.T) {
	var walk func(reflect.Type, map[reflect.Type]bool)
	walk = func(t2 reflect.Type, seen map[reflect.Type]bool) {
		for t2.Kind() == reflect.Pointer || t2.Kind() == reflect.Slice {
			t2 = t2.Elem()
		}
		if t2.Kind() != reflect.Struct || seen[t2] || special[t2] != nil || t2 == unsupportedType {
			return
		}
		seen[t2] = true
		for _, f := range structFields(t2) {
			parseRules(f) // panics on a word it does not know
			if f.Type != reflect.PointerTo(unsupportedType) && f.Tag.Get("doc") == "" {
				t.Errorf("%s.%s has no doc tag", t2.Name(), f.Name)
			}
			walk(f.Type, seen)
		}
	}
	for _, k := range kinds {
		walk(reflect.TypeOf(k.New()), map[reflect.Type]bool{})
	}
}

func TestErrorsUnwrapToFieldErrors(t *testing.T) {
	_, err := Parse("f.yaml", []byte("kind: Nothing"))
	var fe *FieldError
	if !errors.As(err, &fe) || fe.Path != "kind" || fe.Line != 1 || fe.File != "f.yaml" {
		t.Errorf("got %+v", fe)
	}
}
