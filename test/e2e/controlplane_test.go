// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestAKilledControlPlaneKeepsEveryAcknowledgedWrite kills it with SIGKILL in
// the midst of writes, again and again over the same folder, while traffic
// flows: what was acknowledged is there afterwards, and no request fails.
func TestAKilledControlPlaneKeepsEveryAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	m := mesh.New(t)
	m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 20, Rate: 200})
	load.AwaitSent(50)

	book := newLedger()
	for round := range rounds {
		w := startWriters(m.ControlPlane, book, round)
		book.await(t, 30)
		m.ControlPlane.Kill()
		w.end()
		m.ControlPlane.Restart()
		book.verify(t, m.ControlPlane, round)
	}
	mesh.Await(t, 20*time.Second, "the sidecars are connected again", func() error {
		for _, node := range []string{"web~web-1", "orders~orders-1"} {
			s, err := m.ControlPlane.Sidecar(node)
			if err == nil && !(s.Connected && s.Synced) {
				err = fmt.Errorf("%+v", s)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	// The registration survived, or was made again.
	m.AwaitInstance(orders, "orders-1", true)
	load.AwaitSent(50)
	tally := load.Stop()
	tally.Flawless(t, "while the control plane was killed")
	mesh.Conformance(t, "C7", "%d SIGKILLs during writes: %d acknowledged, 0 lost", rounds, len(book.acked))
	mesh.Conformance(t, "C2", "%d requests while the control plane was killed %d times: %d failed", tally.Sent, rounds, tally.Failed)
}

// ledger is what the control plane acknowledged. Its methods may be called from
// any goroutine.
type ledger struct {
	mu      sync.Mutex
	acked   map[string]int   // path → the port that was acknowledged last
	unknown map[string][]int // the ports of later writes that got no answer: each may have been done
	awaited int
	last    error
}

func newLedger() *ledger { return &ledger{acked: map[string]int{}, unknown: map[string][]int{}} }

func (l *ledger) note(path string, port int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.last, l.unknown[path] = err, append(l.unknown[path], port)
		return
	}
	l.acked[path] = port
	delete(l.unknown, path)
}

// await waits for so many more names.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	l.awaited += n
	mesh.Await(t, time.Minute, fmt.Sprintf("%d acknowledged writes", l.awaited), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.acked) < l.awaited {
			return fmt.Errorf("%d; %w", len(l.acked), l.last)
		}
		return nil
	})
}

// verify looks for every write that was acknowledged.
func (l *ledger) verify(t *testing.T, c *mesh.ControlPlane, round int) {
	t.Helper()
	for path, port := range l.acked {
		body, err := mesh.Get(c.URL(path))
		has := func(port int) bool {
			return strings.Contains(body, fmt.Sprintf(`"port":%d,`, port)) || strings.Contains(body, fmt.Sprintf(`"port":%d}`, port))
		}
		if err != nil || !has(port) && !slices.ContainsFunc(l.unknown[path], has) {
			t.Errorf("round %d: %s was acknowledged with port %d: %v %s", round, path, port, err, body)
		}
	}
}

// writers put objects and instances, new ones and the same ones again.
type writers struct {
	stop chan struct{}
	done sync.WaitGroup
}

func startWriters(c *mesh.ControlPlane, book *ledger, round int) *writers {
	w := &writers{stop: make(chan struct{})}
	for i := range 3 {
		w.done.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-w.stop:
					return
				default:
				}
				path, port, err := write(c, i, n, round)
				if book.note(path, port, err); err != nil {
					return
				}
			}
		})
	}
	return w
}

// write puts an object, or an instance in the third of the series. Every second
// name returns in each round with another port.
func write(c *mesh.ControlPlane, series, n, round int) (path string, port int, err error) {
	name := fmt.Sprintf("s%d-%d", series, n)
	if n%2 == 0 {
		name += fmt.Sprintf("-%d", round)
	}
	port = 1000 + 1000*round + n
	kind, body := "application/yaml", fmt.Sprintf("apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: %d}]}\n", name, port)
	path = "/v1/objects/Service/" + name
	if series == 2 {
		path = "/v1/services/kept/instances/" + name
		kind, body = "application/json", fmt.Sprintf(`{"address":"127.0.0.1","port":%d,"leaseSeconds":3600}`, port)
	}
	a, err := mesh.Do(http.MethodPut, c.URL(path), kind, body)
	if err == nil && a.Status/100 != 2 {
		err = fmt.Errorf("PUT %s: %d %s", path, a.Status, a.Body)
	}
	return path, port, err
}

func (w *writers) end() {
	close(w.stop)
	w.done.Wait()
}

func TestASidecarThatRestartsWithoutControlPlaneServesFromItsLastConfiguration(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	x := m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1")
	for _, s := range []*mesh.Sidecar{web, x.Sidecar} {
		s.AwaitLastGood()
	}
	m.ControlPlane.Kill()

	web.Kill()
	began := time.Now()
	web.Restart()
	web.Await(10*time.Second, "ready without a control plane", web.Ready)
	ready := time.Since(began)
	a, err := mesh.Call(web.Outbound, orders, "/")
	if err != nil || a.Status != http.StatusOK {
		t.Errorf("a request after the restart: %d %v", a.Status, err)
	}
	if ready > 5*time.Second { // and not after a timeout
		t.Errorf("ready after %v", ready)
	}
	// The instance's own sidecar as well: its inbound listener and application.
	x.Sidecar.Kill()
	x.Sidecar.Restart()
	x.Sidecar.Await(10*time.Second, "the instance's sidecar is ready", x.Sidecar.Ready)
	mesh.Await(t, 10*time.Second, "a request through both", func() error {
		a, err := mesh.Call(web.Outbound, orders, "/")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	// What the control plane says counts again when it is back.
	m.ControlPlane.Restart()
	m.ControlPlane.PutYAML("HTTPRoute", orders, route(7))
	mesh.Await(t, 40*time.Second, "a new route after the control plane's return", func() error {
		a, err := mesh.Call(web.Outbound, orders, "/")
		if err == nil && a.Header.Get("X-Round") != "7" {
			err = fmt.Errorf("%d %v", a.Status, a.Header)
		}
		return err
	})
	mesh.Conformance(t, "C1", "started from the last good configuration in %v without a control plane", ready.Round(time.Millisecond))
}

func TestASidecarWithoutConfigurationIsNotReadyBeforeItIsComplete(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.Instance(orders, "orders-1")
	m.ControlPlane.PutYAML("HTTPRoute", orders, route(1))
	m.ControlPlane.Kill()
	web := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "web", ID: "web-1", XDS: m.ControlPlane.XDS})
	web.Await(10*time.Second, "the admin port", func() error {
		_, err := mesh.Do(http.MethodGet, "http://"+web.Admin+"/ready", "", "")
		return err
	})
	// Nothing can be waited for here: it must stay as it is.
	for range 30 {
		a, err := mesh.Do(http.MethodGet, "http://"+web.Admin+"/ready", "", "")
		if err != nil || a.Status != http.StatusServiceUnavailable {
			t.Fatalf("/ready without any configuration: %d %v %s", a.Status, err, a.Body)
		}
		mesh.Pass(50 * time.Millisecond)
	}
	m.ControlPlane.Restart()
	began := time.Now()
	web.AwaitReady()
	took := time.Since(began)
	// Ready means complete: routes, clusters and endpoints.
	a, err := mesh.Call(web.Outbound, orders, "/")
	if err != nil || a.Status != http.StatusOK || a.Header.Get("X-Round") != "1" {
		t.Errorf("the first request after it was ready: %d %v %v", a.Status, a.Header, err)
	}
	mesh.Conformance(t, "C1", "without a last good configuration: not ready until the control plane was back, then after %v, complete", took.Round(10*time.Millisecond))
}

// TestACorruptStoreIsNeverTakenForAnEmptyOne damages the file in several ways:
// each is refused with a message that names it, and the file is left as it is.
func TestACorruptStoreIsNeverTakenForAnEmptyOne(t *testing.T) {
	t.Parallel()
	good := mesh.New(t)
	good.ControlPlane.PutYAML("HTTPRoute", orders, route(1))
	good.ControlPlane.Stop()
	data, err := os.ReadFile(filepath.Join(good.ControlPlane.Data, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	garbage := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(i*7 + 13)
		}
		return b
	}
	tests := []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"overwritten", garbage},
		{"first pages overwritten", func(b []byte) []byte { garbage(b[:2*4096]); return b }},
		{"a page in use overwritten", func(b []byte) []byte { garbage(b[3*4096 : 4*4096]); return b }},
		{"cut off", func(b []byte) []byte { return b[:len(b)/2] }},
		{"cut off within a page", func(b []byte) []byte { return b[:5000] }},
		{"empty", func([]byte) []byte { return nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "state.db")
			damaged := test.damage(slices.Clone(data))
			if err := os.WriteFile(file, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			p := mesh.Start(t, "controlplane", filepath.Join(t.TempDir(), "log"), nil,
				mesh.Program("controlplane"), "serve", "--data", dir, "--http", mesh.FreeAddress(t), "--xds", mesh.FreeAddress(t))
			code := p.Wait(20 * time.Second)
			out := p.Output()
			if code == 0 || !strings.Contains(out, file) || strings.Contains(out, "goroutine ") {
				t.Errorf("exit code %d, want a clear error that names %s:\n%s", code, file, out)
			}
			after, err := os.ReadFile(file) //nolint:gosec // the test's own
			if err != nil || !slices.Equal(after, damaged) {
				t.Errorf("the damaged file was changed (%d bytes, %d before, %v)", len(after), len(damaged), err)
			}
		})
	}
}

// TestAFullFolderRefusesWritesAndServesReads puts the control plane's folder on a
// file system of two megabytes.
func TestAFullFolderRefusesWritesAndServesReads(t *testing.T) {
	t.Parallel()
	small := smallFolder(t, 2<<20)
	dir := t.TempDir()
	c := mesh.StartControlPlane(t, dir, "--data", small)
	c.PutYAML("HTTPRoute", orders, route(1))
	acked, full := fill(t, c)
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(full.Body), &p); err != nil || full.Status != http.StatusInsufficientStorage && full.Status != http.StatusServiceUnavailable {
		t.Errorf("a write to the full folder: %d %v %s", full.Status, err, full.Body)
	}
	for _, path := range append(acked, "/v1/objects/HTTPRoute/orders") {
		if _, err := mesh.Get(c.URL(path)); err != nil {
			t.Errorf("a read with the folder full: %v", err)
		}
	}
	c.Kill()
	c.Restart()
	for _, path := range append(acked, "/v1/objects/HTTPRoute/orders") {
		if _, err := mesh.Get(c.URL(path)); err != nil {
			t.Errorf("after a restart in the full folder: %v", err)
		}
	}
	mesh.Conformance(t, "C7", "folder full after %d writes: %d %q; all reads served; restarted with all of them", len(acked), full.Status, p.Title)
}

// fill writes until a write is refused.
func fill(t *testing.T, c *mesh.ControlPlane) (acked []string, refused mesh.Answer) {
	t.Helper()
	padding := strings.Repeat("x", 4<<10)
	for i := range 500 {
		name := fmt.Sprintf("big-%d", i)
		path := "/v1/objects/HTTPRoute/" + name
		a, err := mesh.Do(http.MethodPut, c.URL(path), "application/yaml", fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s, annotations: {a: %[2]s, b: %[2]s, c: %[2]s, d: %[2]s}}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: %[1]s}]
  rules: [{backendRefs: [{group: outrigger.io, kind: Service, name: orders}]}]
`, name, padding))
		if err != nil {
			t.Fatal(err)
		}
		if a.Status/100 != 2 {
			return acked, a
		}
		acked = append(acked, path)
	}
	t.Fatal("the folder is never full")
	return nil, mesh.Answer{}
}
