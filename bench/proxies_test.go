// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

func TestTheMeshConfigurationDiffersOnlyInWhatEnvoyHasNot(t *testing.T) {
	written := func(sidecar, features bool, clusters int) map[string]any {
		t.Helper()
		s := settings{Name: "x", Listeners: plainAndTLS(), Upstreams: []upstream{{Name: "backend", Ports: []int{2, 3}}}, Collector: 4, AccessLog: os.DevNull, Features: features, Sidecar: sidecar, Clusters: manyClusters(clusters)}
		file, err := render("mesh.yaml.tmpl", s, filepath.Join(t.TempDir(), "mesh.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	clusters := func(m map[string]any) []any { return m["static_resources"].(map[string]any)["clusters"].([]any) }
	text := func(m any) string {
		b, err := yaml.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ours, envoys := written(true, true, 0), written(false, true, 0)
	if !strings.Contains(text(ours), "circuitBreaker") {
		t.Error("the sidecar has no circuit breaker")
	}
	delete(clusters(ours)[0].(map[string]any), "metadata")
	if a, b := text(ours), text(envoys); a != b {
		t.Errorf("they differ:\n%s\n%s", a, b)
	}
	bare := text(written(true, false, 0))
	if bare != text(written(false, false, 0)) {
		t.Error("without features they differ")
	}
	for _, feature := range []string{"access_log", "tracing", "retry_policy", "outlier_detection", "circuitBreaker"} {
		if strings.Contains(bare, feature) {
			t.Errorf("without features there is %s", feature)
		}
	}
	if n := len(clusters(written(true, true, 300))); n != 302 {
		t.Errorf("got %d clusters, want 302", n)
	}
}

// TestResilienceIsFeaturesAndMore: what sidecar-all has on is what it says.
func TestResilienceIsFeaturesAndMore(t *testing.T) {
	s := settings{Name: "x", Listeners: plainAndTLS(), Upstreams: []upstream{{Name: "backend", Ports: []int{2, 3}}}, Collector: 4, AccessLog: os.DevNull, Features: true, Resilience: true, Sidecar: true}
	file, err := render("mesh.yaml.tmpl", s, filepath.Join(t.TempDir(), "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, feature := range []string{"access_log", "tracing", "retry_back_off", "hedge_policy", "retry_budget", "health_checks", "enforcing_success_rate", "slow_start_config", "slowCallMs", "local_ratelimit", "adaptive_concurrency", "filters.http.fault"} {
		if !strings.Contains(string(text), feature) {
			t.Errorf("there is no %s", feature)
		}
	}
}

func TestManyClustersHaveTenEndpointsEachAllDifferent(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range manyClusters(7000) {
		if len(c.Endpoints) != 10 {
			t.Fatalf("%s has %d endpoints", c.Name, len(c.Endpoints))
		}
		for _, e := range append(c.Endpoints, c.Name) {
			if seen[e] || (e != c.Name && net.ParseIP(e) == nil) {
				t.Fatalf("%s: %q is there twice, or no address", c.Name, e)
			}
			seen[e] = true
		}
	}
}

func TestFreePortsAreDifferentAndFree(t *testing.T) {
	ports, err := freeport.Find(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] || p < 10_000 || p >= 32_000 {
			t.Errorf("port %d", p)
		}
		seen[p] = true
	}
}

func TestAMissingToolIsNamedWithWhatInstallsIt(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	if err := os.Symlink(goTool, filepath.Join(path, "go")); err != nil {
		t.Fatal(err)
	}
	root, err := output(t.Context(), goTool, "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOROOT", root) // a link does not lead there
	t.Setenv("PATH", path)
	_, err = findTools(t.Context(), Options{}, t.TempDir())
	if want := "wrk is not installed: run test/peers/benchtools install"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want one with %q", err, want)
	}
}
