// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const healthPolicy = `apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  healthCheck: {http: {path: /healthz}, interval: 200ms, timeout: 300ms, unhealthyThreshold: 2, healthyThreshold: 1}
`

// watchedApp counts who asks for its health.
type watchedApp struct {
	address string
	status  atomic.Int32
	checks  atomic.Int32
	served  atomic.Int32
	hangs   atomic.Bool
}

func startWatched(t *testing.T) *watchedApp {
	a := &watchedApp{}
	a.status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			a.served.Add(1)
			return
		}
		a.checks.Add(1)
		if a.hangs.Load() {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(int(a.status.Load()))
	}))
	t.Cleanup(s.Close)
	a.address = s.Listener.Addr().String()
	return a
}

// leaves waits until the caller's sidecar sends nothing to an application, and comes
// until it does again. Every request is answered.
func (a *watchedApp) leaves(t *testing.T, caller *mesh.Sidecar, limit time.Duration) {
	t.Helper()
	took := mesh.Await(t, 20*time.Second, "an instance that fails its health check gets no requests", func() error {
		before := a.served.Load()
		for range 10 {
			if r, err := mesh.Call(caller.Outbound, "orders", "/"); err != nil || r.Status != 200 {
				t.Fatalf("a request failed: %v %+v", err, r)
			}
		}
		if n := a.served.Load() - before; n > 0 {
			return fmt.Errorf("%d of 10", n)
		}
		return nil
	})
	if took > limit {
		t.Errorf("it took %v", took)
	}
	t.Logf("left after %v", took)
}

func (a *watchedApp) comes(t *testing.T, caller *mesh.Sidecar) {
	t.Helper()
	mesh.Await(t, 20*time.Second, "an instance that is well again gets requests", func() error {
		before := a.served.Load()
		for range 10 {
			if r, err := mesh.Call(caller.Outbound, "orders", "/"); err != nil || r.Status != 200 {
				t.Fatalf("a request failed: %v %+v", err, r)
			}
		}
		if a.served.Load() == before {
			return fmt.Errorf("none of 10")
		}
		return nil
	})
}

func TestAPolicysHealthCheckIsMadeOnceForEachInstance(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.ControlPlane.PutYAML("TrafficPolicy", "orders", healthPolicy)
	// One without a sidecar, which the callers check, and one with, which its own sidecar does.
	bare, beside := startWatched(t), startWatched(t)
	m.ControlPlane.PutInstance("orders", "bare", bare.address)
	s := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "orders", ID: "beside", App: beside.address, XDS: m.ControlPlane.XDS})
	s.AwaitReady()
	m.AwaitInstance("orders", "beside", true)
	callers := []*mesh.Sidecar{m.Caller("web-1"), m.Caller("web-2")}
	for _, c := range callers {
		bare.comes(t, c)
		beside.comes(t, c)
	}

	for name, a := range map[string]*watchedApp{"without a sidecar": bare, "with a sidecar": beside} {
		a.status.Store(503)
		a.leaves(t, callers[0], 5*time.Second)
		a.status.Store(200)
		a.comes(t, callers[0])
		a.hangs.Store(true)
		a.leaves(t, callers[0], 8*time.Second)
		a.hangs.Store(false)
		a.comes(t, callers[0])
		t.Log(name + ": left and came back")
	}

	// The application that has a sidecar is asked by nobody else.
	for _, c := range callers {
		text, err := mesh.Get("http://" + c.Admin + "/clusters")
		if err != nil || !strings.Contains(text, "outbound|orders::"+bare.address+"::health_flags::healthy\n") || !strings.Contains(text, "outbound|orders::"+s.Inbound+"::health_flags::healthy\n") {
			t.Errorf("%v\n%s", err, text)
		}
		stats, err := c.Stats()
		if err != nil || stats["cluster.outbound|orders.health_check.healthy"] != 1 {
			t.Errorf("%v: %d instances are checked by a caller", err, stats["cluster.outbound|orders.health_check.healthy"])
		}
	}
	// A policy without the check ends it.
	m.ControlPlane.Delete("/v1/objects/TrafficPolicy/orders")
	mesh.Await(t, 20*time.Second, "checks end with the policy", func() error {
		stats, err := callers[0].Stats()
		if _, there := stats["cluster.outbound|orders.health_check.attempt"]; err == nil && there {
			err = fmt.Errorf("they go on")
		}
		return err
	})
}
