// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// outlierEvents are the events in a file, without what depends on time.
func outlierEvents(path string) (out []map[string]any, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		stamp, _ := e["timestamp"].(string)
		if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
			return nil, fmt.Errorf("%q: timestamp: %w", line, err)
		}
		if secs, ok := e["secs_since_last_action"]; ok {
			if _, isText := secs.(string); !isText {
				return nil, fmt.Errorf("%q: secs_since_last_action is no text", line)
			}
			e["secs_since_last_action"] = "some"
		}
		delete(e, "timestamp")
		out = append(out, e)
	}
	return out, nil
}

// TestTheLogOfEjectionsIsEnvoys: the same answers lead to the same lines, of the sidecar
// and of Envoy, and to a new file once logs are opened anew.
func TestTheLogOfEjectionsIsEnvoys(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer app.Close()
	upstream := app.Listener.Addr().String()
	event := func(typ, action string, ejections int, enforced bool, more map[string]any) map[string]any {
		e := map[string]any{"type": typ, "cluster_name": "c", "upstream_url": upstream, "action": action, "num_ejections": float64(ejections), "enforced": enforced}
		maps.Copy(e, more)
		return e
	}
	since, consecutive := map[string]any{"secs_since_last_action": "some"}, map[string]any{"eject_consecutive_event": map[string]any{}}
	both := map[string]any{"secs_since_last_action": "some", "eject_consecutive_event": map[string]any{}}
	first := []map[string]any{
		event("CONSECUTIVE_GATEWAY_FAILURE", "EJECT", 0, false, consecutive),
		event("CONSECUTIVE_5XX", "EJECT", 1, true, consecutive),
		event("CONSECUTIVE_5XX", "UNEJECT", 1, false, since),
	}
	second := []map[string]any{
		event("CONSECUTIVE_GATEWAY_FAILURE", "EJECT", 1, false, both),
		event("CONSECUTIVE_5XX", "EJECT", 2, true, both),
		event("CONSECUTIVE_5XX", "UNEJECT", 2, false, since),
	}
	mesh.Both(t, func(t *testing.T, program string) {
		f := newOfFiles(t)
		path := filepath.Join(f.dir, "ejections.log")
		f.start(program, mesh.Bootstrap{
			Top:    "cluster_manager: {outlier_detection: {event_log_path: " + path + "}}",
			Routes: mesh.AllTo("c"),
			Clusters: mesh.StaticCluster("c",
				"    outlier_detection: {consecutive_5xx: 3, interval: 0.1s, base_ejection_time: 0.1s, max_ejection_percent: 100, enforcing_consecutive_gateway_failure: 0, consecutive_gateway_failure: 2}",
				upstream),
		})
		fails := func(want []map[string]any) {
			t.Helper()
			for range 3 {
				if a, err := mesh.Call(f.listen, "a", "/"); err != nil || a.Status != http.StatusServiceUnavailable {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			f.proxy.Await(routeLimit, "the events of an ejection and a return", func() error {
				got, err := outlierEvents(path)
				if err == nil && !slices.EqualFunc(got, want, func(a, b map[string]any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
					err = fmt.Errorf("got %v, want %v", got, want)
				}
				return err
			})
		}
		fails(first)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post("http://"+f.admin+"/reopen_logs", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", resp.Status, err)
		}
		fails(second)
	})
}
