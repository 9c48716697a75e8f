// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Real clients of both protocols lose no request when their connection ends with a
// response, and make another one.
func TestConnectionsOfBothProtocolsEndUnderPressureAndLoseNothing(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "pressure")
		if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := resource.Overload{
			Refresh:  time.Hour,
			Monitors: []resource.OverloadMonitor{{Name: "file", Kind: resource.MonitorFile, Max: 1, File: file}},
			Actions:  []resource.OverloadAction{act(resource.ActionDisableKeepAlive, 1, 1)},
		}
		b := backend(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
		r := newRigOf(t, Options{Workers: 1, Overload: o}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
		client, fresh := protocolClient(t, http2), 0
		get := func() {
			t.Helper()
			req, err := http.NewRequest(http.MethodGet, "http://"+r.addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
				if !i.Reused {
					fresh++
				}
			}}
			resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
			if err != nil {
				t.Fatalf("http2 %v: %v", http2, err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "hello" {
				t.Fatalf("http2 %v: %q, %v", http2, body, err)
			}
		}
		get()
		get()
		if fresh != 1 {
			t.Fatalf("http2 %v: %d connections without pressure", http2, fresh)
		}
		if err := os.WriteFile(file, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.p.updateOverload(0)
		get()
		eventually(t, "the connection's end", func() bool { return r.p.connections.Load() == 0 })
		get()
		if fresh != 2 {
			t.Errorf("http2 %v: %d connections", http2, fresh)
		}
		if n := r.stat("http.test.downstream_cx_overload_disable_keepalive"); n != 2 {
			t.Errorf("http2 %v: %d connections were ended", http2, n)
		}
	}
}
