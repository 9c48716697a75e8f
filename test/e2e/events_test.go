// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const ejectingPolicy = `apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  outlierDetection: {consecutive5xx: 3, interval: 60s, baseEjectionTime: 120s, maxEjectionPercent: 50}
`

// reported is an event as the control plane shows it.
type reported struct {
	event.Event
	Sequence         uint64
	Sidecar, Service string
}

// streamed are the frames of a stream.
func streamed(t *testing.T, url string) <-chan event.Frame {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("%s: %s %s", url, resp.Status, ct)
	}
	frames := make(chan event.Frame, 1024)
	go func() { // ends with the test
		defer close(frames)
		_ = event.ReadFrames(resp.Body, func(f event.Frame) error { frames <- f; return nil })
		_ = resp.Body.Close()
	}()
	return frames
}

// awaitFrame waits for a frame whose data has a text in it.
func awaitFrame(t *testing.T, frames <-chan event.Frame, text string) event.Frame {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				t.Fatalf("the stream ended before %s", text)
			}
			if strings.Contains(f.Data, text) {
				return f
			}
		case <-limit:
			t.Fatalf("never on the stream: %s", text)
		}
	}
}

// ejection checks that an event is the ejection of the bad instance.
func ejection(t *testing.T, where string, e *event.Event, bad string) {
	t.Helper()
	if e.Kind != event.KindEjection || e.Type != event.Ejected || e.Cluster != "outbound|orders" || e.Endpoint != bad || e.Message != "3 server errors in a row, and the threshold is 3" {
		t.Errorf("%s: %+v", where, e)
	}
	for name, want := range map[string]float64{
		"failuresInARow": 3, "threshold": 3, "ejectedEndpoints": 1, "endpoints": 2, "ejectedPercent": 50, "maxEjectionPercent": 50, "ejectedForMillis": 120_000,
	} {
		if got, ok := e.Numbers.Get(name); !ok || got != want {
			t.Errorf("%s: %s is %v, want %v, of %v", where, name, got, want, e.Numbers)
		}
	}
	if d := e.Until.Sub(e.Time); d < 119*time.Second || d > 121*time.Second {
		t.Errorf("%s: until %v after %v", where, d, e.Time)
	}
}

// command runs one and wants it to succeed.
func command(t *testing.T, argv ...string) string {
	t.Helper()
	f := mesh.Run(t, "", argv...)
	if f.Code != 0 {
		t.Fatalf("%v: %d %s", argv, f.Code, f.Output)
	}
	return f.Output
}

func TestAnEjectionIsSeenAtTheSidecarAndAtTheControlPlane(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	answer := func(is *atomic.Bool) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if is != nil && is.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	bad, good := answer(&broken), answer(nil)
	m := mesh.New(t)
	m.ControlPlane.PutYAML("TrafficPolicy", "orders", ejectingPolicy)
	m.ControlPlane.PutInstance("orders", "bad", bad)
	m.ControlPlane.PutInstance("orders", "good", good)
	log := filepath.Join(m.Dir, "events.json")
	caller := m.Caller("web-1", "--event-log", log)
	node := caller.Node()
	mesh.Await(t, 20*time.Second, "requests are answered", func() error {
		a, err := mesh.Call(caller.Outbound, "orders", "/")
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("status %d", a.Status)
		}
		return err
	})
	admin := "http://" + caller.Admin
	here := streamed(t, admin+"/events?kind=ejection")
	there := streamed(t, m.ControlPlane.URL("/v1/events?service=orders&kind=ejection"))

	broken.Store(true)
	mesh.Await(t, 20*time.Second, "the endpoint is ejected", func() error {
		if _, err := mesh.Call(caller.Outbound, "orders", "/"); err != nil {
			return err
		}
		text, err := mesh.Get(admin + "/events?kind=ejection")
		if err == nil && !strings.Contains(text, `"ejected"`) {
			err = errors.New(text)
		}
		return err
	})
	var own []event.Event
	text, err := mesh.Get(admin + "/events?kind=ejection")
	if err == nil {
		err = json.Unmarshal([]byte(text), &own)
	}
	if err != nil || len(own) != 1 {
		t.Fatalf("the sidecar's: %v %s", err, text)
	}
	ejection(t, "the sidecar's list", &own[0], bad)
	if f := awaitFrame(t, here, bad); f.ID != own[0].ID || f.Type != event.KindEjection {
		t.Errorf("the sidecar's stream: %+v", f)
	}

	var x reported
	if err := json.Unmarshal([]byte(awaitFrame(t, there, bad).Data), &x); err != nil {
		t.Fatal(err)
	}
	ejection(t, "the control plane's stream", &x.Event, bad)
	if x.Sidecar != node || x.Service != "web" || x.ID != own[0].ID || !x.Time.Equal(own[0].Time) {
		t.Errorf("the control plane's stream: %+v, the sidecar's event: %+v", x, own[0])
	}
	var list struct{ Items []reported }
	if text, err = mesh.Get(m.ControlPlane.URL("/v1/events?kind=Ejection&sidecar=" + node)); err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	if err != nil || len(list.Items) != 1 || list.Items[0].Sequence != x.Sequence {
		t.Errorf("the control plane's list: %v %s", err, text)
	}

	// By command line, at both.
	line := "ejection ejected outbound|orders " + bad + " CONSECUTIVE_5XX: 3 server errors in a row, and the threshold is 3; until "
	if out := command(t, mesh.Program("sidecar"), "events", "--admin", caller.Admin, "--kind", "ejection"); !strings.Contains(out, line) {
		t.Errorf("sidecar events: %s", out)
	}
	if out := m.ControlPlane.CLI("", "events", "--service", "orders").Output; !strings.Contains(out, node+" "+line) {
		t.Errorf("controlplane events: %s", out)
	}
	if out := m.ControlPlane.CLI("", "events", "--service", "payments").Output; strings.Contains(out, bad) {
		t.Errorf("of another service: %s", out)
	}

	// What holds now, also for a control plane that has just started.
	holds := func(want bool) {
		t.Helper()
		mesh.Await(t, 30*time.Second, fmt.Sprintf("the ejection is shown: %t", want), func() error {
			status := m.ControlPlane.CLI("", "status").Output
			explained := m.ControlPlane.CLI("", "explain", "GET", "http://orders/", "--from", "web").Output
			if strings.Contains(status, node+" has ejected "+bad+" of outbound|orders since ") != want || strings.Contains(explained, "; ejected by "+node+" (") != want {
				return fmt.Errorf("status: %s\nexplain: %s", status, explained)
			}
			return nil
		})
	}
	holds(true)
	m.ControlPlane.Kill()
	m.ControlPlane.Restart()
	caller.AwaitStat("control_plane.connected_state", func(n int) bool { return n == 1 }) // which costs less than to ask commands
	holds(true)

	// A log that was moved away is opened anew.
	logged := func(path, typ string) {
		t.Helper()
		mesh.Await(t, 20*time.Second, "a line in "+filepath.Base(path), func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			for s := bufio.NewScanner(f); s.Scan(); {
				var e event.Event
				if err := json.Unmarshal(s.Bytes(), &e); err != nil {
					t.Fatalf("%s: %v", s.Text(), err)
				}
				if e.Kind == event.KindEjection && e.Type == typ && e.Endpoint == bad {
					return nil
				}
			}
			return errors.New("not there")
		})
	}
	logged(log, event.Ejected)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	caller.Signal(syscall.SIGUSR1)
	mesh.Await(t, 20*time.Second, "the log is opened anew", func() error { _, err := os.Stat(log); return err })
	m.ControlPlane.Delete("/v1/services/orders/instances/bad")
	awaitFrame(t, here, `"left"`)
	holds(false)
	logged(log, event.Left)

	// A sidecar that ends still says so.
	caller.Stop()
	mesh.Await(t, 20*time.Second, "the control plane hears of the drain", func() error {
		out := m.ControlPlane.CLI("", "events", "--sidecar", node, "--kind", "drain").Output
		if !strings.Contains(out, "drain ended all") {
			return errors.New(out)
		}
		return nil
	})
	mesh.Conformance(t, "events", "an ejection seen with its numbers in the sidecar's list, stream, log and command, and in the control plane's; held by a control plane that was restarted")
}
