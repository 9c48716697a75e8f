// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

var update = flag.Bool("update", false, "write the golden files")

var matchAny registry.Match

func TestTheCheckedInOpenAPIDocumentIsTheOneThatIsServed(t *testing.T) {
	a := newAPI(t, nil)
	r := a.do("GET", "/openapi.json", "")
	a.want(r, 200)
	var doc any
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../../api/openapi.json"
	if *update {
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)+"\n"); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryReferenceOfTheDocumentLeadsSomewhere(t *testing.T) {
	a := newAPI(t, nil)
	body, err := json.Marshal(a.server.Document())
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	count := 0
	var walk func(any)
	walk = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			if r, ok := x["$ref"].(string); ok {
				count++
				var at any = doc
				for part := range strings.SplitSeq(strings.TrimPrefix(r, "#/"), "/") {
					at = at.(map[string]any)[part]
					if at == nil {
						t.Fatalf("%s leads nowhere", r)
					}
				}
			}
			for _, item := range x {
				walk(item)
			}
		case []any:
			for _, item := range x {
				walk(item)
			}
		}
	}
	walk(doc)
	if count < 20 {
		t.Errorf("only %d references", count)
	}
}

func TestEveryKindHasASchemaAtItsPath(t *testing.T) {
	a := newAPI(t, nil)
	for _, k := range mesh.Kinds() {
		r := a.do("GET", "/v1/schemas/"+k.Name, "")
		a.want(r, 200, `"title":"`+k.Name+`"`)
		a.want(a.do("GET", "/v1/schemas", ""), 200, `"/v1/schemas/`+k.Name+`"`)
	}
}
