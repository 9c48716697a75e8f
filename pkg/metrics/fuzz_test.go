// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzNamesOfConfigurationsStayInTheirLabel: names come from a control plane and
// may be anything; none may break out of its label or its line.
func FuzzNamesOfConfigurationsStayInTheirLabel(f *testing.F) {
	for _, s := range []string{"orders", "", "a\"} 1\nevil 2\n", "\\", "\\n", "\xff\xfe", "\u2028", strings.Repeat("\\\"ü", 400), "a\x00b\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		var b bytes.Buffer
		err := WritePrometheus(&b, []Sample{{Scope: NewScope("cluster."+name, "cluster", Tag{"envoy_cluster_name", name}), Name: "x", Help: name, Value: 7}})
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(b.Bytes()) {
			t.Fatal("no UTF-8")
		}
		lines := strings.Split(b.String(), "\n")
		if len(lines) != 4 || lines[3] != "" || lines[1] != "# TYPE envoy_cluster_x untyped" {
			t.Fatalf("lines: %q", lines)
		}
		value, ok := strings.CutPrefix(lines[2], `envoy_cluster_x{envoy_cluster_name="`)
		value, end := strings.CutSuffix(value, `"} 7`)
		if !ok || !end {
			t.Fatalf("series: %q", lines[2])
		}
		var back strings.Builder
		for i := 0; i < len(value); i++ {
			switch c := value[i]; c {
			case '"':
				t.Fatalf("a quote that is not escaped: %q", value)
			case '\\':
				i++
				if i == len(value) || !strings.ContainsRune(`\"n`, rune(value[i])) {
					t.Fatalf("a wrong escape: %q", value)
				}
				back.WriteByte(strings.NewReplacer("n", "\n").Replace(value[i : i+1])[0])
			default:
				back.WriteByte(c)
			}
		}
		if want := strings.ToValidUTF8(name, "\uFFFD"); len(want) <= maxLabelBytes && back.String() != want {
			t.Errorf("read back %q, want %q", back.String(), want)
		}
	})
}
