// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestHundredChangesUnderLoadFailNoRequest changes routes, clusters, endpoints
// and the filter chains of listeners, each change when the one before it is in
// service at the sidecars, under 200 busy keep-alive connections.
func TestHundredChangesUnderLoadFailNoRequest(t *testing.T) {
	rounds := 25 // of four changes
	if testing.Short() {
		rounds = 5
	}
	m := mesh.New(t)
	one := m.Instance("orders", "orders-1")
	two := mesh.StartApp(t, m.Dir, "orders-2")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, "orders", "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: "orders", Conns: 200, Rate: 1000})
	load.AwaitSent(400)

	cp := m.ControlPlane
	var took []time.Duration
	change := func(node, kind string, do func()) {
		t.Helper()
		old := cp.Accepted(node, kind)
		began := time.Now()
		do()
		cp.AwaitChange(node, kind, old)
		took = append(took, time.Since(began))
	}
	for i := range rounds {
		change(web.Node(), "RouteConfiguration", func() { cp.PutYAML("HTTPRoute", "orders", route(i)) })
		mesh.Await(t, 5*time.Second, "an answer by the new route", func() error {
			a, err := mesh.Call(web.Outbound, "orders", "/")
			if err == nil && a.Header.Get("X-Round") != fmt.Sprint(i) {
				err = fmt.Errorf("round %q, want %d", a.Header.Get("X-Round"), i)
			}
			return err
		})
		change(web.Node(), "Cluster", func() { cp.PutYAML("TrafficPolicy", "orders", policy(i)) })
		change(web.Node(), "ClusterLoadAssignment", func() {
			if i%2 == 0 {
				cp.PutInstance("orders", "orders-2", two.Address)
			} else {
				cp.Delete("/v1/services/orders/instances/orders-2")
			}
		})
		if i%2 == 0 {
			m.AwaitAnswers(web, "orders", "orders-2")
		}
		// Alternately the access log of all listeners and the tap filter of one.
		switch i % 4 {
		case 0, 2:
			change(web.Node(), "Listener", func() { cp.PutYAML("Telemetry", "mesh", telemetry(m.Dir, i)) })
		case 1:
			change(one.Sidecar.Node(), "Listener", func() { cp.PutYAML("Tap", "orders", tap) })
		case 3:
			change(one.Sidecar.Node(), "Listener", func() { cp.Delete("/v1/objects/Tap/orders") })
		}
	}
	tally := load.Stop()
	tally.Flawless(t, "under changes")
	slices.Sort(took)
	mesh.Conformance(t, "changes-under-load", "%d changes, %d requests on 200 connections, %d failed; accepted by the sidecar after %v (median), %v (slowest)",
		len(took), tally.Sent, tally.Failed, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

func route(round int) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: orders}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-round, value: "%d"}]}}]
    backendRefs: [{group: outrigger.io, kind: Service, name: orders}]
`, round)
}

func policy(round int) string {
	return fmt.Sprintf(`apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  loadBalancer: {policy: %s}
  limits: {connections: %d}
`, []string{"round_robin", "least_request", "random"}[round%3], 1000+round)
}

func telemetry(dir string, round int) string {
	return fmt.Sprintf(`apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: mesh}
spec:
  tracing: {sampling: %d%%}
  accessLog: [{file: %s/access-%d.log, format: json}]
`, round%5, dir, round)
}

const tap = `apiVersion: outrigger.io/v1
kind: Tap
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  match: {sample: 10%, maxPerSecond: 20}
  capture: {responseBody: 1KiB}
  expires: 1h
`
