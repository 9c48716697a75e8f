// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func TestMain(m *testing.M) {
	if os.Getenv(childMode) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestAnInstanceIsRegisteredAndItsLeaseKept(t *testing.T) {
	cp := startControlPlane(t)
	a := running(t, config(cp))
	eventually(t, "the instance is registered", func() bool { return cp.instance() != nil })
	i := cp.instance()
	if i.Address != "127.0.0.1" || i.Port != 15006 || i.Version != "v2" || i.Node != "orders~1" || i.Health != mesh.HealthHealthy {
		t.Errorf("registered as %+v", i)
	}
	eventually(t, "the agent knows", func() bool { return a.Status().Registered })
	// Over two leases, renewals alone keep it: nothing is registered anew.
	first := a.Status().LeaseUntil
	eventually(t, "two leases have passed", func() bool {
		if cp.instance() == nil {
			t.Fatal("the lease ended under a running agent")
		}
		return a.Status().LeaseUntil.Sub(first) > 2*time.Second
	})
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.registers != 1 {
		t.Errorf("registered %d times, want once", cp.registers)
	}
}

func TestNothingIsRegisteredBeforeTheDataPathIsConfigured(t *testing.T) {
	cp := startControlPlane(t)
	c := config(cp)
	configured := make(chan struct{})
	c.Configured = configured
	app := startApp(t)
	c.App = app.address()
	a := running(t, c)
	eventually(t, "the application is seen healthy", func() bool { return a.Status().AppHealthy })
	if s := a.Status(); s.Configured || s.Registered || cp.instance() != nil {
		t.Fatalf("registered before it can serve: %+v", s)
	}
	close(configured)
	eventually(t, "the instance is registered", func() bool { return cp.instance() != nil })
	if s := a.Status(); !s.Configured {
		t.Errorf("got %+v, want configured", s)
	}
}

func TestAControlPlaneThatLostEverythingIsToldAgain(t *testing.T) {
	cp := startControlPlane(t)
	a := running(t, config(cp))
	eventually(t, "the instance is registered", func() bool { return cp.instance() != nil })
	cp.stop()
	eventually(t, "the agent has noticed", func() bool { return a.Status().RegistryError != "" })
	cp.start()
	eventually(t, "the instance is registered again", func() bool { return cp.instance() != nil })
	eventually(t, "the error is gone", func() bool { return a.Status().Registered && a.Status().RegistryError == "" })
}

func TestDeregistrationTakesTheInstanceOutAndItStaysOut(t *testing.T) {
	cp := startControlPlane(t)
	a := running(t, config(cp))
	eventually(t, "the instance is registered", func() bool { return cp.instance() != nil })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		if err := a.Deregister(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if cp.instance() != nil {
		t.Error("Deregister returned before the instance was out")
	}
	if a.Status().Registered {
		t.Error("the agent still counts itself as registered")
	}
	cp.stop() // a third time asks nobody
	if err := a.Deregister(ctx); err != nil {
		t.Error(err)
	}
}

func TestARegistrationWhoseLeaseHasPassedNoLongerCounts(t *testing.T) {
	cp := startControlPlane(t)
	a := running(t, config(cp))
	eventually(t, "the agent is registered", func() bool { return a.Status().Registered })
	cp.stop()
	eventually(t, "its lease has passed", func() bool { return !a.Status().Registered })
	if s := a.Status(); time.Now().Before(s.LeaseUntil) {
		t.Errorf("unregistered before the lease's end: %+v", s)
	}
}

func TestDeregistrationGivesUpWithItsContext(t *testing.T) {
	cp := startControlPlane(t)
	a := running(t, config(cp))
	eventually(t, "the instance is registered", func() bool { return cp.instance() != nil })
	cp.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := a.Deregister(ctx); err == nil || !strings.Contains(err.Error(), "deregister") {
		t.Errorf("got %v, want an error", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestAnAgentThatNeverRegisteredLeavesAtOnce(t *testing.T) {
	cp := startControlPlane(t)
	c := config(cp)
	c.Configured = make(chan struct{})
	a := running(t, c)
	if err := a.Deregister(t.Context()); err != nil {
		t.Error(err)
	}
	fresh, err := agent.New(c) // never run
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Deregister(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheApplicationsHealthReachesTheRegistry(t *testing.T) {
	for name, path := range map[string]string{"by HTTP": "/health", "by TCP": ""} {
		t.Run(name, func(t *testing.T) {
			cp := startControlPlane(t)
			app := startApp(t)
			c := config(cp)
			c.LeaseTTL = time.Minute // so that no renewal carries the change
			c.App = app.address()
			c.Health = agent.HealthCheck{Path: path, Interval: 5 * time.Millisecond, UnhealthyThreshold: 2}
			a := running(t, c)
			eventually(t, "it is registered as healthy", func() bool {
				i := cp.instance()
				return i != nil && i.Health == mesh.HealthHealthy
			})
			if path == "" {
				app.Listener.Close()
			} else {
				app.sick.Store(true)
			}
			eventually(t, "it is unhealthy", func() bool { return cp.instance().Health == mesh.HealthUnhealthy })
			want := "status 503"
			if path == "" {
				want = "connection refused"
			}
			if s := a.Status(); s.AppHealthy || !strings.Contains(s.AppReason, want) {
				t.Errorf("got %+v, want a reason with %q", s, want)
			}
			if path != "" {
				app.sick.Store(false)
				eventually(t, "it is healthy again", func() bool { return cp.instance().Health == mesh.HealthHealthy })
			}
		})
	}
}

func TestOneFailedCheckAmongGoodOnesChangesNothing(t *testing.T) {
	cp := startControlPlane(t)
	app := startApp(t)
	c := config(cp)
	c.App = app.address()
	c.Health = agent.HealthCheck{Path: "/health", Interval: 2 * time.Millisecond, UnhealthyThreshold: 2}
	app.failEvery.Store(2)
	a := running(t, c)
	eventually(t, "it is registered", func() bool { return cp.instance() != nil })
	seen := app.checks.Load()
	eventually(t, "ten checks have failed", func() bool { return app.checks.Load() > seen+20 })
	if !a.Status().AppHealthy {
		t.Error("the application counts as unhealthy")
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	for _, h := range cp.healths {
		if h != mesh.HealthHealthy {
			t.Errorf("was published as %v", h)
		}
	}
}

func TestAnApplicationThatIsDownIsRegisteredAsUnhealthy(t *testing.T) {
	cp := startControlPlane(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	c := config(cp)
	c.App = address
	running(t, c)
	eventually(t, "it is registered", func() bool { return cp.instance() != nil })
	if h := cp.instance().Health; h != mesh.HealthUnhealthy {
		t.Errorf("registered as %v, want unhealthy", h)
	}
	// It comes up: tried often while it has never answered.
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	eventually(t, "it is healthy", func() bool { return cp.instance().Health == mesh.HealthHealthy })
}

func TestAnApplicationThatDoesNotAnswerIsToldOncePerChange(t *testing.T) {
	for name, path := range map[string]string{"by HTTP": "/health", "by TCP": ""} {
		t.Run(name, func(t *testing.T) {
			cp := startControlPlane(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			_ = l.Close()
			var log lockedBuffer
			c := config(cp)
			c.LeaseTTL = time.Minute
			c.App, c.Health = address, agent.HealthCheck{Path: path, Interval: time.Millisecond}
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			a := running(t, c)
			want := "level=WARN msg=\"the application at " + address + " does not answer (--app): connection refused\""
			eventually(t, "it is told", func() bool { return strings.Contains(log.String(), want) })
			eventually(t, "it is registered", func() bool { return cp.instance() != nil })
			if l, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
			serving := make(chan struct{})
			go func() {
				defer close(serving)
				_ = http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) //nolint:gosec // until it is closed
			}()
			defer func() { _ = l.Close(); <-serving }()
			eventually(t, "the control plane knows that it answers", func() bool {
				return a.Status().AppHealthy && strings.Contains(log.String(), "application health changed")
			})
			if got := log.String(); strings.Count(got, want) != 1 || strings.Contains(got, "<nil>") {
				t.Errorf("want one line about it and no empty error, got\n%s", got)
			}
		})
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestABadConfigurationIsRefusedWithItsFields(t *testing.T) {
	_, err := agent.New(agent.Config{
		App: "nowhere", LeaseTTL: -1, Instance: &agent.Instance{},
		Health: agent.HealthCheck{Path: "health", Interval: -1},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"conn: required", "node: required", "boot: required", "leaseTTL", `app "nowhere"`, `health.path "health"`,
		"health: interval", "configured: required", "instance: service, id, address and port",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestTheAddressThatOthersReachIsAdvertised(t *testing.T) {
	for _, tc := range []struct {
		inbound, controlplane, want string
	}{
		{"10.1.2.3:15006", "192.0.2.1:15010", "10.1.2.3:15006"},
		{":15006", "127.0.0.1:15010", "127.0.0.1:15006"},
		{"0.0.0.0:7", "127.0.0.9:15010", "127.0.0.1:7"},
		{"[::]:7", "unix:/run/xds.sock", "127.0.0.1:7"},
		{"localhost:7", "127.0.0.1:1", "127.0.0.1:7"},
		{"[::ffff:10.0.0.1]:7", "127.0.0.1:1", "10.0.0.1:7"},
	} {
		host, port, err := agent.AdvertisedAddress(t.Context(), tc.inbound, tc.controlplane)
		if err != nil {
			t.Errorf("%s: %v", tc.inbound, err)
			continue
		}
		if host == "::1" { // localhost on a host that prefers IPv6
			host = "127.0.0.1"
		}
		want, wantPort, _ := net.SplitHostPort(tc.want)
		if host != want || net.JoinHostPort("", wantPort) != net.JoinHostPort("", itoa(port)) {
			t.Errorf("%s towards %s: got %s:%d, want %s", tc.inbound, tc.controlplane, host, port, tc.want)
		}
	}
	for _, bad := range []string{"unix:/x", "127.0.0.1:0", "127.0.0.1:x", "nonsense"} {
		if _, _, err := agent.AdvertisedAddress(t.Context(), bad, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "inbound") {
			t.Errorf("%s: got %v, want an error that names inbound", bad, err)
		}
	}
}
