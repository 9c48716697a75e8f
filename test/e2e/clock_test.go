// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// suspendEnv is for how long a sidecar is stopped, in seconds; the tests' own is short.
const suspendEnv = "OUTRIGGER_SUSPEND_SECONDS"

// TestASuspendedSidecarTimesNobodyOutThatWasAnswered stops a sidecar, as a virtual machine
// is that moves, for longer than its timeouts. What was answered meanwhile is an answer
// when it goes on, and connections that idle are there; its registration stays as long
// as the lease lasts.
func TestASuspendedSidecarTimesNobodyOutThatWasAnswered(t *testing.T) {
	stopped := 2 * time.Second
	if s := os.Getenv(suspendEnv); s != "" {
		d, err := time.ParseDuration(s + "s")
		if err != nil || d < stopped {
			t.Fatalf("%s=%q: want seconds, at least %v", suspendEnv, s, stopped)
		}
		stopped = d
	}
	m := mesh.New(t)
	m.Instance("orders", "orders-1")
	m.ControlPlane.PutYAML("HTTPRoute", "orders", `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: orders}]
  rules:
  - backendRefs: [{group: outrigger.io, kind: Service, name: orders}]
    timeouts: {request: 1s}
`)
	web := m.Caller("web-1")
	m.AwaitAnswers(web, "orders", "orders-1")
	web.Await(routeLimit, "the timeout of the route", func() error {
		a, err := mesh.Call(web.Outbound, "orders", "/?ms=1500")
		if err == nil && a.Status != http.StatusGatewayTimeout {
			err = fmt.Errorf("%d", a.Status)
		}
		return err
	})
	const n = 50
	var idle, waiting []*held
	for range n {
		for _, list := range []*[]*held{&idle, &waiting} {
			h := hold(t, web.Outbound)
			if _, err := h.ask("orders", "/"); err != nil {
				t.Fatal(err)
			}
			*list = append(*list, h)
		}
	}
	seen := web.AwaitStat("cluster.outbound|orders.upstream_rq_total", func(int) bool { return true })
	var answers sync.WaitGroup
	errs := make(chan error, n)
	for _, h := range waiting {
		answers.Go(func() {
			_ = h.conn.SetDeadline(time.Now().Add(time.Minute))
			_, err := fmt.Fprintf(h.conn, "GET /?ms=500 HTTP/1.1\r\nHost: orders\r\n\r\n")
			if err == nil {
				var res *http.Response
				if res, err = http.ReadResponse(h.r, nil); err == nil {
					_ = res.Body.Close() // all of it is in the buffer
					if res.StatusCode != http.StatusOK {
						err = fmt.Errorf("status %d", res.StatusCode)
					}
				}
			}
			errs <- err
		})
	}
	web.AwaitStat("cluster.outbound|orders.upstream_rq_total", func(now int) bool { return now >= seen+n })
	began := time.Now()
	web.Signal(syscall.SIGSTOP)
	mesh.Pass(stopped)
	web.Signal(syscall.SIGCONT)
	answers.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if err != nil {
			failed++
			t.Errorf("a request that was answered while the sidecar stood still: %v", err)
		}
	}
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: "orders", Conns: 20, Rate: 300})
	load.AwaitSent(200)
	tally := load.Stop()
	tally.Flawless(t, "after it went on")
	for i, h := range idle {
		if _, err := h.ask("orders", "/"); err != nil {
			t.Errorf("idle connection %d: %v", i, err)
		}
	}
	web.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 1 })
	mesh.Conformance(t, "D15", "stopped for %v with timeouts of 1 s: %d requests answered meanwhile, %d failed; %d idle connections stay; %d requests afterwards, %d failed",
		time.Since(began).Round(100*time.Millisecond), n, failed, n, tally.Sent, tally.Failed)
}

// TestSidecarsRunAtAnyMonotonicTime starts sidecars on machines that have been up for
// years, or have just been started: in time namespaces.
func TestSidecarsRunAtAnyMonotonicTime(t *testing.T) {
	t.Parallel()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs the program unshare (package util-linux)")
	}
	uptime := func(argv ...string) (seconds float64) {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Skipf("this host forbids time namespaces: %s", strings.TrimSpace(string(out)))
		}
		if _, err := fmt.Sscan(string(out), &seconds); err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	seconds := uptime("cat", "/proc/uptime")
	if ahead := uptime(unshare, "--time", "--boottime", "1000000", "cat", "/proc/uptime"); ahead < seconds+900000 {
		t.Skip("a program that this kernel starts is not in the time namespace: needs Linux 6.3")
	}
	app := mesh.StartApp(t, t.TempDir(), "app")
	const year = 365 * 24 * 3600
	offsets := []int{-int(seconds) + 2, 3600, 20 * year}
	for _, offset := range offsets {
		t.Run(fmt.Sprint(offset), func(t *testing.T) {
			s := mesh.StartStatic(t, t.TempDir(), mesh.StaticOptions{
				Upstream: app.Address, Manager: "          common_http_protocol_options: {idle_timeout: 1s}\n",
				Around: []string{unshare, "--time", "--monotonic", fmt.Sprint(offset), "--boottime", fmt.Sprint(offset)},
			})
			load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "app", Conns: 10, Rate: 200})
			load.AwaitSent(100)
			h := hold(t, s.Inbound)
			began := time.Now()
			if _, err := h.ask("app", "/"); err != nil {
				t.Fatal(err)
			}
			var b [1]byte
			_, err := h.conn.Read(b[:])
			took := time.Since(began)
			if err == nil || took < 900*time.Millisecond {
				t.Errorf("an idle timeout of 1 s: %v after %v", err, took)
			}
			load.Stop().Flawless(t, "at another time")
		})
	}
	mesh.Conformance(t, "D15", "sidecars at %d monotonic times (offsets in seconds: %d): requests and timers as ever", len(offsets), offsets)
}
