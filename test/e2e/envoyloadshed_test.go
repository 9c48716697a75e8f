// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// injected is the monitor of a pressure that a file says.
func injected(path string) string {
	return `overload_manager:
  refresh_interval: 0.1s
  resource_monitors:
  - {name: envoy.resource_monitors.injected_resource, typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig, filename: ` + path + `}}
`
}

// loadShedCases are the points with what a new connection and one that was used before
// get, and what counts it. They differ from Envoy where envoy is set.
var loadShedCases = []struct {
	point, fresh, used, envoy string
	stats                     map[string]string
}{
	{"tcp_listener_accept", "end", "200", "", map[string]string{"shed_load_count": "1"}},
	{"hcm_ondata_creating_codec", "end", "200", "", map[string]string{"http.in.downstream_rq_overload_close": "1", "shed_load_count": "1"}},
	{"http1_server_abort_dispatch", "503 end", "503 end", "500 end", map[string]string{"http.in.downstream_rq_overload_close": "2", "shed_load_count": "2"}},
	{"http_connection_manager_decode_headers", "503", "503", "", map[string]string{"http.in.downstream_rq_overload_close": "2", "shed_load_count": "2"}},
	{"http_downstream_filter_check", "503", "503", "", map[string]string{"http.in.downstream_rq_overload_close": "0", "http.in.rq_overload_local_reply": "2", "shed_load_count": "2"}},
}

// TestLoadShedPointsAreEnvoys: the same bootstrap sheds the same, of the sidecar and of
// Envoy.
func TestLoadShedPointsAreEnvoys(t *testing.T) {
	mesh.Both(t, func(t *testing.T, program string) {
		for _, tt := range loadShedCases {
			t.Run(tt.point, func(t *testing.T) {
				f := newOfFiles(t)
				f.write("pressure", "0")
				f.start(program, mesh.Bootstrap{
					Top:      injected(filepath.Join(f.dir, "pressure")) + "  loadshed_points: [{name: envoy.load_shed_points." + tt.point + ", triggers: [{name: envoy.resource_monitors.injected_resource, threshold: {value: 0.9}}]}]",
					Routes:   mesh.AllTo("c"),
					Clusters: mesh.StaticCluster("c", "", f.admin),
				})
				used := shedDial(t, f.listen)
				if got := used.get(); got != "200" {
					t.Fatalf("without pressure there is %s", got)
				}
				f.write("pressure", "0.95")
				scope := "overload.envoy.load_shed_points." + tt.point + "."
				f.proxy.Await(routeLimit, "overload", func() error {
					if got := f.stat(scope + "scale_percent"); got != "100" {
						return fmt.Errorf("scale_percent is %s", got)
					}
					return nil
				})
				fresh, old := tt.fresh, tt.used
				if program == "envoy" && tt.envoy != "" {
					fresh, old = tt.envoy, tt.envoy
				}
				if got := shedDial(t, f.listen).get(); got != fresh {
					t.Errorf("a new connection gets %q, want %q", got, fresh)
				}
				if got := used.get(); got != old {
					t.Errorf("a used connection gets %q, want %q", got, old)
				}
				for name, want := range tt.stats {
					if !strings.Contains(name, ".") {
						name = scope + name
					}
					if got := f.stat(name); got != want {
						t.Errorf("%s is %s, want %s", name, got, want)
					}
				}
			})
		}
	})
}

// shedConn is a connection of HTTP/1.1.
type shedConn struct {
	net.Conn
	in *bufio.Reader
}

func shedDial(t *testing.T, address string) *shedConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &shedConn{c, bufio.NewReader(c)}
}

// get asks once, and says with which status it was answered and whether the connection
// ended.
func (c *shedConn) get() string {
	io.WriteString(c, "GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") // an error shows when reading
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "end"
	}
	io.Copy(io.Discard, resp.Body)
	if resp.Close {
		return fmt.Sprint(resp.StatusCode, " end")
	}
	return fmt.Sprint(resp.StatusCode)
}
