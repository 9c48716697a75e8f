// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// filtered is a proxy that answers health checks at several paths.
func filtered(admin, listen, app string) string {
	filter := func(path, config string) string {
		return `
          - name: "health` + path + `"
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, headers: [{name: ":path", string_match: {exact: ` + path + `}}], ` + config + `}`
	}
	return mesh.Bootstrap{
		Admin: admin, Listen: listen, Service: "own-service",
		Routes: mesh.AllTo("web"),
		Filters: filter("/own", "pass_through_mode: false") +
			filter("/enough", "pass_through_mode: false, cluster_min_healthy_percentages: {web: {value: 50}}") +
			filter("/nobody", "pass_through_mode: false, cluster_min_healthy_percentages: {other: {value: 1}}") +
			filter("/through", "pass_through_mode: true") +
			filter("/kept", "pass_through_mode: true, cache_time: 600s"),
		Clusters: mesh.StaticCluster("web", "", app),
	}.String()
}

// answers asks at all paths, while health checks pass, fail and pass again.
func answers(t *testing.T, admin, listen string, app *watchedApp) (out []string) {
	t.Helper()
	for _, state := range []string{"", "fail", "ok"} {
		if state != "" {
			if a, err := mesh.Do(http.MethodPost, "http://"+admin+"/healthcheck/"+state, "", ""); err != nil || a.Status != 200 {
				t.Fatalf("/healthcheck/%s: %v %d", state, err, a.Status)
			}
		}
		for _, path := range []string{"/own", "/enough", "/nobody", "/through", "/kept", "/kept", "/other"} {
			was := app.served.Load()
			r, err := http.Get("http://" + listen + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Body.Close()
			line := fmt.Sprintf("%-5s %-8s %d, upstream asked %d times", state, path, r.StatusCode, app.served.Load()-was)
			for _, name := range []string{"X-Envoy-Upstream-Healthchecked-Cluster", "X-Envoy-Immediate-Health-Check-Fail", "X-Envoy-Degraded"} {
				if v := r.Header.Values(name); len(v) > 0 {
					line += ", " + name + " " + strings.Join(v, ",")
				}
			}
			out = append(out, line)
		}
	}
	return out
}

func TestTheFilterOfHealthChecksAnswers(t *testing.T) {
	dir, app := t.TempDir(), startWatched(t)
	admin, listen := mesh.FreeAddress(t), mesh.FreeAddress(t)
	mesh.StartFile(t, dir, filtered(admin, listen, app.address), admin)
	got := answers(t, admin, listen, app)
	for i, want := range []string{
		"/own     200, upstream asked 0 times, X-Envoy-Upstream-Healthchecked-Cluster own-service",
		"/enough  200, upstream asked 0 times", "/nobody  503, upstream asked 0 times", "/through 200, upstream asked 1 times",
		"/kept    200, upstream asked 1 times", "/kept    200, upstream asked 0 times", "/other   200, upstream asked 1 times",
		"/own     503", "/enough  503", "/nobody  503", "/through 503, upstream asked 0 times", "/kept    503", "/kept    503",
		"/other   200, upstream asked 1 times, X-Envoy-Immediate-Health-Check-Fail true",
		"/own     200",
	} {
		if !strings.Contains(got[i], want) {
			t.Errorf("got  %s\nwant %s", got[i], want)
		}
	}
	t.Run("as Envoy's", func(t *testing.T) {
		mesh.NeedPeers(t)
		dir, admin, listen := t.TempDir(), mesh.FreeAddress(t), mesh.FreeAddress(t)
		mesh.StartEnvoy(t, dir, filtered(admin, listen, app.address), admin)
		envoys := answers(t, admin, listen, app)
		// Two differences are meant. In Envoy the other filters of the chain, for which it is an
		// ordinary request, say that checks fail; and an answer of its own while they fail is
		// kept as if it were the upstream's, and given when they pass again.
		for _, list := range [][]string{got, envoys} {
			for i, line := range list {
				if !strings.Contains(line, "/other") {
					line, _ = strings.CutSuffix(line, ", X-Envoy-Immediate-Health-Check-Fail true")
				}
				if strings.HasPrefix(line, "ok    /kept") {
					line = "ok    /kept"
				}
				list[i] = line
			}
		}
		if !slices.Equal(got, envoys) {
			t.Errorf("ours\n%s\nEnvoy's\n%s", strings.Join(got, "\n"), strings.Join(envoys, "\n"))
		}
	})
}
