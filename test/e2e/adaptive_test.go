// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// limited is what a proxy with an adaptive limit of one request answers while that one
// is under way, and what it shows then.
func limited(t *testing.T, name string, start func(dir, text, admin string)) string {
	t.Helper()
	arrived, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	t.Cleanup(s.Close)
	admin, listen := mesh.FreeAddress(t), mesh.FreeAddress(t)
	start(t.TempDir(), mesh.Bootstrap{
		Admin: admin, Listen: listen,
		Routes: mesh.AllTo("c"),
		Filters: `
          - name: limit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
              gradient_controller_config:
                sample_aggregate_percentile: {value: 90}
                concurrency_limit_params: {concurrency_update_interval: 0.1s}
                min_rtt_calc_params: {interval: 60s, request_count: 1000, min_concurrency: 1}
              enabled: {default_value: true}
              concurrency_limit_exceeded_status: {code: TooManyRequests}
`,
		Clusters: mesh.StaticCluster("c", "", s.Listener.Addr().String()),
	}.String(), admin)

	get := func() string {
		resp, err := http.Get("http://" + listen + "/")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return fmt.Sprintln(resp.StatusCode, string(body))
	}
	first := make(chan string, 1)
	go func() { first <- get() }()
	<-arrived
	out := get()
	stats, err := mesh.Get("http://" + admin + "/stats?filter=adaptive_concurrency")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(stats), "\n")
	slices.Sort(lines)
	close(release)
	return out + <-first + strings.Join(lines, "\n")
}

// TestTheAdaptiveLimitIsEnvoys: the same configuration refuses the same request with
// the same answer, and shows the same stats.
func TestTheAdaptiveLimitIsEnvoys(t *testing.T) {
	mesh.NeedPeers(t)
	want := limited(t, "envoy", func(dir, text, admin string) { mesh.StartEnvoy(t, dir, text, admin) })
	got := limited(t, "sidecar", func(dir, text, admin string) { mesh.StartFile(t, dir, text, admin) })
	if got != want || !strings.Contains(got, "rq_blocked: 1") {
		t.Errorf("envoy:\n%s\nsidecar:\n%s", want, got)
	}
}
