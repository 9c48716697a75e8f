// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestAWebSocketFlowsThroughTheMeshWhateverItsClientSpeaks: the application knows
// HTTP/1.1's handshake alone, as nearly all do, and nothing is declared.
func TestAWebSocketFlowsThroughTheMeshWhateverItsClientSpeaks(t *testing.T) {
	m := mesh.New(t)
	instance := m.Instance("chat", "chat-1")
	caller := m.Caller("web-1")
	m.AwaitAnswers(caller, "chat", "chat-1")
	for i, c := range []*client{newClient(t, caller.Outbound, false), newClient(t, caller.Outbound, true)} {
		t.Run(c.name, func(t *testing.T) { chats(t, c.webSocket(t, "chat")) })
		instance.Sidecar.AwaitStat("http.inbound.downstream_cx_upgrades_total", func(n int) bool { return n == i+1 })
	}
	caller.AwaitStat("http.outbound.downstream_cx_upgrades_active", func(n int) bool { return n == 0 })
	caller.AwaitIdle()
	instance.Sidecar.AwaitIdle()
}

func TestADrainEndsWebSocketsOfHTTP2BeforeTheProcess(t *testing.T) {
	m := mesh.New(t)
	m.Instance("chat", "chat-1")
	caller := m.Caller("web-1", "--drain-time-s", "2")
	m.AwaitAnswers(caller, "chat", "chat-1")
	ws := newClient(t, caller.Outbound, true).webSocket(t, "chat")
	caller.AwaitStat("http.outbound.downstream_cx_upgrades_active", func(n int) bool { return n == 1 })
	caller.Signal(syscall.SIGTERM)
	if err := ws.Echo(mesh.TextFrame, []byte("while it drains")); err != nil {
		t.Errorf("while the sidecar drained: %v", err)
	}
	if op, payload, err := ws.Receive(); err != nil || op != mesh.CloseFrame || string(payload) != mesh.GoingAway {
		t.Errorf("opcode %d with %q, %v; want a Close frame that says going away", op, payload, err)
	}
	if _, _, err := ws.Receive(); err == nil || !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "NO_ERROR") {
		t.Errorf("the end was %v, want an orderly one", err)
	}
	_ = ws.Close()
	if code := caller.Wait(patience); code != 0 {
		t.Errorf("the sidecar ended with %d", code)
	}
}
