// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a cluster whose hosts are checked.
type rig struct {
	t       *testing.T
	res     *resource.Cluster
	members *lb.Cluster
	checks  *Checks
	cluster *Cluster
	log     lines
	end     func() // returns when Run has
}

// quick are settings for tests: of 100 checks a second, and a long time for each.
func quick(edit func(*resource.HealthCheck)) *resource.HealthCheck {
	const every = 10 * time.Millisecond
	h := &resource.HealthCheck{
		Timeout: 10 * time.Second, Interval: every, NoTrafficInterval: every, NoTrafficHealthyInterval: every, UnhealthyInterval: every,
		UnhealthyEdgeInterval: every, HealthyEdgeInterval: every, UnhealthyThreshold: 2, HealthyThreshold: 2, ReuseConnection: true, Uneject: true,
		Path: "/healthz", Method: "GET", Expected: []resource.StatusSpan{{From: 200, To: 201}}, ReceiveBytes: 1024,
	}
	edit(h)
	return h
}

func endpoints(addrs ...string) *resource.Assignment {
	l := resource.Locality{Zone: "a", Weight: 1}
	for _, s := range addrs {
		e := resource.Endpoint{Weight: 1, Address: resource.Address{Path: s}}
		if ap, err := netip.ParseAddrPort(s); err == nil {
			e.Address = resource.Address{Host: ap.Addr().String(), Port: ap.Port()}
		}
		l.Endpoints = append(l.Endpoints, e)
	}
	return &resource.Assignment{Localities: []resource.Locality{l}}
}

func newRig(t *testing.T, c Config, hooks Hooks, h *resource.HealthCheck, addrs ...string) *rig {
	t.Helper()
	r := &rig{t: t, res: &resource.Cluster{Name: "orders", Health: h, LB: resource.LoadBalancing{Policy: resource.RoundRobin}}, members: new(lb.Cluster)}
	c.Events = func(string) (func([]byte), error) { return r.log.add, nil }
	r.members.Update(r.res, endpoints(addrs...))
	r.checks = New(c)
	r.cluster = r.checks.Cluster(r.res.Name, r.members, hooks)
	r.cluster.Update(h)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { r.checks.Run(ctx) })
	r.end = func() { cancel(); done.Wait() }
	t.Cleanup(r.end)
	return r
}

// until waits for something to be so.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) healthy(n int) {
	r.t.Helper()
	until(r.t, "so many healthy hosts", func() bool { return r.members.View().HealthyLen() == n })
}

// checked waits for more checks to end.
func (r *rig) checked(more uint64) {
	r.t.Helper()
	s := r.cluster.Stats()
	from := s.Successes + s.Failures
	until(r.t, "more checks", func() bool {
		s := r.cluster.Stats()
		return s.Successes+s.Failures >= from+more
	})
}

func (r *rig) host() *lb.Host { return r.members.View().Hosts()[0] }

type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, strings.TrimSpace(string(line)))
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.all...)
}

// listen accepts connections and hands each to serve until the test ends.
func listen(t *testing.T, network, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() { defer c.Close(); serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}
