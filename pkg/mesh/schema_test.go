// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaDir = "../../api/schemas"

func compiled(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	out := map[string]*jsonschema.Schema{}
	for _, k := range kinds {
		text, err := json.MarshalIndent(k.Schema(), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join(schemaDir, k.Name+".json"), string(text)+"\n")
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource(k.Name, doc); err != nil {
			t.Fatal(err)
		}
		if out[k.Name], err = c.Compile(k.Name); err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
	}
	return out
}

// instance is a document as a validator sees it.
func instance(t *testing.T, text []byte) map[string]any {
	t.Helper()
	body, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := v.(map[string]any)
	return m
}

func TestTheCheckedInSchemasAcceptWhatTheParserAccepts(t *testing.T) {
	schemas := compiled(t)
	good := []document{}
	for _, name := range []string{"testdata/good/json.json", "testdata/good/anchors.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		good = append(good, document{text: data})
	}
	for _, d := range append(splitDocuments([]byte(examples)), good...) {
		v := instance(t, d.text)
		if err := schemas[v["kind"].(string)].Validate(v); err != nil {
			t.Errorf("%v", err)
		}
		// And what the API answers for it.
		o := object(t, string(d.text))
		body, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := schemas[o.Key().Kind].Validate(instance(t, body)); err != nil {
			t.Errorf("as answered: %v", err)
		}
	}
}

func TestTheSchemasRefuseWrongFields(t *testing.T) {
	schemas := compiled(t)
	data, err := os.ReadFile("testdata/bad/fields.yaml")
	if err != nil {
		t.Fatal(err)
	}
	v := instance(t, data)
	if err := schemas["TrafficPolicy"].Validate(v); err == nil {
		t.Error("accepted")
	}
	delete(v, "spec")
	if err := schemas["TrafficPolicy"].Validate(v); err == nil {
		t.Error("accepted without spec")
	}
}
