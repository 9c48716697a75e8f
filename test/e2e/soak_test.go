// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// soakEnv is how long the soak lasts; the tests' own is short.
const soakEnv = "OUTRIGGER_SOAK"

// soakSample is what a process needs at a time.
type soakSample struct {
	at                           float64 // minutes
	goroutines, descriptors, rss float64
}

// slope is the least-squares growth a minute, as a part of the mean.
func slope(list []soakSample, of func(soakSample) float64) float64 {
	var n, x, y, xx, xy float64
	for _, s := range list {
		v := of(s)
		n, x, y, xx, xy = n+1, x+s.at, y+v, xx+s.at*s.at, xy+s.at*v
	}
	if d := n*xx - x*x; d != 0 && y != 0 {
		return (n*xy - x*y) / d / (y / n)
	}
	return 0
}

// TestASoakWithFaultsLeavesNothingBehind runs faults at random, each of which ends: what
// the caller's sidecar needs when nothing is under way does not grow, and idempotent
// requests do not fail.
func TestASoakWithFaultsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	lasts := 5 * time.Second
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil || lasts <= 0 {
			t.Fatalf("%s=%q: want a duration", soakEnv, s)
		}
	}
	m := mesh.New(t)
	var instances []*mesh.Instance
	for i := range 3 {
		instances = append(instances, m.Instance(orders, fmt.Sprintf("orders-%d", i+1), "--drain-time-s", "2"))
	}
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1", "orders-2", "orders-3")
	const seed = 22
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // to be repeated
	rounds := 0
	faults := []struct {
		name string
		does func(x *mesh.Instance)
	}{
		{"an instance's sidecar killed", func(x *mesh.Instance) {
			x.Sidecar.Kill()
			x.Sidecar.Restart()
			x.Sidecar.AwaitReady()
		}},
		{"an instance's sidecar ended", func(x *mesh.Instance) {
			x.Sidecar.Signal(syscall.SIGTERM)
			x.Sidecar.Wait(30 * time.Second)
			x.Sidecar.Restart()
			x.Sidecar.AwaitReady()
		}},
		{"an instance's sidecar stopped for a while", func(x *mesh.Instance) {
			x.Sidecar.Signal(syscall.SIGSTOP)
			mesh.Pass(200 * time.Millisecond)
			x.Sidecar.Signal(syscall.SIGCONT)
		}},
		{"routes changed", func(*mesh.Instance) { m.ControlPlane.PutYAML("HTTPRoute", orders, route(rounds)) }},
		{"instances that come and go", func(x *mesh.Instance) {
			m.ControlPlane.PutInstance(orders, "more", x.Sidecar.Inbound)
			m.ControlPlane.Delete("/v1/services/orders/instances/more")
		}},
		{"the control plane killed", func(*mesh.Instance) {
			m.ControlPlane.Kill()
			m.ControlPlane.Restart()
			web.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 1 })
		}},
		{"clients that break off", func(*mesh.Instance) {
			for range 50 {
				h := hold(t, web.Outbound)
				_, _ = fmt.Fprintf(h.conn, "GET /?ms=50 HTTP/1.1\r\nHost: %s\r\n\r\n", orders)
				_ = h.conn.Close()
			}
		}},
	}
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 20, Rate: 200})
	load.AwaitSent(100)
	var samples []soakSample
	met := map[string]int{}
	began := time.Now()
	for time.Since(began) < lasts || rounds < len(faults) {
		f := faults[random.IntN(len(faults))]
		if rounds < len(faults) {
			f = faults[rounds] // each at least once
		}
		rounds++
		met[f.name]++
		f.does(instances[random.IntN(len(instances))])
		for _, x := range instances {
			m.AwaitInstance(orders, x.App.ID, true)
		}
		load.AwaitSent(50)
		if rounds <= len(faults) {
			continue // what each fault needs once
		}
		goroutines := web.AwaitStat("outrigger.goroutines", func(int) bool { return true })
		samples = append(samples, soakSample{time.Since(began).Minutes(), float64(goroutines), float64(web.Descriptors()), float64(web.RSS())})
	}
	tally := load.Stop()
	tally.Flawless(t, "of the soak")
	web.AwaitIdle()
	// What is left when nobody calls: no more than one of each for all instances.
	web.Await(30*time.Second, "the last of what was under way", func() error {
		stats, err := web.Stats()
		if err == nil && stats["http.outbound.downstream_cx_active"] != 0 {
			err = fmt.Errorf("%d connections of clients", stats["http.outbound.downstream_cx_active"])
		}
		return err
	})
	g := slope(samples, func(s soakSample) float64 { return s.goroutines })
	d := slope(samples, func(s soakSample) float64 { return s.descriptors })
	r := slope(samples, func(s soakSample) float64 { return s.rss })
	// A slope of some seconds says nothing.
	if time.Since(began) > 10*time.Minute && max(g, d, r) > 0.001 {
		t.Errorf("growth a minute of goroutines %.2f %%, descriptors %.2f %%, memory %.2f %%", 100*g, 100*d, 100*r)
	}
	last := soakSample{}
	if len(samples) > 0 {
		last = samples[len(samples)-1]
	}
	if last.goroutines > 200 || last.descriptors > 200 {
		t.Errorf("in the end %v goroutines and %v descriptors", last.goroutines, last.descriptors)
	}
	mesh.Conformance(t, "D22", "%v with %d faults of %d kinds: %d requests, %d failed; growth a minute of goroutines %+.2f %%, descriptors %+.2f %%, memory %+.2f %%; in the end %.0f, %.0f, %.0f KiB",
		time.Since(began).Round(time.Second), rounds, len(met), tally.Sent, tally.Failed, 100*g, 100*d, 100*r, last.goroutines, last.descriptors, last.rss/1024)
}
