// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const (
	tunnelsActive = "http.%s.downstream_cx_upgrades_active"
	tunnelsTotal  = "http.%s.downstream_cx_upgrades_total"
)

// chat is a service that speaks WebSocket, and its caller.
type chat struct {
	*mesh.Mesh
	web      *mesh.Sidecar
	instance *mesh.Instance
	log      string
}

func newChat(t *testing.T, callerFlags ...string) *chat {
	t.Helper()
	c := &chat{Mesh: mesh.New(t)}
	c.log = filepath.Join(c.Dir, "web.access.log")
	c.telemetry("json")
	c.instance = c.Instance("chat", "chat-1")
	c.web = c.Caller("web-1", callerFlags...)
	c.AwaitAnswers(c.web, "chat", "chat-1")
	return c
}

// telemetry changes the listeners of the caller.
func (c *chat) telemetry(format string) {
	c.ControlPlane.PutYAML("Telemetry", "mesh", `apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: mesh}
spec:
  targetRef: {kind: Service, name: web}
  accessLog: [{file: `+c.log+`, format: `+format+`}]
`)
}

// opened waits until both sidecars count a number of open tunnels.
func (c *chat) opened(n int) {
	c.web.AwaitStat(fmt.Sprintf(tunnelsActive, "outbound"), exactly(n))
	c.instance.Sidecar.AwaitStat(fmt.Sprintf(tunnelsActive, "inbound"), exactly(n))
}

func TestAWebSocketFlowsThroughBothSidecars(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	ws := mesh.DialWebSocket(t, c.web.Outbound, "chat", "/ws")
	for _, size := range []int{0, 1, 125, 126, 1 << 16, 4 << 20} {
		if err := ws.Echo(mesh.BinaryFrame, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Errorf("a message of %d bytes: %v", size, err)
		}
	}
	if err := ws.Echo(mesh.PingFrame, []byte("still there?")); err != nil {
		t.Error(err)
	}
	c.opened(1)
	if err := ws.Echo(mesh.CloseFrame, []byte{3, 232}); err != nil {
		t.Errorf("the closing handshake: %v", err)
	}
	if _, _, err := ws.Receive(); err == nil {
		t.Error("there was more behind the end")
	}
	_ = ws.Close()
	c.opened(0)
	c.web.AwaitStat(fmt.Sprintf(tunnelsTotal, "outbound"), exactly(1))
	record := c.record(t, "/ws")
	if record["response_code"] != 101.0 || record["bytes_received"].(float64) < 4<<20 || record["bytes_sent"].(float64) < 4<<20 || record["response_code_details"] != "via_upstream" {
		t.Errorf("the record is %v", record)
	}
	c.web.AwaitIdle()
	c.instance.Sidecar.AwaitIdle()
}

func exactly(n int) func(int) bool { return func(got int) bool { return got == n } }

// record waits for the line of a path.
func (c *chat) record(t *testing.T, path string) (record map[string]any) {
	t.Helper()
	c.instance.App.Await(10*time.Second, "the record of "+path, func() error {
		b, err := os.ReadFile(c.log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			record = nil
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				return err
			}
			if record["path"] == path {
				return nil
			}
		}
		return errors.New("there is none")
	})
	return record
}

func TestAWebSocketSurvivesChangesAndRestartsOfTheControlPlane(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	ws := mesh.DialWebSocket(t, c.web.Outbound, "chat", "/ws")
	for i := range 5 {
		before := c.web.AwaitStat("control_plane.snapshot", func(int) bool { return true })
		c.telemetry([]string{"text", "json"}[i%2])
		c.web.AwaitStat("control_plane.snapshot", func(n int) bool { return n != before })
		if err := ws.Echo(mesh.TextFrame, []byte("after the change")); err != nil {
			t.Fatal(err)
		}
	}
	c.ControlPlane.Kill()
	c.ControlPlane.Restart()
	if err := ws.Echo(mesh.TextFrame, []byte("without a control plane")); err != nil {
		t.Fatal(err)
	}
}

func TestAWebSocketEndsWithEitherOfItsEnds(t *testing.T) {
	t.Parallel()
	c := newChat(t)
	ws := mesh.DialWebSocket(t, c.web.Outbound, "chat", "/ws")
	c.opened(1)
	_ = ws.Close()
	c.opened(0)

	ws = mesh.DialWebSocket(t, c.web.Outbound, "chat", "/ws")
	c.opened(1)
	c.instance.App.Signal(syscall.SIGKILL)
	if _, _, err := ws.Receive(); err == nil {
		t.Error("a message came from nobody")
	}
	_ = ws.Close()
	c.opened(0)
}

func TestADrainEndsWebSocketsBeforeTheProcess(t *testing.T) {
	t.Parallel()
	c := newChat(t, "--drain-time-s", "2")
	ws := mesh.DialWebSocket(t, c.web.Outbound, "chat", "/ws")
	c.opened(1)
	c.web.Signal(syscall.SIGTERM)
	if err := ws.Echo(mesh.TextFrame, []byte("while it drains")); err != nil {
		t.Errorf("while the sidecar drained: %v", err)
	}
	if op, payload, err := ws.Receive(); err != nil || op != mesh.CloseFrame || string(payload) != mesh.GoingAway {
		t.Errorf("opcode %d with %q, %v; want a Close frame that says going away", op, payload, err)
	}
	if _, _, err := ws.Receive(); err == nil || errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the end was %v, want an orderly one", err)
	}
	_ = ws.Close()
	if code := c.web.Wait(15 * time.Second); code != 0 {
		t.Errorf("the sidecar ended with %d", code)
	}
	if r := c.record(t, "/ws"); r["response_code_details"] != "drain_time_over" {
		t.Errorf("the record is %v", r)
	}
}

// Between the sidecars there is mutual TLS, and what the caller speaks.
func TestWebSocketsFlowOverMutualTLS(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	log := m.logInbound()
	app := mesh.StartApp(t, m.Dir, "orders-1")
	m.sidecar("orders", "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, "orders", "orders-1")
	for _, ws := range []*mesh.WebSocket{
		mesh.DialWebSocket(t, web.Outbound, "orders", "/ws"),
		mesh.DialWebSocketHTTP2(t, mesh.NewHTTP2(t, web.Outbound), "orders", "/ws"),
	} {
		for _, size := range []int{1, 1 << 20} {
			if err := ws.Echo(mesh.BinaryFrame, bytes.Repeat([]byte("x"), size)); err != nil {
				t.Fatalf("a message of %d bytes: %v", size, err)
			}
		}
		if err := ws.Echo(mesh.CloseFrame, []byte{3, 232}); err != nil {
			t.Errorf("the closing handshake: %v", err)
		}
		_ = ws.Close()
	}
	m.awaitLine(log, "status=101", "tls=TLSv1.3", "web")
	web.AwaitStat(fmt.Sprintf(tunnelsTotal, "outbound"), exactly(2))
	web.AwaitIdle()
}
