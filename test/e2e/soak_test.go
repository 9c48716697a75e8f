// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// soakEnv is how long the soak lasts; the tests' own is short.
const soakEnv = "OUTRIGGER_SOAK"

const (
	// A sample is taken after so many faults.
	soakStride = 20
	// What faults of each kind make for the first time, such as records in rings, is
	// there after so many; growth is what comes later.
	soakWarm = 400
	// What grows by itself to an end, such as room in the heap between objects that stay,
	// is no leak: growth is judged in what is left of the soak after this part of it. Both
	// figures are told.
	soakSteady = 0.5
	// Growth is judged of a soak that lasted for so long: that of some seconds says
	// nothing. maxGrowth is a part of what there is, a minute.
	soakJudged = 10 * time.Minute
	// Of each kind 256 events are kept, for which a soak may be too short: what that adds
	// is no growth. In memory an event takes about twice its text.
	eventShare = 2
	maxGrowth  = 0.001
)

// soakSample is what a process needs at a time when it has given back what it can.
type soakSample struct {
	at         float64 // minutes
	goroutines float64
	// How many there are, and how many of them are of no connection that the sidecar
	// counts. It keeps as many to each instance as a rush once wanted.
	open, descriptors float64
	// Bytes: memory that is no file's is what a leak is in, on the heap or beside it; kept
	// is what of it the events take that /events shows. All that is resident has pages of
	// the program too, which come as they are used.
	anonymous, kept, rss float64
}

// memory is what a leak would be in.
func (s soakSample) memory() float64 { return s.anonymous - s.kept }

// sampleSoak changes the configuration once more: when it has been at rest after that,
// garbage is collected, and free memory goes back to the system.
func sampleSoak(web *mesh.Sidecar, change func(), began time.Time) soakSample {
	released := web.AwaitStat("outrigger.memory_releases_total", func(int) bool { return true })
	change()
	web.AwaitStat("outrigger.memory_releases_total", func(n int) bool { return n > released })
	return readSoak(web, began)
}

func readSoak(web *mesh.Sidecar, began time.Time) soakSample {
	s := soakSample{at: time.Since(began).Minutes(), anonymous: float64(web.Anonymous()), rss: float64(web.RSS())}
	if events, err := mesh.Get("http://" + web.Admin + "/events"); err == nil { // without them there is more growth
		s.kept = eventShare * float64(len(events))
	}
	web.Await(10*time.Second, "descriptors and counts of one moment", func() error {
		before := web.Descriptors()
		stats, err := web.Stats()
		if err != nil {
			return err
		}
		if after := web.Descriptors(); after != before {
			return fmt.Errorf("%d descriptors, then %d", before, after)
		}
		counted := 0
		for name, n := range stats {
			if name == "http.outbound.downstream_cx_active" || strings.HasPrefix(name, "cluster.") && strings.HasSuffix(name, ".upstream_cx_active") {
				counted += n
			}
		}
		s.open, s.descriptors, s.goroutines = float64(before), float64(before-counted), float64(stats["outrigger.goroutines"])
		return nil
	})
	return s
}

// growth is the least-squares growth a minute and its standard error, as parts of the
// mean.
func growth(list []soakSample, of func(soakSample) float64) (slope, stderr float64) {
	var n, x, y, xx, xy, rest float64
	for _, s := range list {
		v := of(s)
		n, x, y, xx, xy = n+1, x+s.at, y+v, xx+s.at*s.at, xy+s.at*v
	}
	d := n*xx - x*x
	if n < 3 || d == 0 || y == 0 {
		return 0, 0
	}
	slope = (n*xy - x*y) / d
	for _, s := range list {
		e := of(s) - y/n - slope*(s.at-x/n)
		rest += e * e
	}
	return slope / (y / n), math.Sqrt(rest/(n-2)*n/d) / (y / n)
}

// TestASoakWithFaultsLeavesNothingBehind runs faults at random, each of which ends: what
// the caller's sidecar needs does not grow, and idempotent requests do not fail.
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
	var last soakSample
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
		if rounds%soakStride == 0 {
			last = sampleSoak(web, func() { m.ControlPlane.PutYAML("HTTPRoute", orders, route(rounds)) }, began)
			t.Logf("%.2f min, %d faults: %+v", last.at, rounds, last)
			if rounds > soakWarm {
				samples = append(samples, last)
			}
		}
	}
	took := time.Since(began)
	if rounds < soakStride {
		last = readSoak(web, began)
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
	var all []float64
	for _, of := range []func(soakSample) float64{soakSample.memory, func(s soakSample) float64 { return s.rss }} {
		slope, _ := growth(samples, of)
		all = append(all, slope)
	}
	samples = slices.DeleteFunc(samples, func(s soakSample) bool { return s.at < soakSteady*took.Minutes() })
	g, gErr := growth(samples, func(s soakSample) float64 { return s.goroutines })
	d, dErr := growth(samples, func(s soakSample) float64 { return s.descriptors })
	n, nErr := growth(samples, soakSample.memory)
	// Two standard errors are chance.
	if took >= soakJudged && (len(samples) < 10 || max(g-2*gErr, d-2*dErr, n-2*nErr) > maxGrowth) {
		t.Errorf("growth a minute of goroutines %.2f±%.2f %%, descriptors %.2f±%.2f %%, memory %.2f±%.2f %%, by %d samples",
			100*g, 100*gErr, 100*d, 100*dErr, 100*n, 100*nErr, len(samples))
	}
	if last.goroutines > 200 || last.open > 200 {
		t.Errorf("in the end %v goroutines and %v descriptors", last.goroutines, last.open)
	}
	mesh.Conformance(t, "D22", "%v, %d faults of %d kinds, %d requests, %d failed; growth a minute in the second half: goroutines %+.2f %%, descriptors %+.2f %%, memory %+.2f±%.2f %% (since fault %d %+.2f %%, resident %+.2f %%); %.0f, %.0f, %.0f (%.0f) KiB",
		took.Round(time.Second), rounds, len(met), tally.Sent, tally.Failed, 100*g, 100*d, 100*n, 100*nErr, soakWarm, 100*all[0], 100*all[1], last.goroutines, last.open, last.anonymous/1024, last.rss/1024)
}
