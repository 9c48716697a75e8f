// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// memoryShare is how much more memory than before a storm may stay.
const memoryShare = 0.05

// TestAStormOfChangesFailsNoRequestAndLeavesNoMemory makes a hundred changes a
// second, of other services' routes, clusters and endpoints and of the load's own
// listeners, twice: after the first storm all objects are there, and memory has to
// come back from the second to where it was before.
func TestAStormOfChangesFailsNoRequestAndLeavesNoMemory(t *testing.T) {
	seconds := 5
	if testing.Short() {
		seconds = 2
	}
	m := mesh.New(t)
	x := m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 50, Rate: 500})
	load.AwaitSent(100)
	s := &storm{t: t, m: m, x: x, web: web}
	released := func() int {
		return web.AwaitStat("outrigger.memory_releases_total", func(int) bool { return true })
	}
	web.AwaitStat("outrigger.memory_releases_total", func(now int) bool { return now > 0 }) // what only the start needed
	s.blow(seconds)
	n := released()
	web.AwaitStat("outrigger.memory_releases_total", func(now int) bool { return now > n })
	before := web.RSS()
	for range 20 { // the load goes on: the least is what is held
		before = min(before, web.RSS())
		mesh.Pass(50 * time.Millisecond)
	}
	peak, began := s.blow(seconds), time.Now()
	bound, after := before+int(memoryShare*float64(before)), 0
	web.Await(40*time.Second, "the memory of before the storm", func() error {
		if after = web.RSS(); after > bound {
			return fmt.Errorf("%d KiB, before %d, bound %d", after>>10, before>>10, bound>>10)
		}
		return nil
	})
	settled := time.Since(began)
	tally := load.Stop()
	tally.Flawless(t, "in a storm of changes")
	slices.Sort(s.lag)
	if len(s.lag) < 20 {
		t.Fatalf("only %d changes of the load's own route were seen", len(s.lag))
	}
	mesh.Conformance(t, "D19", "%d changes at %.0f/s: %d requests, %d failed; live after %v (median), %v (p99) of %d; %d KiB before, %d in it, %d after (%+.1f %%, %v later)",
		s.changes, float64(s.changes)/s.took.Seconds(), tally.Sent, tally.Failed,
		s.lag[len(s.lag)/2].Round(time.Millisecond), s.lag[(len(s.lag)*99-1)/100].Round(time.Millisecond), len(s.lag),
		before>>10, peak>>10, after>>10, 100*(float64(after)/float64(before)-1), settled.Round(time.Second))
}

// storm makes changes, and sees when those of the load's own route are in service.
type storm struct {
	t   *testing.T
	m   *mesh.Mesh
	x   *mesh.Instance
	web *mesh.Sidecar

	changes int
	took    time.Duration
	lag     []time.Duration
	asked   time.Time // when the change was made that is waited for; zero: none
	round   string    // its mark
}

// blow makes a hundred changes a second and returns the most memory meanwhile.
func (s *storm) blow(seconds int) (peak int) {
	s.t.Helper()
	began := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for range seconds * 100 {
		change(s.m, s.x, s.changes)
		s.changes++
		s.probe()
		peak = max(peak, s.web.RSS())
		<-ticker.C
	}
	s.took += time.Since(began)
	mesh.Await(s.t, 10*time.Second, "the last route of the storm", func() error {
		if s.look(); !s.asked.IsZero() {
			return fmt.Errorf("round %s", s.round)
		}
		return nil
	})
	return peak
}

// probe changes the load's own route every tenth time, unless the change before is
// still waited for.
func (s *storm) probe() {
	s.t.Helper()
	if s.asked.IsZero() && s.changes%10 == 0 {
		s.round = fmt.Sprint(s.changes)
		s.m.ControlPlane.PutYAML("HTTPRoute", orders, route(s.changes))
		s.asked = time.Now()
	}
	s.look()
}

// look sees whether the change that is waited for is in service.
func (s *storm) look() {
	if s.asked.IsZero() {
		return
	}
	a, err := mesh.Call(s.web.Outbound, orders, "/")
	if err != nil {
		s.t.Errorf("request: %v", err)
	}
	if a.Header.Get("X-Round") == s.round {
		s.lag = append(s.lag, time.Since(s.asked))
		s.asked = time.Time{}
	}
}

// change makes the nth change of the storm.
func change(m *mesh.Mesh, x *mesh.Instance, n int) {
	cp, name := m.ControlPlane, fmt.Sprintf("other-%d", n/8%20)
	switch n % 8 {
	case 0, 4:
		cp.PutInstance(name, fmt.Sprintf("i-%d", n%3), x.Sidecar.Inbound)
	case 1, 5:
		cp.PutYAML("HTTPRoute", name, fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: %[1]s}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v%d}}]
    backendRefs: [{group: outrigger.io, kind: Service, name: %[1]s}]
`, name, n))
	case 2, 6:
		cp.PutYAML("TrafficPolicy", name, fmt.Sprintf(`apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: %s}
spec: {targetRef: {kind: Service, name: %[1]s}, limits: {connections: %d}}
`, name, n+1))
	case 3:
		cp.PutYAML("Telemetry", "mesh", telemetry(m.Dir, n%7))
	case 7:
		cp.PutYAML("Tap", orders, fmt.Sprintf(`apiVersion: outrigger.io/v1
kind: Tap
metadata: {name: orders}
spec: {targetRef: {kind: Service, name: orders}, match: {sample: 1%%, maxPerSecond: %d}}
`, n+1))
	}
}
