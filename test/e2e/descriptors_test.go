// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestOutOfDescriptorsASidecarRestsServesOnAndRecovers gives a sidecar 256
// descriptors and lets a thousand clients come, each with a request that takes long
// enough for all to be there at a time. Meanwhile the control plane is killed and
// comes back: what the clients cannot take are the descriptors of others.
func TestOutOfDescriptorsASidecarRestsServesOnAndRecovers(t *testing.T) {
	t.Parallel()
	const clients, limit = 1000, 256
	m := mesh.New(t)
	m.Instance(orders, "orders-1")
	web := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "web", ID: "web-1", XDS: m.ControlPlane.XDS, Files: limit})
	web.AwaitReady()
	m.AwaitAnswers(web, orders, "orders-1")
	crowd := newCrowd(t)
	var answered, refused, failed atomic.Int64
	come := func(n int, path string) {
		for range n {
			conn := crowd.dial(web.Outbound)
			crowd.done.Go(func() { // ends with the connection
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, orders)
				response, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					refused.Add(1)
					return
				}
				if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
					failed.Add(1)
					return
				}
				answered.Add(1)
				if response.Close {
					_ = conn.Close() // as it was asked to
				}
			})
		}
	}
	// Everybody is served by turns, since those who were served make place.
	come(clients, "/?ms=20")
	mesh.Await(t, 20*time.Second, "a word to each of the clients", func() error {
		if n := answered.Load() + refused.Load() + failed.Load(); n < clients {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	served, turned := answered.Load(), refused.Load()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d clients got an error in place of an answer: there was no connection for them to the upstream", n)
	}
	if served < clients {
		t.Errorf("%d of %d clients were served, %d refused", served, clients, turned)
	}
	crowd.leave()
	// Then those come who do not go.
	come(clients, "/hold")
	pauses := web.AwaitStat("outrigger.worker_0.accept_pauses_total", func(n int) bool { return n > 0 })
	mesh.Await(t, 20*time.Second, "descriptors to run short", func() error {
		if n := web.Descriptors(); n < limit/2 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
	share := web.CPUShare(2 * time.Second)
	if share >= 0.10 {
		t.Errorf("it uses %.0f %% of a core while it can accept nobody", 100*share)
	}
	open := web.Descriptors()
	if open > limit*9/10 {
		t.Errorf("%d of %d descriptors are open: too few are kept back", open, limit)
	}
	began := time.Now()
	if err := web.Ready(); err != nil {
		t.Errorf("the admin port meanwhile: %v", err)
	}
	admin := time.Since(began)
	// The configuration source goes and comes back, and its news arrive.
	m.ControlPlane.Kill()
	web.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 0 })
	m.ControlPlane.Restart()
	back := time.Now()
	web.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 1 })
	reconnected := time.Since(back)
	held := web.Descriptors()
	crowd.leave()
	recovered := mesh.Await(t, 10*time.Second, "an answer after the crowd has left", func() error {
		a, err := mesh.Call(web.Outbound, orders, "/")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d", a.Status)
		}
		return err
	})
	m.ControlPlane.PutYAML("HTTPRoute", orders, route(1))
	mesh.Await(t, 10*time.Second, "configuration made after the return", func() error {
		a, err := mesh.Call(web.Outbound, orders, "/")
		if err == nil && a.Header.Get("X-Round") != "1" {
			err = fmt.Errorf("round %q", a.Header.Get("X-Round"))
		}
		return err
	})
	mesh.Conformance(t, "D10", "%d short clients of %d descriptors: %d served, %d refused; %d that stay: %d open, %d pauses, %.1f %% of a core, admin in %v, xDS back after %v (%d open); recovered in %v",
		clients, limit, served, turned, clients, open, pauses, 100*share, admin.Round(time.Millisecond), reconnected.Round(time.Millisecond), held, recovered.Round(time.Millisecond))
}
