// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func filters() *filter.Registry {
	return filter.NewRegistry(all.Specs(tap.NewHub(tap.HubConfig{Workers: 1}))...)
}

const bootstrapText = `
node: {id: from-file, cluster: c, locality: {zone: z}}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  clusters:
  - {name: one, type: STATIC, connect_timeout: 1s}
`

func TestFlagsReplaceWhatTheBootstrapSaysOfTheNode(t *testing.T) {
	path := write(t, bootstrapText)
	o, err := readLine(t, "-c "+path+" --service-node flag --service-zone zone")
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadBootstrap(&o, o.Node(), filters())
	if err != nil {
		t.Fatal(err)
	}
	if b.Node.ID != "flag" || b.Node.Cluster != "c" || b.Node.Zone != "zone" || len(b.Clusters) != 1 || b.Admin == nil {
		t.Errorf("got %+v", b)
	}
}

// With a limit, a sidecar whose control plane is away would be ready, without a listener,
// once that is over.
func TestTheControlPlanesFirstAnswerIsWaitedForForEver(t *testing.T) {
	o, err := readLine(t, "--service orders --controlplane 127.0.0.1:15010")
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadBootstrap(&o, o.Node(), filters())
	if err != nil {
		t.Fatal(err)
	}
	if b.LDS.InitialFetchTimeout != 0 || b.CDS.InitialFetchTimeout != 0 {
		t.Errorf("listeners are waited for for %v, clusters for %v; want no limit", b.LDS.InitialFetchTimeout, b.CDS.InitialFetchTimeout)
	}
}

func TestConfigYAMLIsLaidOverTheFile(t *testing.T) {
	path := write(t, bootstrapText)
	o := Options{ConfigPath: path, ConfigYAML: `{node: {id: over}, static_resources: {clusters: [{name: two, type: STATIC}]}}`}
	b, err := loadBootstrap(&o, o.Node(), filters())
	if err != nil {
		t.Fatal(err)
	}
	if b.Node.ID != "over" || b.Node.Cluster != "c" || len(b.Clusters) != 2 || b.Admin == nil {
		t.Errorf("got node %+v and %d clusters, want the fields merged and the lists joined", b.Node, len(b.Clusters))
	}
}

func TestADocumentReplacesMergesAndAppends(t *testing.T) {
	for _, tc := range []struct{ name, lower, upper, want string }{
		{"a field replaces", "{a: 1, b: 2}", "{a: 3}", "{a: 3, b: 2}"},
		{"an object merges", "{a: {x: 1, y: 2}}", "{a: {y: 3, z: 4}}", "{a: {x: 1, y: 3, z: 4}}"},
		{"a list is appended to", "{a: [1]}", "{a: [2]}", "{a: [1, 2]}"},
		{"kinds that differ replace", "{a: [1]}", "{a: {b: 1}}", "{a: {b: 1}}"},
		{"nothing below", "", "{a: 1}", "{a: 1}"},
		{"nothing above", "{a: 1}", "", "{a: 1}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			merged, err := mergeYAML("file", []byte(tc.lower), tc.upper)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := yaml.Unmarshal(merged, &got); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestABadBootstrapIsToldWithItsPlace(t *testing.T) {
	unknown := write(t, "node: {id: a}\nstatic_resources:\n  clusters:\n  - name: one\n    typo: 1\n")
	for _, tc := range []struct {
		name string
		o    Options
		want []string
	}{
		{"unknown field", Options{ConfigPath: unknown}, []string{unknown + ":5", "typo"}},
		{"broken file under text", Options{ConfigPath: write(t, "a: ["), ConfigYAML: "{}"}, []string{"bootstrap.yaml"}},
		{"broken text over a file", Options{ConfigPath: unknown, ConfigYAML: "a: ["}, []string{"--config-yaml"}},
		{"text alone", Options{ConfigYAML: "typo: 1"}, []string{"--config-yaml:1", "typo"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := loadBootstrap(&tc.o, tc.o.Node(), filters())
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

func TestABootstrapBeyondReasonIsNotRead(t *testing.T) {
	path := write(t, "")
	if err := os.Truncate(path, maxBootstrapBytes+1); err != nil {
		t.Fatal(err)
	}
	o := Options{ConfigPath: path}
	if _, err := loadBootstrap(&o, o.Node(), filters()); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("got %v, want the limit named", err)
	}
}
