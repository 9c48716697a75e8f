// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestBadInputIsRefusedWithFileLineAndField(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.[yj]*")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range ParseEach(filepath.Base(f), data) {
				if p.Object != nil || len(p.Errors) == 0 {
					t.Errorf("document %d was accepted: %+v", i, p.Object)
				}
			}
			_, err = Parse(filepath.Base(f), data)
			if err == nil {
				t.Fatal("accepted")
			}
			golden(t, strings.TrimSuffix(f, filepath.Ext(f))+".golden", err.Error()+"\n")
		})
	}
}

func TestGoodInputIsAccepted(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	shown, err := filepath.Glob("../../examples/objects/*.yaml")
	if err != nil || len(shown) == 0 {
		t.Fatal("no examples", err)
	}
	for _, f := range append(files, shown...) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f, data); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
