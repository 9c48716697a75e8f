// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestAggregatesSpillAsEnvoysDo: the same clusters joined lead to the same shares, in the
// sidecar and in Envoy: members' priorities in order, by their health.
func TestAggregatesSpillAsEnvoysDo(t *testing.T) {
	// Each host answers with its member's name.
	server := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	member := func(name string, healthy, total int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "\n  - name: %s\n    type: STATIC\n    connect_timeout: 1s\n    load_assignment:\n      cluster_name: %[1]s\n      endpoints:\n      - lb_endpoints:", name)
		for i := range total {
			status := "HEALTHY"
			if i >= healthy {
				status = "UNHEALTHY"
			}
			fmt.Fprintf(&b, "\n        - {health_status: %s, endpoint: {address: %s}}", status, mesh.SocketAddress(server(name)))
		}
		return b.String()
	}
	aggregate := func(name string, members ...string) string {
		return fmt.Sprintf(`
  - name: %s
    connect_timeout: 1s
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.aggregate
      typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [%s]}`, name, strings.Join(members, ", "))
	}
	clusters := member("sound", 2, 2) + member("half", 2, 4) + member("third", 2, 6) + member("dead", 0, 2) +
		aggregate("all", "sound", "half") + aggregate("spills", "half", "sound") + aggregate("skips", "dead", "sound") +
		aggregate("twice", "third", "third2", "sound") + member("third2", 2, 6)
	want := map[string]map[string]float64{ // percent
		"all": {"sound": 100}, "spills": {"half": 70, "sound": 30}, "skips": {"sound": 100}, "twice": {"third": 46, "third2": 46, "sound": 8},
	}
	var routes strings.Builder
	for name := range want {
		fmt.Fprintf(&routes, "\n              - {match: {prefix: /%s}, route: {cluster: %[1]s}}", name)
	}
	mesh.Both(t, func(t *testing.T, program string) {
		admin, listen := mesh.FreeAddress(t), mesh.FreeAddress(t)
		text := mesh.Bootstrap{Admin: admin, Listen: listen, Routes: routes.String(), Clusters: clusters}.String()
		proxy := mesh.StartProxy(t, program, t.TempDir(), text, admin)
		proxy.Await(routeLimit, "the first answer", func() error {
			a, err := mesh.Call(listen, "x", "/all")
			if err == nil && a.Status != 200 {
				err = fmt.Errorf("status %d", a.Status)
			}
			return err
		})
		client := &http.Client{Timeout: routeLimit}
		defer client.CloseIdleConnections()
		for name, shares := range want {
			const n = 2000
			seen := map[string]float64{}
			for range n {
				resp, err := client.Get("http://" + listen + "/" + name)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				seen[string(b)] += 100.0 / n
			}
			for m, share := range shares {
				if seen[m] < share-5 || seen[m] > share+5 {
					t.Errorf("%s: %s gets %.1f%%, want %.0f%% (all: %v)", name, m, seen[m], share, seen)
				}
			}
			if len(seen) != len(shares) {
				t.Errorf("%s: answers of %v", name, seen)
			}
		}
	})
}
