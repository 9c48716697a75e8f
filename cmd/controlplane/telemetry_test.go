// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTheControlPlaneTracesItselfWhereTheEnvironmentSays(t *testing.T) {
	got := make(chan string, 16)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			got <- r.URL.Path + " " + string(body)
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	d := serveDaemon(t, t.TempDir())
	d.want(d.run("", "get", "taps"), 0)
	select {
	case body := <-got:
		if !strings.HasPrefix(body, "/v1/traces ") || !strings.Contains(body, "outrigger-controlplane") || !strings.Contains(body, "/v1/objects") {
			t.Errorf("got %q", body)
		}
	case <-time.After(20 * time.Second):
		t.Error("no span came")
	}
}

func TestAnExporterThatIsNotSupportedIsRefused(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "jaeger")
	r := run(t, "", "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if r.code != exitUsage || !strings.Contains(r.err, "OTEL_TRACES_EXPORTER") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
}
