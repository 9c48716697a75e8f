// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// fleet is a caller and three instances of a service.
type fleet struct {
	*mesh.Mesh
	web       *mesh.Sidecar
	instances []*mesh.Instance
}

const orders = "orders"

func newFleet(t *testing.T, sidecarFlags ...string) *fleet {
	t.Helper()
	f := &fleet{Mesh: mesh.New(t)}
	f.ControlPlane.PutYAML("Telemetry", "mesh", `apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: mesh}
spec:
  targetRef: {kind: Service, name: web}
  accessLog: [{file: `+f.accessLog()+`, format: json}]
`)
	var names []string
	for i := range 3 {
		id := fmt.Sprintf("orders-%d", i+1)
		f.instances = append(f.instances, f.Instance(orders, id, sidecarFlags...))
		names = append(names, id)
	}
	f.web = f.Caller("web-1")
	f.AwaitAnswers(f.web, orders, names...)
	return f
}

// accessLog is that of the caller's sidecar.
func (f *fleet) accessLog() string { return filepath.Join(f.Dir, "web.access.log") }

// load is GETs that each keep an instance busy for a while, so that some are
// under way whatever happens.
func (f *fleet) load(t *testing.T) *mesh.Load {
	t.Helper()
	l := mesh.StartLoad(t, mesh.LoadConfig{Address: f.web.Outbound, Host: orders, Path: "/?ms=5", Conns: 50, Rate: 500})
	l.AwaitSent(200)
	return l
}

// only waits until a load is answered without the instances that are gone, and
// returns how long that took.
func only(t *testing.T, f *fleet, gone *mesh.Instance) {
	t.Helper()
	f.AwaitInstance(orders, gone.App.ID, false)
}

func TestAnInstanceThatLeavesLosesNoRequest(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "--drain-time-s", "3")
	load := f.load(t)
	leaving := f.instances[0]
	began := time.Now()
	leaving.Sidecar.Signal(syscall.SIGTERM)
	if code := leaving.Sidecar.Wait(15 * time.Second); code != 0 {
		t.Errorf("the sidecar ended with %d", code)
	}
	took := time.Since(began)
	leaving.App.Stop()
	only(t, f, leaving)
	load.AwaitSent(300)
	load.Take().Flawless(t, "while an instance left")

	// And the control plane's own way: a DELETE of the registration.
	load.AwaitSent(100)
	f.ControlPlane.PutInstance(orders, "by-hand", f.instances[1].Sidecar.Inbound)
	f.ControlPlane.Delete("/v1/services/orders/instances/by-hand")
	load.AwaitSent(200)
	tally := load.Stop()
	tally.Flawless(t, "after a registration was deleted")
	if tally.Instances[leaving.App.ID] > 0 {
		t.Errorf("%d requests went to the instance that had left", tally.Instances[leaving.App.ID])
	}
	mesh.Conformance(t, "deregister", "0 requests failed while an instance under load left; its sidecar ended after %v", took.Round(10*time.Millisecond))
}

func TestAKilledInstanceLosesNoIdempotentRequest(t *testing.T) {
	t.Parallel() // it mostly waits for leases to end
	tests := []struct {
		name string
		kill func(*mesh.Instance)
		// leaves says that the registration ends with the lease.
		leaves bool
	}{
		{"application and sidecar", func(x *mesh.Instance) {
			x.Sidecar.Signal(syscall.SIGKILL)
			x.App.Signal(syscall.SIGKILL)
		}, true},
		{"sidecar only", func(x *mesh.Instance) { x.Sidecar.Signal(syscall.SIGKILL) }, true},
		{"application only", func(x *mesh.Instance) { x.App.Signal(syscall.SIGKILL) }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			load := f.load(t)
			rss := f.web.RSS()
			began := time.Now()
			victim := f.instances[0]
			test.kill(victim)
			f.web.AwaitStat("cluster.outbound|orders.outlier_detection.ejections_active", func(n int) bool { return n == 1 })
			ejected := time.Since(began)
			if ejected > 10*time.Second {
				t.Errorf("ejected after %v", ejected)
			}
			load.AwaitSent(1000)
			tally := load.Take()
			tally.Flawless(t, "after the kill")
			// Ejected: from here on no request goes there for a while.
			load.AwaitSent(100)
			if n := load.Take().Instances[victim.App.ID]; n > 0 {
				t.Errorf("%d answers of what was killed", n)
			}
			removed := "unhealthy"
			if test.leaves {
				only(t, f, victim)
				removed = "its lease ended"
			} else {
				mesh.Await(t, 20*time.Second, "the control plane knows that the application is down", func() error {
					list, err := f.ControlPlane.Instances(orders)
					for _, i := range list {
						if i.ID == victim.App.ID && i.Health == "healthy" {
							return fmt.Errorf("%v", list)
						}
					}
					return err
				})
			}
			took := time.Since(began)
			load.AwaitSent(100)
			load.Stop().Flawless(t, "until it was out")
			f.web.AwaitIdle()
			mesh.Conformance(t, "D1", "%s killed under load: %d GETs, %d failed; ejected after %v; %s after %v; caller's sidecar %d KiB larger",
				test.name, tally.Sent, tally.Failed, ejected.Round(time.Millisecond), removed, took.Round(100*time.Millisecond), (f.web.RSS()-rss)>>10)
		})
	}
}

// TestOfPOSTsOnlyThoseInFlightFailWithAFlag holds requests at one instance, kills
// it, and counts: those, and no other, fail, with 503 and a flag in the access
// log.
func TestOfPOSTsOnlyThoseInFlightFailWithAFlag(t *testing.T) {
	f := newFleet(t)
	const held = 24
	probes := 0
	for _, x := range f.instances {
		probes += x.App.Seen()
	}
	statuses := make(chan int, held)
	var calls sync.WaitGroup
	for range held {
		calls.Go(func() {
			statuses <- mesh.Post(f.web.Outbound, orders, "/hold", "x")
		})
	}
	victim := f.instances[0]
	mesh.Await(t, 10*time.Second, "all POSTs at the applications", func() error {
		sum := 0
		for _, x := range f.instances {
			sum += x.App.Seen()
		}
		if sum < probes+held {
			return fmt.Errorf("%d of %d", sum-probes, held)
		}
		return nil
	})
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: f.web.Outbound, Host: orders, Method: http.MethodPost, Body: "x", Conns: 10, Rate: 200})
	load.AwaitSent(50)
	// The sidecar first: one that outlives its application answers for it, and the
	// flag is in its own log.
	victim.Sidecar.Kill()
	victim.App.Kill()
	load.AwaitSent(400)
	tally := load.Stop()
	// The loop itself had at most one request under way on each connection.
	for _, x := range tally.Failures {
		if x.Status != http.StatusServiceUnavailable || x.Err != nil {
			t.Errorf("a POST failed otherwise than with 503: %v", x)
		}
	}
	if tally.Failed > 10 {
		t.Errorf("%d of %d POSTs failed, at most 10 were in flight", tally.Failed, tally.Sent)
	}
	for _, x := range f.instances[1:] {
		x.Sidecar.Kill()
		x.App.Kill()
	}
	calls.Wait()
	close(statuses)
	f.web.AwaitIdle()
	for s := range statuses {
		if s != http.StatusServiceUnavailable {
			t.Errorf("a POST in flight was answered %d, want 503", s)
		}
	}
	flags := failures(t, f.accessLog(), held)
	mesh.Conformance(t, "D1", "%d POSTs in flight at killed instances failed with 503 and flags %v; of %d others %d failed",
		held, flags, tally.Sent, tally.Failed)
}

// failures counts the flags of the access log's lines of 503, of which there have
// to be at least so many. Each needs a flag.
func failures(t *testing.T, path string, least int) map[string]int {
	t.Helper()
	flags := map[string]int{}
	mesh.Await(t, 10*time.Second, "the access log's lines of 503", func() error {
		clear(flags)
		f, err := os.Open(path) //nolint:gosec // the test's own file
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // only read
		n := 0
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var line struct {
				Status int    `json:"response_code"`
				Flags  string `json:"response_flags"`
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				return fmt.Errorf("%q: %w", lines.Text(), err)
			}
			if line.Status == http.StatusServiceUnavailable {
				flags[line.Flags]++
				n++
			}
		}
		if n < least {
			return fmt.Errorf("%d, want %d", n, least)
		}
		return nil
	})
	if flags["-"]+flags[""] > 0 {
		t.Errorf("503 without a flag: %v", flags)
	}
	return flags
}
