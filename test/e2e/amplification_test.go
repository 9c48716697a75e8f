// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// retryAll has nothing but the budget of the mesh's defaults between a dead service and
// its callers' retries.
const retryAll = `apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: %[1]s}
spec:
  targetRef: {kind: Service, name: %[1]s}
  retries: {attempts: 3, on: ["5xx"]}
  circuitBreaker: {enabled: false}
  outlierDetection: {consecutive5xx: 0}
`

// member starts a sidecar for an application in this process, and waits until it is
// registered.
func member(t *testing.T, m *mesh.Mesh, service string, app http.HandlerFunc) *mesh.Sidecar {
	t.Helper()
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	s := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{
		Service: service, ID: service + "-1", App: strings.TrimPrefix(server.URL, "http://"), XDS: m.ControlPlane.XDS,
	})
	s.AwaitReady()
	m.AwaitInstance(service, service+"-1", true)
	return s
}

// TestADeadServiceBehindThreeSidecarsGetsFewRetries: web calls front, which calls back,
// which calls dead; each caller's sidecar retries on 5xx up to three times, so that one
// request could become 64 calls. Circuits, which would end it sooner, are off.
func TestADeadServiceBehindThreeSidecarsGetsFewRetries(t *testing.T) {
	const requests, callers, most = 400, 4, 1.25
	m := mesh.New(t)
	var calls, own, dead atomic.Int64
	dead.Store(http.StatusOK)
	fails := func(w http.ResponseWriter, r *http.Request) bool { // by itself
		if r.URL.Path != "/fail" {
			return false
		}
		own.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	member(t, m, "dead", func(w http.ResponseWriter, r *http.Request) {
		if fails(w, r) {
			return
		}
		calls.Add(1)
		w.WriteHeader(int(dead.Load()))
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	call := func(address, host, path string, from http.Header) (int, error) {
		q, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			return 0, err
		}
		q.Host = host
		for _, name := range []string{"X-Request-Id", "Traceparent"} { // what traced applications pass on
			if v := from.Get(name); v != "" {
				q.Header.Set(name, v)
			}
		}
		resp, err := client.Do(q)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Body.Close()
	}
	forward := func(outbound *atomic.Value, to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if fails(w, r) {
				return
			}
			address, _ := outbound.Load().(string)
			status, err := call(address, to, "/", r.Header)
			if err != nil {
				status = http.StatusInternalServerError
			}
			w.WriteHeader(status)
		}
	}
	var ofBack, ofFront atomic.Value
	ofBack.Store(member(t, m, "back", forward(&ofBack, "dead")).Outbound)
	ofFront.Store(member(t, m, "front", forward(&ofFront, "back")).Outbound)
	web := m.Caller("web-1")
	for _, s := range []string{"front", "back", "dead"} {
		m.ControlPlane.PutYAML("TrafficPolicy", s, fmt.Sprintf(retryAll, s))
	}
	for _, hop := range []struct{ outbound, host string }{{web.Outbound, "front"}, {ofFront.Load().(string), "back"}, {ofBack.Load().(string), "dead"}} {
		mesh.Await(t, routeLimit, "the policy of "+hop.host, func() error {
			before := own.Load()
			if status, err := call(hop.outbound, hop.host, "/fail", nil); err != nil || status != http.StatusInternalServerError {
				return fmt.Errorf("status %d: %v", status, err)
			}
			if n := own.Load() - before; n != 4 {
				return fmt.Errorf("%d calls, want 4", n)
			}
			return nil
		})
	}
	// What works pays for retries: all reserves are full when it ends.
	for range 200 {
		if status, err := call(web.Outbound, "front", "/", nil); err != nil || status != http.StatusOK {
			t.Fatalf("status %d: %v", status, err)
		}
	}
	dead.Store(http.StatusInternalServerError)
	before := calls.Load()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range requests / callers {
				if status, err := call(web.Outbound, "front", "/", nil); err != nil || status != http.StatusInternalServerError {
					t.Errorf("status %d: %v", status, err)
				}
			}
		})
	}
	wg.Wait()
	got := float64(calls.Load()-before) / requests
	if got >= most {
		t.Errorf("%.2f calls of a dead service for each request, want fewer than %.2f", got, most)
	}
	mesh.Conformance(t, "amplification", "%.2f calls of a dead service for each request", got)
}
