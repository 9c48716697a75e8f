// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestHostsThatStayKeepWhatTheirChecksHaveSaid(t *testing.T) {
	good, bad := newServer(t, false), newServer(t, false)
	bad.status(503)
	h := quick(func(*resource.HealthCheck) {})
	r := newRig(t, Config{}, Hooks{}, h, good.addr, bad.addr)
	r.healthy(1)
	until(t, "both checked", func() bool { return !r.members.View().Hosts()[1].Unchecked() })
	was := r.members.View().Hosts()
	// Checks that would not come for an hour: what follows is what was known before.
	slow := *h
	slow.Interval, slow.UnhealthyInterval, slow.NoTrafficInterval, slow.NoTrafficHealthyInterval, slow.InitialJitter = time.Hour, time.Hour, time.Hour, time.Hour, time.Hour
	r.cluster.Update(&slow)
	r.res.Health = &slow
	r.members.Update(r.res, endpoints(bad.addr, good.addr, "127.0.0.1:1"))
	hosts := r.members.View().Hosts()
	if hosts[0] != was[1] || hosts[1] != was[0] || !hosts[0].Failed() || hosts[1].Failed() || !hosts[2].Failed() || !hosts[2].Unchecked() {
		t.Errorf("%v %v %v", hosts[0].Failed(), hosts[1].Failed(), hosts[2].Failed())
	}
	if n := len(r.cluster.targets); n != 3 {
		t.Errorf("%d hosts are checked", n)
	}
	r.members.Update(r.res, endpoints(good.addr))
	until(t, "one host left", func() bool { return r.checks.Use().Waiting+r.checks.Use().Running == 1 })
	if st := r.cluster.Stats(); st.Healthy != 1 {
		t.Errorf("%+v", st)
	}
}

func TestWithoutHealthChecksVerdictsAreTakenBack(t *testing.T) {
	s := newServer(t, false)
	s.status(503)
	r := newRig(t, Config{}, Hooks{}, quick(func(*resource.HealthCheck) {}), s.addr)
	r.checked(1)
	r.cluster.Update(nil)
	r.healthy(1)
	until(t, "nothing to check", func() bool { return r.checks.Use() == Use{} })
	n := s.requests.Load()
	r.cluster.Update(quick(func(*resource.HealthCheck) {}))
	until(t, "checks again", func() bool { return s.requests.Load() > n })
	r.healthy(0)
}

func TestEverythingEndsWithTheCluster(t *testing.T) {
	var open atomic.Int32
	addr := listen(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		open.Add(1)
		_, _ = io.Copy(io.Discard, c)
		open.Add(-1)
	})
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Timeout = time.Hour }), addr)
	until(t, "a check under way", func() bool { return open.Load() == 1 })
	r.cluster.Close()
	until(t, "its end", func() bool { return open.Load() == 0 && r.checks.Use() == Use{} })
}

func TestChecksUnderWayAreBounded(t *testing.T) {
	addr := listen(t, "tcp", "0.0.0.0:0", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	_, port, _ := net.SplitHostPort(addr)
	var addrs []string
	for i := range 40 {
		addrs = append(addrs, fmt.Sprintf("127.0.1.%d:%s", i+1, port))
	}
	r := newRig(t, Config{Concurrent: 4}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Timeout = 20 * time.Millisecond }), addrs...)
	until(t, "all checked", func() bool {
		if u := r.checks.Use(); u.Running > 4 || u.Running+u.Waiting > len(addrs) {
			t.Errorf("%+v", u)
		}
		return r.cluster.Stats().Failures >= 80
	})
	for _, h := range r.members.View().Hosts() {
		if h.Unchecked() {
			t.Errorf("%s was never checked", h)
		}
	}
}

func TestTenThousandHostsAreCheckedInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("10 000 connections")
	}
	const n = 10_000
	addr := listen(t, "tcp", "0.0.0.0:0", func(c net.Conn) {
		b := make([]byte, 1024)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"); err != nil {
				return
			}
		}
	})
	_, port, _ := net.SplitHostPort(addr)
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("127.1.%d.%d:%s", i/250, i%250+1, port)
	}
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	hour := func(h *resource.HealthCheck) {
		h.NoTrafficInterval, h.NoTrafficHealthyInterval, h.Interval = time.Hour, time.Hour, time.Hour
	}
	r := newRig(t, Config{}, Hooks{}, nil, addrs...)
	before := memory()
	r.cluster.Update(quick(hour))
	until(t, "all checked", func() bool { return r.cluster.Stats().Successes == n })
	r.healthy(n)
	if u := r.checks.Use(); u.Running != 0 || u.Kept > DefaultKept {
		t.Errorf("%+v", u)
	}
	if each := (int64(memory()) - int64(before)) / n; each > 600 {
		t.Errorf("%d bytes for each host", each)
	} else {
		t.Logf("%d bytes for each host", each)
	}
}

func TestEventsAreEnvoys(t *testing.T) {
	s := newServer(t, false)
	s.status(503)
	r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.EventLog = "x" }), s.addr)
	r.checked(3)
	s.status(200)
	r.healthy(1)
	s.status(500)
	r.healthy(0)
	s.handle(degraded)
	until(t, "a degraded host", func() bool { return r.members.View().DegradedLen() == 1 })
	s.status(200)
	r.healthy(1)
	_, port, _ := net.SplitHostPort(s.addr)
	head := `{"health_checker_type":"HTTP","host":{"socket_address":{"protocol":"TCP","address":"127.0.0.1","port_value":` + port + `}},"cluster_name":"orders",`
	want := []string{
		`"health_check_failure_event":{"failure_type":"ACTIVE","http_status_code":503,"first_check":true}`,
		`"add_healthy_event":{"first_check":false}`,
		`"eject_unhealthy_event":{"failure_type":"ACTIVE","http_status_code":500}`,
		`"degraded_healthy_host":{}`,
		`"add_healthy_event":{"first_check":false}`,
		`"no_longer_degraded_host":{}`,
	}
	until(t, "all events", func() bool { return len(r.log.list()) >= len(want) })
	for i, line := range r.log.list() {
		rest, ok := strings.CutPrefix(line, head)
		if !ok || i >= len(want) || !strings.HasPrefix(rest, want[i]+`,"timestamp":"`) || !strings.Contains(rest, `"locality":{"region":"","zone":"a","sub_zone":""}`) {
			t.Errorf("event %d: %s", i, line)
		}
	}
}

func TestAResponseToTrafficFailsItsHost(t *testing.T) {
	s := newServer(t, false)
	var failed atomic.Pointer[lb.Host]
	r := newRig(t, Config{}, Hooks{Failed: func(h *lb.Host) { failed.Store(h) }}, quick(func(h *resource.HealthCheck) { h.NoTrafficHealthyInterval = time.Hour }), s.addr)
	r.healthy(1)
	r.cluster.Tick(nil)
	r.cluster.FailNow(r.host())
	r.cluster.FailNow(r.host())
	r.cluster.Tick(nil)
	until(t, "the hook", func() bool { return failed.Load() == r.host() })
	if st := r.cluster.Stats(); st.Passive != 1 || st.Failures != 1 || st.Healthy != 0 || r.members.View().HealthyLen() != 0 {
		t.Errorf("%+v", st)
	}
	r.cluster.FailNow(r.host()) // it has failed already
	r.cluster.Tick(nil)
	if st := r.cluster.Stats(); st.Passive != 1 {
		t.Errorf("%+v", st)
	}
}

func TestASuccessTellsOfAnEjectedHost(t *testing.T) {
	for _, on := range []bool{true, false} {
		s := newServer(t, false)
		r := newRig(t, Config{}, Hooks{}, quick(func(h *resource.HealthCheck) { h.Uneject = on }), s.addr)
		r.healthy(1)
		r.host().SetEjected(true)
		r.checked(3)
		var got []*lb.Host
		r.cluster.Tick(func(h *lb.Host) { got = append(got, h) })
		if on != (len(got) > 0) || on && got[0] != r.host() {
			t.Errorf("successful_active_health_check_uneject_host %v: %v", on, got)
		}
	}
}

func TestAClusterWithoutTrafficIsCheckedAtItsOwnPace(t *testing.T) {
	s := newServer(t, false)
	var used atomic.Bool
	r := newRig(t, Config{}, Hooks{Used: used.Load}, quick(func(h *resource.HealthCheck) {
		h.NoTrafficHealthyInterval = time.Hour
		h.Interval = time.Minute
	}), s.addr)
	next := func() time.Duration {
		r.checks.mu.Lock()
		defer r.checks.mu.Unlock()
		if len(r.checks.due) == 0 {
			return 0
		}
		return time.Until(r.checks.due[0].at)
	}
	r.healthy(1)
	until(t, "the long interval", func() bool { return next() > 30*time.Minute })
	r.cluster.Tick(nil)
	if next() < 30*time.Minute {
		t.Error("checks are moved up without traffic")
	}
	// What has waited so far is moved up with the first traffic.
	used.Store(true)
	r.cluster.Tick(nil)
	if d := next(); d > time.Minute {
		t.Errorf("the next check is in %v", d)
	}
}

// A process that ends may still take its first request, and its last update.
func TestWhatComesAfterTheEndFindsNothingToMoveUp(t *testing.T) {
	var used atomic.Bool
	h := quick(func(h *resource.HealthCheck) { h.InitialJitter = time.Hour })
	r := newRig(t, Config{}, Hooks{Used: used.Load}, h, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	r.end()
	used.Store(true)
	r.cluster.Tick(nil)
	other := *h
	other.Timeout++
	r.cluster.Update(&other)
	r.members.Update(r.res, endpoints("127.0.0.1:2"))
	r.cluster.Close()
}
