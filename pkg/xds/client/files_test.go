// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// fileBootstrap takes clusters and listeners from files in a folder.
func fileBootstrap(dir string) string {
	return fmt.Sprintf(`
node: {id: test-id, cluster: c}
dynamic_resources:
  cds_config: {path_config_source: {path: %[1]s/cds.yaml}}
  lds_config: {path_config_source: {path: %[1]s/lds.json}}
`, dir)
}

func cdsFile(names ...string) string {
	var b strings.Builder
	b.WriteString("resources:\n")
	for _, n := range names {
		fmt.Fprintf(&b, `- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: %[1]s
  connect_timeout: {nanos: 250000000}
  load_assignment: {cluster_name: %[1]s, endpoints: {lb_endpoints: {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}}}
`, n)
	}
	return b.String()
}

const ldsFile = `{"version_info": "7", "resources": [{
  "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "in",
  "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9000}},
  "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "t", "cluster": "a"}}]}]}]}
`

// replace writes a file next to the path and renames it, as editors do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func has(names ...string) func(*resource.Snapshot) bool {
	return func(s *resource.Snapshot) bool {
		for _, n := range names {
			if s.Clusters[n] == nil {
				return false
			}
		}
		return len(s.Clusters) == len(names)
	}
}

func TestFilesAreFollowedThroughRenames(t *testing.T) {
	dir := t.TempDir()
	replace(t, filepath.Join(dir, "cds.yaml"), cdsFile("a"))
	replace(t, filepath.Join(dir, "lds.json"), ldsFile)
	c := start(t, fileBootstrap(dir), settings{})
	s := c.wait(t, "the first cluster", has("a"))
	if s.Listeners["in"] == nil || s.Versions["lds"] != "7" || s.Versions["cds"] == "" {
		t.Errorf("got %+v", s)
	}
	replace(t, filepath.Join(dir, "cds.yaml"), cdsFile("a", "b"))
	c.wait(t, "the second cluster", has("a", "b"))

	// A broken file changes nothing and is reported with its line.
	replace(t, filepath.Join(dir, "cds.yaml"), strings.Replace(cdsFile("a"), "name: a", "nome: a", 1))
	waitStatus(t, c.client, "broken", func(st client.Status) bool {
		return strings.Contains(st.Sources[0].LastError+st.Sources[1].LastError, "cds.yaml:3: resources[0].nome: unknown field")
	})
	// So does a refused resource, and the good one beside it is taken.
	replace(t, filepath.Join(dir, "cds.yaml"), cdsFile("a", "c")+"- {\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, lb_policy: CLUSTER_PROVIDED}\n")
	c.wait(t, "the third cluster", has("a", "b", "c"))
	if st := c.client.Status(); len(st.Refused) != 1 || st.Refused[0].Name != "b" {
		t.Errorf("Refused is %+v", st.Refused)
	}
}

// Kubernetes mounts a ConfigMap as symbolic links into a folder that is itself
// reached by one, and swaps that.
func TestFilesAreFollowedThroughSwappedSymlinks(t *testing.T) {
	dir := t.TempDir()
	version := func(n string, clusters ...string) {
		v := filepath.Join(dir, n)
		if err := os.Mkdir(v, 0o700); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(v, "cds.yaml"), cdsFile(clusters...))
		replace(t, filepath.Join(v, "lds.json"), ldsFile)
		if err := os.Symlink(n, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "a")
	for _, f := range []string{"cds.yaml", "lds.json"} {
		if err := os.Symlink(filepath.Join("..data", f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	c := start(t, fileBootstrap(dir), settings{})
	c.wait(t, "the first version", has("a"))
	version("..2", "a", "b")
	c.wait(t, "the second version", has("a", "b"))
}

func TestAFileThatComesLaterIsRead(t *testing.T) {
	dir := t.TempDir()
	replace(t, filepath.Join(dir, "lds.json"), ldsFile)
	c := start(t, fileBootstrap(dir), settings{})
	waitStatus(t, c.client, "missing a file", func(st client.Status) bool {
		return len(st.Sources) == 2 && strings.Contains(st.Sources[0].LastError+st.Sources[1].LastError, "no such file")
	})
	replace(t, filepath.Join(dir, "cds.yaml"), cdsFile("a"))
	c.wait(t, "the cluster", has("a"))
}
