// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
	"github.com/outrigger-mesh/outrigger/internal/programs"
)

// rateEnv is how many requests a second are sent meanwhile; the test fails if they
// cannot be. The sidecars are then built as they are released, which takes minutes the
// first time.
const rateEnv = "OUTRIGGER_ROLLING_RATE"

// TestARollingRestartOfTheQuickstartFailsNoRequest replaces every sidecar in place, then
// every instance, application and sidecar, by another one, as a deployment does, under
// clients that never repeat a request. They call through a sidecar of their own, which is
// replaced, too.
func TestARollingRestartOfTheQuickstartFailsNoRequest(t *testing.T) {
	rate, asked := 200, false
	if s := os.Getenv(rateEnv); s != "" {
		asked = true
		var err error
		if rate, err = strconv.Atoi(s); err != nil || rate < 1 {
			t.Fatalf("%s=%q: want requests a second", rateEnv, s)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	must(build(t.Context(), dir))
	if asked {
		must(programs.BuildGuided(t.Context(), filepath.Join(dir, "bin")))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	m := newMesh(dir)
	t.Cleanup(m.stopAll)
	must(m.start(ctx))
	edge := &member{service: "clients", version: "v1", id: "clients-1"}
	must(m.join(ctx, edge))

	began := time.Now()
	load := startSteady(t, edge.outbound, "web", min(rate, 128), rate, func(body []byte) error {
		var x answer
		if err := json.Unmarshal(body, &x); err != nil {
			return err
		}
		return x.complete()
	})
	load.await(rate / 4)
	sidecars, instances := 0, 0
	for _, x := range m.members {
		old := x.sidecarProcess
		must(m.startSidecar(x, "--upgrade"))
		must(x.sidecarProcess.await(ctx, "the process before has not ended", time.Minute, func() error {
			if old.alive() {
				return fmt.Errorf("process %d", old.cmd.Process.Pid)
			}
			return nil
		}))
		if code := old.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d: %s", old.name, code, tail(old.log, 1<<10))
		}
		sidecars++
		load.await(rate / 4)
	}
	upgraded := load.take()
	upgraded.Flawless(t, "while sidecars were upgraded")
	for _, old := range m.members {
		if old == edge { // whom the clients are connected to
			continue
		}
		next := &member{service: old.service, version: old.version, id: old.id + "-next", calls: old.calls}
		must(m.join(ctx, next))
		load.await(rate / 4)
		old.sidecarProcess.stop()
		old.appProcess.stop()
		if code := old.sidecarProcess.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d: %s", old.sidecarProcess.name, code, tail(old.sidecarProcess.log, 1<<10))
		}
		instances++
		load.await(rate / 4)
	}
	replaced := load.end()
	took := time.Since(began)
	replaced.Flawless(t, "while instances were replaced")
	sent := upgraded.Sent + replaced.Sent
	reached := float64(sent) / took.Seconds()
	if asked && reached < .95*float64(rate) {
		t.Errorf("%.0f requests/s were sent, %d were asked for: the machine does not carry them", reached, rate)
	}
	t.Logf("%d sidecars upgraded in place, %d instances with their sidecars replaced, in %v: %d requests at %.0f/s over three services, %d failed; slowest %v",
		sidecars, instances, took.Round(time.Second), sent, reached, upgraded.Failed+replaced.Failed,
		max(upgraded.Slowest, replaced.Slowest).Round(time.Millisecond))
}

// join starts another instance and waits until others are told of it.
func (m *mesh) join(ctx context.Context, x *member) error {
	a, err := freeport.Addresses(4)
	if err != nil {
		return err
	}
	x.app, x.inbound, x.outbound, x.admin = a[0], a[1], a[2], a[3]
	m.members = append(m.members, x) // to be stopped in the end
	if err := m.startMember(x); err != nil {
		return err
	}
	if err := m.awaitMember(ctx, x); err != nil {
		return err
	}
	return m.awaitRegistered(ctx, x)
}

// awaitRegistered waits until others can be told of an instance.
func (m *mesh) awaitRegistered(ctx context.Context, x *member) error {
	return x.sidecarProcess.await(ctx, "not registered", startLimit, func() error {
		body, err := m.get(ctx, m.api("/v1/services/"+x.service))
		if err != nil {
			return err
		}
		var v struct {
			List []struct{ ID, Health string }
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		for _, i := range v.List {
			if i.ID == x.id && i.Health == "healthy" {
				return nil
			}
		}
		return fmt.Errorf("%s", body)
	})
}
