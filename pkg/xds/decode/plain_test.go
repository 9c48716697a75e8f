// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// forms is a document in every form that the plain reader takes.
var forms = []string{
	"a: 1\nb:\n  c: x\n  d:\n  - e\n  - f: g\n    h: i\n  -\n    j: k\nl:\nm: []\nn: {}\n",
	"---\n# first\na: \"q\\\"\\\\ \\n\" # behind\n\nb: 'it''s'\n",
	"- a\n- - b\n  - c\n- {d: e, f: [1, 2.50, -3, 1s, 10.0.0.1]}\n",
	"a:\n- b\n- c\nd: /x/y:z\n",
	"a: type.googleapis.com/b.C\nb: a b, c\nc: 1_000\nd: 0x10\ne: 017\nf: 1e3\ng: 1.\nh: +1\ni: -0.5\nj: 5xx\nk: 00:01\n",
	"{\"a\": 1, \"b\":[true,false, null ,\"x\"],\n\"c\":{\n}\n}\n",
	"a: {b: c,\n    d: [e,\n     f]}\ng: yes\n",
	"a: \"\"\nb: ''\n",
	"\"@type\": x\na: x  \n",
}

// TestAColonWithoutASpaceIsNoPair: both readers have to take it for a part of the text,
// though the parser behind one of them does not within braces.
func TestAColonWithoutASpaceIsNoPair(t *testing.T) {
	for in, want := range map[string]string{
		"{d: [a:b]}":              `5 "" "d":(4 ""(3 "a:b"))`,
		"{d: [host:8080, \"*\"]}": `5 "" "d":(4 ""(3 "host:8080")(3 "*"))`,
		"{d: [ a :b , 1:true]}":   `5 "" "d":(4 ""(3 "a :b")(3 "1:true"))`,
		"{d: [a:b:c, x/y:1]}":     `5 "" "d":(4 ""(3 "a:b:c")(3 "x/y:1"))`,
		"{d: {e: [[10:50]]}}":     `5 "" "d":(5 "" "e":(4 ""(4 ""(3 "10:50"))))`,
		"{d: [a: b]}":             `5 "" "d":(4 ""(5 "" "a":(3 "b")))`,
		"{d: [\"a\":b]}":          `5 "" "d":(4 ""(5 "" "a":(3 "b")))`,
		"{d: [h:&q 1]}":           `5 "" "d":(4 ""(5 "" "h":(2 "1")))`,
		"{d: [{a: b:c}]}":         `5 "" "d":(4 ""(5 "" "a":(3 "b:c")))`,
	} {
		got, bad := parseTree([]byte(in))
		if bad != nil || text(got) != want {
			t.Errorf("%s: got %v %v, want %s", in, text(got), bad, want)
		}
		samePlain(t, []byte(in))
	}
}

func TestKeysAreText(t *testing.T) {
	for _, in := range []string{"&q a: 1\n", "{d: [&q h:1]}", "? a\n: b\n", "!!str a: 1\n"} {
		if n, bad := parseTree([]byte(in)); bad == nil || !strings.Contains(bad.Reason, "not accepted") {
			t.Errorf("%q: got %v %v", in, n, bad)
		}
	}
}

// refused are documents that the plain reader must leave to the full parser.
var refused = []string{
	"", "# only\n", "a: b: c\n", "a: &x b\n", "a: *x\n", "a: !t b\n", "a: |\n  b\n", "a: >\n  b\n", "a:\tb\n", "a: b\r\n",
	"a: b\n  c\n", "a: \"b\n  c\"\n", "a: ~\n", "a: True\n", "a: .inf\n", "a: b\n---\nc: d\n", "a: b\n...\n", "? a\n: b\n",
	"<<: {}\n", "a: [b\n", "a: {b}\n", "[a,]\n", "a: b\n c: d\n", "a: b]\n", "a: \"\\x41\"\n", "\xef\xbb\xbfa: b\n", "text\n", "a:\n  b\n", "a:\n-\nb: c\n",
	"{\"a\":/}", "{\"a\":/,\"b\":{\n}\n}", "{\"a\":'b'}", "{\"a\":_}",
}

func TestThePlainReaderTakesCommonDocuments(t *testing.T) {
	for _, in := range forms {
		if _, ok := readPlain([]byte(in)); !ok {
			t.Errorf("left to the full parser:\n%s", in)
			continue
		}
		samePlain(t, []byte(in))
	}
}

func TestThePlainReaderLeavesTheRestToTheFullParser(t *testing.T) {
	for _, in := range refused {
		if _, ok := readPlain([]byte(in)); ok {
			t.Errorf("taken: %q", in)
		}
	}
}

// samePlain fails if the plain reader takes a document and reads anything else
// than the full parser. Keys that come twice are found when a tree or the wire is
// made.
func samePlain(t *testing.T, in []byte) {
	t.Helper()
	nodes, ok := readPlain(in)
	if !ok {
		return
	}
	got := treeOf(nodes, 0)
	if got == nil {
		return
	}
	want, bad := parseTree(in)
	if bad != nil {
		t.Fatalf("taken, and the full parser refuses it: %s\n%q", bad, in)
	}
	if text(want) != text(got) {
		t.Fatalf("%q\nfull parser:  %s\nplain reader: %s", in, text(want), text(got))
	}
}

// text is a tree without its lines.
func text(n *node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %q", n.kind, n.text)
	for i, e := range n.items {
		if n.kind == mapNode {
			fmt.Fprintf(&b, " %q:", n.keys[i])
		}
		fmt.Fprintf(&b, "(%s)", text(e))
	}
	return b.String()
}

func FuzzThePlainReaderAgreesWithTheFullParser(f *testing.F) {
	for _, in := range append(forms, refused...) {
		f.Add([]byte(in))
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(samePlain)
}
