// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// awayEnv is how long the control plane is away, such as 1h; the default is short.
const awayEnv = "OUTRIGGER_AWAY"

func awayFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(awayEnv)
	if text == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", awayEnv, err)
	}
	return d
}

var clusterHost = regexp.MustCompile(`(?m)^outbound\|orders::([0-9.]+:[0-9]+)::`)

// endpointsOf are the addresses that a sidecar has for the service.
func endpointsOf(s *mesh.Sidecar) ([]string, error) {
	text, err := mesh.Get("http://" + s.Admin + "/clusters")
	set := map[string]bool{}
	for _, m := range clusterHost.FindAllStringSubmatch(text, -1) {
		set[m[1]] = true
	}
	return slices.Sorted(maps.Keys(set)), err
}

// TestTrafficFlowsWhileTheControlPlaneIsAway kills the control plane under load
// and, while it is away, an application: nothing fails, nothing changes but that
// outlier detection leaves the dead one out. Then it returns and all catch up.
func TestTrafficFlowsWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel() // it mostly waits while time goes by
	const ejected = "cluster.outbound|orders.outlier_detection.ejections_enforced_total"
	f := newFleet(t)
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: f.web.Outbound, Host: orders, Conns: 20, Rate: 200})
	load.AwaitSent(100)
	endpoints, err := endpointsOf(f.web)
	if err != nil || len(endpoints) != 3 {
		t.Fatalf("%d endpoints, want 3: %v", len(endpoints), err)
	}
	is := func(want int) func(int) bool { return func(got int) bool { return got == want } }
	f.web.AwaitStat("control_plane.connected_state", is(1))
	version := f.web.AwaitStat("control_plane.snapshot", func(n int) bool { return n > 0 })

	f.ControlPlane.Kill()
	began := time.Now()
	sidecars := []*mesh.Sidecar{f.web}
	for _, x := range f.instances {
		sidecars = append(sidecars, x.Sidecar)
	}
	for _, s := range sidecars {
		s.AwaitStat("control_plane.connected_state", is(0))
	}
	load.AwaitSent(100)
	dead := f.instances[0]
	dead.App.Signal(syscall.SIGKILL)
	f.web.AwaitStat(ejected, func(n int) bool { return n >= 1 })
	load.Take().Flawless(t, "when an application died without a control plane")
	load.AwaitSent(100)
	if tally := load.Take(); tally.Failed > 0 || tally.Instances[dead.App.ID] > 0 {
		t.Errorf("after the ejection: %d of %d failed, answers by %v", tally.Failed, tally.Sent, tally.Instances)
	}
	sent := 0
	for checked := false; !checked || time.Since(began) < awayFor(t); checked = true {
		stats, err := f.web.Stats()
		now, err2 := endpointsOf(f.web)
		if err != nil || err2 != nil || stats["control_plane.connected_state"] != 0 || stats["control_plane.snapshot"] != version || !slices.Equal(now, endpoints) {
			t.Fatalf("after %v: connected %d, snapshot %d (was %d), endpoints %v (were %v), %v %v", time.Since(began),
				stats["control_plane.connected_state"], stats["control_plane.snapshot"], version, now, endpoints, err, err2)
		}
		load.AwaitSent(100)
		tally := load.Take()
		tally.Flawless(t, "while the control plane was away")
		sent += tally.Sent
	}
	away := time.Since(began)

	f.ControlPlane.Restart()
	back := time.Now()
	for _, s := range sidecars {
		s.Await(45*time.Second, "the sidecar is connected again", func() error {
			stats, err := s.Stats()
			if err == nil && stats["control_plane.connected_state"] != 1 {
				err = fmt.Errorf("connected_state is %d", stats["control_plane.connected_state"])
			}
			return err
		})
	}
	connected := time.Since(back)
	// All that happened meanwhile and since arrives: the dead one is known as such, a new
	// instance comes, routes change.
	fresh := f.Instance(orders, "orders-new")
	f.ControlPlane.PutYAML("HTTPRoute", orders, route(7))
	f.web.Await(45*time.Second, "the endpoints of now", func() error {
		text, err := mesh.Get("http://" + f.web.Admin + "/clusters")
		flags := regexp.MustCompile(`(?m)^outbound\|orders::` + regexp.QuoteMeta(dead.Sidecar.Inbound) + `::health_flags::(.*)$`).FindStringSubmatch(text)
		switch {
		case err != nil:
			return err
		case !strings.Contains(text, "outbound|orders::"+fresh.Sidecar.Inbound+"::"):
			return fmt.Errorf("%s is not there", fresh.Sidecar.Inbound)
		case flags != nil && !strings.Contains(flags[1], "failed_eds_health"):
			return fmt.Errorf("the dead one is %s", flags[1])
		}
		return nil
	})
	f.web.Await(20*time.Second, "the route of now", func() error {
		a, err := mesh.Call(f.web.Outbound, orders, "/")
		if err == nil && a.Header.Get("X-Round") != "7" {
			err = fmt.Errorf("%d %v", a.Status, a.Header)
		}
		return err
	})
	load.AwaitSent(100)
	tally := load.Stop()
	tally.Flawless(t, "when the control plane was back")
	if tally.Instances["orders-new"] == 0 {
		t.Errorf("no request went to the new instance: %v", tally.Instances)
	}
	mesh.Conformance(t, "C2", "control plane away for %v: %d requests, 0 failed, endpoints unchanged, a dead application ejected; all sidecars connected %v after its return and caught up; %d more requests, %d failed",
		away.Round(time.Second), sent, connected.Round(100*time.Millisecond), tally.Sent, tally.Failed)
}
